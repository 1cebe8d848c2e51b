"""Animate a whole body: background plate, then layers by depth, each warped and laid over."""

from collections.abc import Iterator

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

from animaray.models.parts.captions import without
from animaray.models.parts.face import FaceMesh, Mouth, is_worth_moving
from animaray.models.parts.landmarks import ARMS, PersonLandmarks, TargetPose
from animaray.models.parts.layers import Layer, make_layers
from animaray.models.parts.plate import BackgroundPlate, make_plate
from animaray.models.parts.raster import Box, draw_triangles, empty_map, sample
from animaray.models.parts.rig import Driven, Rig
from animaray.models.parts.skinning import PlacedLayer, Skeleton

PAD_SHARE = 0.3
"""The photo is continued by so much of its long side, for parts that come in from outside."""
MIN_FACE_PX = 48.0
"""Smaller faces move as a whole, without expression."""
_WRIST_BEHIND, _ELBOW_BEHIND = 0.35, 0.15
"""An arm is drawn behind the body from these depths on, in units."""


class BodyPuppet:
    """A photo whose person can take other poses; the camera stands still.

    Args:
        person: Landmarks in the same pixels.
        captions: Letters that lie over the person: they stay, above what moves.
        plate: The background, where several people leave it together; None makes it.
        moves_face: Whether the expression follows the driver.
    """

    mode = "body"

    def __init__(
        self,
        picture: UInt8[np.ndarray, "height width 3"],
        person: PersonLandmarks,
        alpha: Float32[np.ndarray, "height width"],
        *,
        captions: Bool[np.ndarray, "height width"] | None = None,
        plate: BackgroundPlate | None = None,
        moves_face: bool = True,
    ) -> None:
        self._height, self._width = alpha.shape
        self._pad = int(PAD_SHARE * max(alpha.shape)) // 8 * 8
        self._stays = None
        if captions is not None and captions.any():
            self._stays = captions, picture[captions]
            picture = without(picture, captions)
        self.plate: BackgroundPlate = plate or make_plate(picture, alpha)
        padded = _pad(picture, self._pad, cv2.BORDER_REFLECT_101).astype(np.float32)
        inside = person.within(self._width, self._height)
        moved = inside.mapped(1.0, np.full(2, float(self._pad)))
        self._rig = Rig.of(moved)
        self._layers = make_layers(padded, _pad(alpha, self._pad, cv2.BORDER_REPLICATE), self._rig)
        self._face = None
        if moves_face and moved.face is not None and is_worth_moving(moved.face, MIN_FACE_PX):
            self._face = FaceMesh(moved.face, padded)

    def render(self, target: TargetPose) -> UInt8[np.ndarray, "height width 3"]:
        """Return the photo with the person in a pose.

        Args:
            target: Pixels of the photo.
        """
        frame = self.plate.picture.copy()
        self.draw_onto(frame, target)
        made: UInt8[np.ndarray, "_ _ 3"] = np.clip(np.rint(frame), 0, 255).astype(np.uint8)
        if self._stays is not None:
            where, pixels = self._stays
            made[where] = pixels
        return made

    def draw_onto(
        self,
        frame: Float32[np.ndarray, "height width 3"],
        target: TargetPose,
        cover: Float32[np.ndarray, "height width"] | None = None,
    ) -> None:
        """Draw the person in a pose over a frame, in place.

        Args:
            frame: RGB in [0, 255].
            target: Pixels of the photo.
            cover: Opacity of all that was drawn so far, in [0, 1]; changed in place.
        """
        driven = Driven.of(target, self._rig, self._pad)
        skeleton = Skeleton(self._rig, driven)
        placed = [skeleton.place(layer) for layer in self._layers]
        for part in sorted(placed, key=lambda part: -self._order(part.layer, driven)):
            for triangles in _passes(part):
                self._draw(frame, part, triangles, skeleton, driven, cover)

    def _order(self, layer: Layer, driven: Driven) -> float:
        """Return how far behind a layer is drawn; the body is at 0."""
        if layer.name == "body":
            return 0.0
        arm, unit = ARMS[layer.name], self._rig.unit_px
        wrist, elbow = driven.z[[arm.wrist, arm.elbow]] - driven.torso_z
        if wrist > _WRIST_BEHIND * unit and elbow > _ELBOW_BEHIND * unit:
            return 1.0
        return -1.0 + 0.001 * float(min(wrist, elbow))

    def _draw(
        self,
        frame: Float32[np.ndarray, "height width 3"],
        part: PlacedLayer,
        triangles: Int64[np.ndarray, " _"],
        skeleton: Skeleton,
        driven: Driven,
        cover: Float32[np.ndarray, "height width"] | None,
    ) -> None:
        """Lay some triangles of a layer over the frame, in place."""
        layer, vertices = part.layer, part.vertices - self._pad
        if not len(triangles):
            return
        corners = layer.triangles[triangles]
        box = Box.around(vertices[np.unique(corners)], self._width, self._height)
        if box.is_empty:
            return
        sampling = empty_map(box)
        depth = part.depth[corners].mean(axis=1) + layer.depth_bias[triangles]
        draw_triangles(sampling, vertices - box.corner, layer.vertices, corners, depth)
        mouth = None
        if layer.name == "body" and triangles is layer.passes[-1]:
            mouth = self._draw_face(sampling, skeleton, driven, box.corner + self._pad)
        shown = sample(layer.texture, sampling)
        area = frame[box.slices]
        area *= 1.0 - shown[..., 3:] / 255.0
        area += shown[..., :3]
        if cover is not None:
            covered = cover[box.slices]
            covered += (1.0 - covered) * shown[..., 3] / 255.0
        if mouth is not None and self._face is not None:
            self._face.paint_mouth(frame, mouth, np.full(2, float(self._pad)))

    def _draw_face(
        self,
        sampling: Float32[np.ndarray, "rows columns 2"],
        skeleton: Skeleton,
        driven: Driven,
        corner: Float64[np.ndarray, " 2"],
    ) -> Mouth | None:
        if self._face is None or driven.face is None:
            return None
        return self._face.draw(sampling, driven.face, skeleton.head, corner)


def _passes(part: PlacedLayer) -> Iterator[Int64[np.ndarray, " _"]]:
    """Yield the passes of a layer in drawing order: of two legs the farther one first."""
    *before, last = part.layer.passes
    if part.layer.name == "body":

        def distance(triangles: Int64[np.ndarray, " _"]) -> float:
            return float(part.depth[part.layer.triangles[triangles]].mean())

        before.sort(key=lambda triangles: -distance(triangles) if len(triangles) else 0.0)
    yield from before
    yield last


def _pad(picture: np.ndarray, pad_px: int, border: int) -> np.ndarray:
    padded: np.ndarray = cv2.copyMakeBorder(picture, *(pad_px,) * 4, border)
    return padded
