"""Animate head and shoulders: the whole picture is warped smoothly, the face by its 468 points.

Nothing is cut out, so there are no rims; the background near the head is dragged along.
"""

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8
from scipy.ndimage import distance_transform_edt

from animaray.models.parts.face import FaceMesh
from animaray.models.parts.landmarks import (
    CHIN,
    FOREHEAD_TOP,
    SHOULDERS,
    PersonLandmarks,
    TargetPose,
    face_middle,
    face_size_px,
    smooth_step,
)
from animaray.models.parts.raster import sample
from animaray.models.parts.rig import Driven, Rig
from animaray.models.parts.skinning import head_motion
from animaray.platform.errors import FaceError

_PAD_SHARE = 0.3
_CELL_PX = 12
"""Of the grid on which the motion is given."""
_FLOW_STEP = 4
"""The motion is inverted at a quarter of the size."""
_HALO = 0.35
"""The background moves with the head up to this distance, in face sizes."""


class HeadPuppet:
    """A photo whose head moves and speaks.

    Args:
        person: Landmarks in the same pixels, with a face.
        moves_face: Whether the expression follows the driver.

    Raises:
        FaceError: The landmarks hold no face.
    """

    mode = "head"

    def __init__(
        self,
        picture: UInt8[np.ndarray, "height width 3"],
        person: PersonLandmarks,
        alpha: Float32[np.ndarray, "height width"],
        *,
        moves_face: bool = True,
    ) -> None:
        if person.face is None:
            raise FaceError("A head can be moved only where its face is found.", reason="no_face")
        self._height, self._width = alpha.shape
        self._pad = int(_PAD_SHARE * max(alpha.shape)) // 8 * 8
        self._picture: Float32[np.ndarray, "padded_height padded_width 3"] = _pad(
            picture, self._pad
        ).astype(np.float32)
        shift = np.full(2, float(self._pad))
        self._rig = Rig.of(person.within(self._width, self._height).mapped(1.0, shift))
        face = person.face + np.append(shift, 0.0)
        self._prepare_weights(_pad(alpha, self._pad), face)
        self._face = FaceMesh(face, self._picture) if moves_face else None

    def _prepare_weights(
        self,
        alpha: Float32[np.ndarray, "padded_height padded_width"],
        face: Float64[np.ndarray, "468 3"],
    ) -> None:
        """Tell for every grid point how far it follows the head, and how far the shoulders."""
        size, chin, centre = face_size_px(face), face[CHIN, :2], face_middle(face)
        up = face[FOREHEAD_TOP, :2] - chin
        up = up / np.linalg.norm(up)
        rows, columns = np.indices(alpha.shape)
        height = (columns - chin[0]) * up[0] + (rows - chin[1]) * up[1]
        beside = np.abs((rows - centre[1]) * up[0] - (columns - centre[0]) * up[1])
        person = alpha > 0.5
        head = person & (height > -0.05 * size) & (beside < 0.95 * size)
        from_head = distance_transform_edt(~head)
        from_person = distance_transform_edt(~person)
        neck = smooth_step(height, -0.45 * size, 0.1 * size)
        reach = np.where(person, 0.7 * size, _HALO * size)
        on_head = neck * smooth_step(1.0 - from_head / reach, 0.0, 1.0)
        on_body = smooth_step(1.0 - from_person / (0.5 * size), 0.0, 1.0)
        y = np.arange(0, alpha.shape[0] + _CELL_PX, _CELL_PX)
        x = np.arange(0, alpha.shape[1] + _CELL_PX, _CELL_PX)
        at = np.ix_(y.clip(0, alpha.shape[0] - 1), x.clip(0, alpha.shape[1] - 1))
        self._grid: Float64[np.ndarray, "grid_rows grid_columns 2"] = np.stack(
            np.meshgrid(x, y), axis=-1
        ).astype(np.float64)
        self._on_head = on_head[at][..., None]
        self._on_body = ((1.0 - on_head) * on_body)[at][..., None]

    def render(self, target: TargetPose) -> UInt8[np.ndarray, "height width 3"]:
        """Return the photo with head and shoulders in a pose.

        Args:
            target: Pixels of the photo.
        """
        driven = Driven.of(target, self._rig, self._pad)
        head = head_motion(self._rig, driven, limits=None)
        matrix, shift = head
        steps = self._on_head * (self._grid @ matrix.T + shift - self._grid)
        if self._rig.person.sees(*SHOULDERS):
            pair = list(SHOULDERS)
            steps = steps + self._on_body * (driven.points - self._rig.points)[pair].mean(axis=0)
        sampling = self._invert(steps.astype(np.float32))
        corner = np.full(2, float(self._pad))
        mouth = None
        if self._face is not None and driven.face is not None:
            mouth = self._face.draw(sampling, driven.face, head, corner)
        frame = sample(self._picture, sampling, border=cv2.BORDER_REPLICATE)
        if mouth is not None and self._face is not None:
            self._face.paint_mouth(frame, mouth, corner)
        return np.clip(np.rint(frame), 0, 255).astype(np.uint8)

    def _invert(
        self, steps: Float32[np.ndarray, "grid_rows grid_columns 2"]
    ) -> Float32[np.ndarray, "height width 2"]:
        """Return where each pixel of the frame comes from, by fixed-point iteration."""
        shape = -(-self._height // _FLOW_STEP), -(-self._width // _FLOW_STEP)
        rows, columns = np.indices(shape, dtype=np.float32)
        middle = (_FLOW_STEP - 1) / 2 + self._pad
        places = np.stack([columns, rows], axis=-1) * _FLOW_STEP + np.float32(middle)
        source = places.copy()
        for _ in range(5):
            at = source / np.float32(_CELL_PX)
            moved = cv2.remap(steps, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            source = places - moved
        size = shape[1] * _FLOW_STEP, shape[0] * _FLOW_STEP
        flow = cv2.resize(source - places, size, interpolation=cv2.INTER_CUBIC)
        rows, columns = np.indices((self._height, self._width), dtype=np.float32)
        own = np.stack([columns, rows], axis=-1) + np.float32(self._pad)
        sampling: Float32[np.ndarray, "height width 2"] = own + flow[: self._height, : self._width]
        return sampling


def _pad(picture: np.ndarray, pad_px: int) -> np.ndarray:
    padded: np.ndarray = cv2.copyMakeBorder(picture, *(pad_px,) * 4, cv2.BORDER_REPLICATE)
    return padded
