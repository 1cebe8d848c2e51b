"""Faces by MediaPipe's short-range detector (Apache-2.0), which looks at squares of 128 pixels.

References:
    Bazarevsky et al. 2019, "BlazeFace", arXiv 1907.05047.
"""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from animaray.models.perception.permissive.anchor_detections import (
    AnchorDecoder,
    AnchorLayout,
    Detection,
    letterbox,
)
from animaray.models.perception.permissive.picture_network import PictureNetwork
from animaray.models.perception.permissive.upright_crop import UprightCrop
from animaray.platform.weights.store import resolve_weights

FACE_ANCHORS = AnchorLayout(side_px=128, num_points=6, strides=((8, 2), (16, 6)))
_ROWS, _SCORES = "regressors", "classificators"


class BlazeFace:
    """Find faces that are large in what is looked at: a selfie, or the surroundings of a head.

    The six points of a detection are the eyes (left in the picture first), the tip of the nose,
    the mouth and both ears.
    """

    def __init__(self, path: Path, *, num_threads: int = 1, device: str = "cpu") -> None:
        """Open the network.

        Args:
            path: MediaPipe's short-range face detector, a .tflite file.
            device: "cpu" or "cuda".
        """
        self._decoder = AnchorDecoder(FACE_ANCHORS)
        self._network = PictureNetwork(
            path,
            side_px=FACE_ANCHORS.side_px,
            outputs=(_ROWS, _SCORES),
            is_signed=True,
            num_threads=num_threads,
            device=device,
        )

    @classmethod
    def load(cls, *, num_threads: int = 1, device: str = "cpu") -> "BlazeFace":
        """Open the registered weights."""
        path = resolve_weights("permissive/face_detection")
        return cls(path, num_threads=num_threads, device=device)

    def find(
        self, frame: UInt8[np.ndarray, "height width 3"], *, min_score: float = 0.5
    ) -> list[Detection]:
        """Return the large faces of a whole picture, best score first.

        Args:
            min_score: Least score in [0, 1].
        """
        square, corner, scale = letterbox(frame, FACE_ANCHORS.side_px)
        return [each.moved(-corner, 1.0 / scale) for each in self._detect(square, min_score)]

    def find_in(
        self,
        frame: UInt8[np.ndarray, "height width 3"],
        crop: UprightCrop,
        *,
        min_score: float = 0.5,
    ) -> list[Detection]:
        """Return the faces of a part of a picture, best score first.

        Args:
            crop: The part, 128 pixels wide for the network.
            min_score: Least score in [0, 1].
        """
        return [
            Detection(
                box=_upright_box(crop, each), score=each.score, points=crop.to_picture(each.points)
            )
            for each in self._detect(crop.cut(frame), min_score)
        ]

    def _detect(
        self, square: UInt8[np.ndarray, "side side 3"], min_score: float
    ) -> list[Detection]:
        answer = self._network.look(square)
        return self._decoder.decode(answer[_ROWS][0], answer[_SCORES][0, :, 0], min_score)


def _upright_box(crop: UprightCrop, face: Detection) -> np.ndarray:
    """Return a face's box in the picture, upright there and as large as in the crop."""
    middle = crop.to_picture((face.box[None, :2] + face.box[None, 2:]) / 2)[0]
    half = (face.box[2:] - face.box[:2]) / 2 * crop.picture_px
    return np.concatenate([middle - half, middle + half]).astype(np.float32)
