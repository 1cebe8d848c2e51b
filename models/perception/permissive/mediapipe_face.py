"""468 points of a face by MediaPipe's face mesh (Apache-2.0): lids, lips, outline, with depth."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, UInt8

from animaray.models.perception.permissive.picture_network import PictureNetwork, probability
from animaray.models.perception.permissive.upright_crop import UprightCrop
from animaray.platform.weights.store import resolve_weights

NUM_MESH_POINTS = 468
MIN_MESH_SCORE = 0.5
"""Below it a crop shows no face, or one seen from too far behind."""
# Corners of the eyes, of the mouth, and the tip of the nose; left and right as in the picture.
LEFT_EYE, RIGHT_EYE = (33, 133), (362, 263)
NOSE_TIP = 1
LEFT_MOUTH, RIGHT_MOUTH = 61, 291
_CROP_SIDE_PX = 192
_CROP_PER_FACE = 1.5
_POINTS, _SCORE = "conv2d_21", "conv2d_31"


@dataclass(frozen=True, kw_only=True, slots=True)
class FaceMesh:
    """One face."""

    points: Float32[np.ndarray, "468 3"]
    """x, y in pixels of the frame; z in the same unit, smaller is nearer."""
    score: float
    """Probability that the crop showed a face."""

    def box(self) -> Float32[np.ndarray, " 4"]:
        """Return left, top, right, bottom of the points, pixels: brows to chin."""
        flat = self.points[:, :2]
        return np.concatenate([flat.min(axis=0), flat.max(axis=0)])

    def landmarks(self) -> Float32[np.ndarray, "5 2"]:
        """Return eye on the picture's left, eye on its right, nose, mouth corner left, right."""
        flat = self.points[:, :2]
        eyes = [flat[list(eye)].mean(axis=0) for eye in (LEFT_EYE, RIGHT_EYE)]
        return np.stack([*eyes, flat[NOSE_TIP], flat[LEFT_MOUTH], flat[RIGHT_MOUTH]])


class FaceMeshNetwork:
    """Find the points of a face whose place is roughly known; nothing is remembered."""

    def __init__(self, path: Path, *, num_threads: int = 1, device: str = "cpu") -> None:
        """Open the network.

        Args:
            path: MediaPipe's face landmark network, .tflite or converted to .onnx.
            device: "cpu" or "cuda".
        """
        self._network = PictureNetwork(
            path,
            side_px=_CROP_SIDE_PX,
            outputs=(_POINTS, _SCORE),
            num_threads=num_threads,
            device=device,
        )

    @classmethod
    def load(cls, *, num_threads: int = 1, device: str = "cpu") -> "FaceMeshNetwork":
        """Open the registered weights."""
        path = resolve_weights("permissive/face_landmark")
        return cls(path, num_threads=num_threads, device=device)

    def find(
        self,
        frame: UInt8[np.ndarray, "height width 3"],
        box: Float[np.ndarray, " 4"],
        *,
        turn: float = 0.0,
    ) -> FaceMesh:
        """Return the face in a box, looked at twice; `score` says whether there is one.

        Args:
            box: Left, top, right, bottom of the face, pixels.
            turn: How far the head leans clockwise in the picture, radians, where it is known.
        """
        crop = UprightCrop(
            x=float(box[0] + box[2]) / 2,
            y=float(box[1] + box[3]) / 2,
            side_px=_CROP_PER_FACE * max(float((box[2:] - box[:2]).max()), 1.0),
            turn=turn,
            input_px=_CROP_SIDE_PX,
        )
        return self.follow(frame, self._look(frame, crop))

    def follow(self, frame: UInt8[np.ndarray, "height width 3"], face: FaceMesh) -> FaceMesh:
        """Return the face of the frame before again; `score` says whether it is still there.

        Args:
            face: The face in the frame before.
        """
        return self._look(frame, _crop_around(face.points[:, :2]))

    def _look(self, frame: UInt8[np.ndarray, "height width 3"], crop: UprightCrop) -> FaceMesh:
        answer = self._network.look(crop.cut(frame))
        places = answer[_POINTS].reshape(NUM_MESH_POINTS, 3)
        return FaceMesh(
            points=crop.to_picture_3d(places),
            score=float(probability(answer[_SCORE]).reshape(-1)[0]),
        )


def _crop_around(points: Float32[np.ndarray, "468 2"]) -> UprightCrop:
    """Return the crop in which the eyes are level and the face fills two thirds."""
    left, right = (points[list(eye)].mean(axis=0) for eye in (LEFT_EYE, RIGHT_EYE))
    turn = math.atan2(float(right[1] - left[1]), float(right[0] - left[0]))
    cosine, sine = math.cos(turn), math.sin(turn)
    upright = np.array([[cosine, sine], [-sine, cosine]])
    turned = points @ upright.T
    low, high = turned.min(axis=0), turned.max(axis=0)
    middle = upright.T @ ((low + high) / 2)
    return UprightCrop(
        x=float(middle[0]),
        y=float(middle[1]),
        side_px=_CROP_PER_FACE * max(float((high - low).max()), 1.0),
        turn=turn,
        input_px=_CROP_SIDE_PX,
    )
