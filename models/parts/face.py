"""Move the 468 points of a face: the photo's own skin with the driver's expression, and the mouth.

Where the lips part, the photo shows nothing: a dark cavity is drawn and, if the photo shows teeth,
they are held at the upper lip instead of being stretched.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64, UInt8
from scipy.spatial import Delaunay

from animaray.models.parts.landmarks import (
    FACE_OVAL,
    INNER_LIPS,
    LOWER_INNER_LIP,
    LOWER_LIP,
    MOUTH_LEFT,
    MOUTH_RIGHT,
    UPPER_INNER_LIP,
    UPPER_LIP,
    face_middle,
    face_size_px,
    lip_gap,
)
from animaray.models.parts.raster import Box, draw_triangles, empty_map, sample

_RING = 1.3
"""Around the face's outline lies a ring of this size that moves with the head."""
_OPEN_GAP = 0.03
"""From this gap of the lips on (face sizes) a mouth is open."""
_TEETH_GAP = 0.02
"""From this gap on the photo shows what is behind the lips."""
_MAX_TEETH_GROWTH = 1.15


@dataclass(frozen=True, kw_only=True, slots=True)
class Mouth:
    """An open mouth in one frame, pixels of the padded photo."""

    opening: Float64[np.ndarray, "20 2"]
    """Contour."""
    teeth: Float64[np.ndarray, "22 2"] | None
    """Where the photo's mouth is drawn inside it: upper lip, then lower lip; None for no teeth."""


