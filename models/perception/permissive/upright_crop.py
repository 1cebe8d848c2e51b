"""Square crops of a picture, turned upright for a network, and the way back into the picture.

Places in a picture are OpenCV's: integers are pixel centres. Places in a crop are the networks':
0 is the crop's left or upper edge and `input_px` its right or lower one.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Float32, Float64, UInt8

from animaray.models.perception.face_alignment import warp_crop


@dataclass(frozen=True, kw_only=True, slots=True)
class UprightCrop:
    """Where a square crop lies in a picture."""

    x: float
    """Middle of the crop, picture pixels."""
    y: float
    """Middle of the crop, picture pixels."""
    side_px: float
    """Side of the crop, picture pixels."""
    turn: float = 0.0
    """How far what is shown leans clockwise in the picture, radians."""
    input_px: int
    """Side of the crop as the network sees it."""

    @property
    def picture_px(self) -> float:
        """Picture pixels per pixel of the crop."""
        return self.side_px / self.input_px

    def matrix(self) -> Float64[np.ndarray, "2 3"]:
        """Return the map from picture pixels to places in the crop."""
        scale = 1.0 / self.picture_px
        cosine, sine = scale * math.cos(self.turn), scale * math.sin(self.turn)
        linear = np.array([[cosine, sine], [-sine, cosine]])
        offset = np.full(2, self.input_px / 2) - linear @ np.array([self.x, self.y])
        return np.concatenate([linear, offset[:, None]], axis=1)

    def cut(
        self, frame: UInt8[np.ndarray, "height width 3"], *, border: int = cv2.BORDER_CONSTANT
    ) -> UInt8[np.ndarray, "input input 3"]:
        """Return the crop; outside the picture it is black, or what OpenCV's `border` says."""
        return warp_crop(frame, self._pixel_matrix(), self.input_px, self.input_px, border=border)

    def to_picture(self, points: Float[np.ndarray, "points 2"]) -> Float32[np.ndarray, "points 2"]:
        """Bring places in the crop back into the picture."""
        back = cv2.invertAffineTransform(self.matrix())
        return (points @ back[:, :2].T + back[:, 2]).astype(np.float32)

    def to_picture_3d(
        self, points: Float[np.ndarray, "points 3"]
    ) -> Float32[np.ndarray, "points 3"]:
        """Bring places in the crop back into the picture; depth is scaled alike."""
        flat = self.to_picture(points[:, :2])
        depth = (points[:, 2:] * self.picture_px).astype(np.float32)
        return np.concatenate([flat, depth], axis=1)

    def paste(
        self, mask: Float32[np.ndarray, "input input"], height: int, width: int
    ) -> Float32[np.ndarray, "height width"]:
        """Return a mask of the crop as one of the whole picture, zero outside the crop."""
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(mask, self._pixel_matrix(), (width, height), flags=flags)

    def _pixel_matrix(self) -> Float64[np.ndarray, "2 3"]:
        """Return the map from picture pixels to pixels of the crop, half a pixel before places."""
        matrix = self.matrix()
        matrix[:, 2] -= 0.5
        return matrix


def crop_between(
    centre: Float[np.ndarray, " 2"],
    top: Float[np.ndarray, " 2"],
    *,
    side_per_radius: float,
    input_px: int,
) -> UprightCrop | None:
    """Return the crop in which one point is straight above another; None where they coincide.

    Args:
        centre: Middle of the crop, picture pixels.
        top: The point above it; its distance is the radius.
        side_per_radius: Side of the crop, in radii.
        input_px: Side of the crop as the network sees it.
    """
    right, down = (float(each) for each in top - centre)
    radius = math.hypot(right, down)
    if radius < 1.0 or not math.isfinite(radius):
        return None
    return UprightCrop(
        x=float(centre[0]),
        y=float(centre[1]),
        side_px=radius * side_per_radius,
        turn=math.atan2(right, -down),
        input_px=input_px,
    )