class FaceMesh:
    """The photo's face as triangles.

    Args:
        face: Its points, pixels of the padded photo.
        picture: The padded photo, RGB in [0, 255].
    """

    def __init__(
        self, face: Float64[np.ndarray, "468 3"], picture: Float32[np.ndarray, "height width 3"]
    ) -> None:
        self._picture = picture
        centre, outline = face_middle(face), face[list(FACE_OVAL), :2]
        self._ring = centre + (outline - centre) * _RING
        self._points: Float64[np.ndarray, "points 2"] = np.concatenate([face[:, :2], self._ring])
        triangles: Int64[np.ndarray, "triangles 3"] = Delaunay(self._points).simplices.astype(
            np.int64
        )
        z = np.concatenate([face[:, 2], np.full(len(self._ring), face[:, 2].max())])
        self._triangles = triangles
        self._depth: Float64[np.ndarray, " triangles"] = z[triangles].mean(axis=1)
        self._in_mouth: Bool[np.ndarray, " triangles"] = np.asarray(
            np.isin(triangles, INNER_LIPS).all(axis=1)
        )
        self._gap = lip_gap(face)
        self._dark = self._cavity_colour()

    def _cavity_colour(self) -> Float64[np.ndarray, " 3"]:
        """Return a dark red made of the lips' own colour."""
        height, width = self._picture.shape[:2]
        lips = self._points[[MOUTH_RIGHT, MOUTH_LEFT, UPPER_LIP, LOWER_LIP]].astype(int)
        lips = lips.clip(0, [width - 1, height - 1])
        return 0.3 * self._picture[lips[:, 1], lips[:, 0]].mean(axis=0).astype(np.float64)

    def draw(
        self,
        sampling: Float32[np.ndarray, "rows columns 2"],
        face: Float64[np.ndarray, "468 3"],
        head: tuple[Float64[np.ndarray, "2 2"], Float64[np.ndarray, " 2"]],
        corner: Float64[np.ndarray, " 2"],
    ) -> Mouth | None:
        """Draw the moved face into a sampling map; return the mouth where it opens.

        Args:
            sampling: Changed in place.
            face: Where the points go, pixels of the padded photo.
            head: How the head moves (matrix, shift): the ring around the face follows it.
            corner: The map's left upper pixel in the padded photo.
        """
        matrix, shift = head
        moved = np.concatenate([face[:, :2], self._ring @ matrix.T + shift])
        gap = lip_gap(face)
        is_opening = gap > _OPEN_GAP and gap > 1.25 * self._gap + 0.01
        drawn = ~self._in_mouth if is_opening else np.ones(len(self._triangles), bool)
        rows, columns = sampling.shape[:2]
        box = Box.around(moved - corner, columns, rows)
        if box.is_empty:
            return None
        part = sampling[box.slices]
        shown = moved - corner - box.corner
        draw_triangles(part, shown, self._points, self._triangles[drawn], self._depth[drawn])
        if not is_opening:
            return None
        teeth = self._teeth(moved, matrix) if self._gap > _TEETH_GAP else None
        return Mouth(opening=moved[list(INNER_LIPS)], teeth=teeth)

    def _teeth(
        self, moved: Float64[np.ndarray, "points 2"], head: Float64[np.ndarray, "2 2"]
    ) -> Float64[np.ndarray, "22 2"]:
        """Return the photo's mouth hung up at the moved upper lip, turned with the head."""
        corners = [MOUTH_RIGHT, MOUTH_LEFT]
        width = float(np.linalg.norm(np.subtract(*moved[corners])))
        growth = width / max(float(np.linalg.norm(np.subtract(*self._points[corners]))), 1e-6)
        upper, lower = list(UPPER_INNER_LIP), list(LOWER_INNER_LIP)
        turn = head / np.sqrt(abs(np.linalg.det(head)))
        hang = (self._points[lower] - self._points[upper]) @ turn.T
        hang *= min(growth, _MAX_TEETH_GROWTH)
        return np.concatenate([moved[upper], moved[upper] + hang])

    def paint_mouth(
        self,
        frame: Float32[np.ndarray, "height width 3"],
        mouth: Mouth,
        corner: Float64[np.ndarray, " 2"],
    ) -> None:
        """Paint the inside of an open mouth.

        Args:
            frame: Changed in place, RGB in [0, 255].
            corner: The frame's left upper pixel in the padded photo.
        """
        height, width = frame.shape[:2]
        opening = mouth.opening - corner
        box = Box.around(opening, width, height, margin=4)
        if min(box.shape) < 3:
            return
        inside = _soft_polygon(opening - box.corner, box.shape)
        shade = np.linspace(1.15, 0.8, box.shape[0])[:, None, None]
        fill = np.broadcast_to(self._dark * shade, (*box.shape, 3)).astype(np.float32)
        if mouth.teeth is not None:
            fill = self._with_teeth(fill, mouth.teeth - corner - box.corner, box)
        part = frame[box.slices]
        part *= 1 - inside
        part += fill * inside

    def _with_teeth(
        self,
        fill: Float32[np.ndarray, "rows columns 3"],
        teeth: Float64[np.ndarray, "22 2"],
        box: Box,
    ) -> Float32[np.ndarray, "rows columns 3"]:
        steps = np.arange(10)
        upper = np.stack([steps, steps + 1, steps + 11], axis=1)
        lower = np.stack([steps + 1, steps + 12, steps + 11], axis=1)
        source = self._points[[*UPPER_INNER_LIP, *LOWER_INNER_LIP]]
        sampling = empty_map(box)
        triangles = np.concatenate([upper, lower])
        draw_triangles(sampling, teeth, source, triangles, np.zeros(len(triangles)))
        covered = (sampling[..., 0] > 0).astype(np.float32)
        soft = cv2.GaussianBlur(cv2.erode(covered, np.ones((2, 1), np.uint8)), (0, 0), 1.0)
        shown = sample(self._picture, sampling, border=cv2.BORDER_REPLICATE)
        share = soft[..., None] * covered[..., None]
        mixed: Float32[np.ndarray, "rows columns 3"] = fill * (1 - share) + shown * share
        return mixed


def _soft_polygon(
    points: Float[np.ndarray, "points 2"], shape: tuple[int, int]
) -> Float32[np.ndarray, "rows columns 1"]:
    """Return a polygon as opacity with soft rims."""
    drawn: UInt8[np.ndarray, "rows columns"] = np.zeros(shape, np.uint8)
    cv2.fillPoly(drawn, [(points * 16).round().astype(np.int32)], 255, cv2.LINE_AA, 4)
    soft: Float32[np.ndarray, "rows columns"] = cv2.GaussianBlur(
        drawn.astype(np.float32) / 255.0, (0, 0), 0.8
    )
    return soft[..., None]


def is_worth_moving(face: Float64[np.ndarray, "468 3"] | None, least_px: float) -> bool:
    """Tell whether a face is large enough for its expression to be seen."""
    return face is not None and face_size_px(face) >= least_px
