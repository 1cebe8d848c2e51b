"""Find generated faces with five landmarks: a centre heat map and what lies around each centre.

Trained by benchmarks.bundled_weights.people; the card is generated/face_detector.md.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from animaray.models.perception.generated.files import resolve_generated
from animaray.models.perception.generated.heat_maps import find_peaks, fit_to_input, to_picture
from animaray.models.perception.onnx_session import open_onnx_session
from animaray.models.perception.protocols import FaceDetection

_STRIDE_PX = 4
_UNIT_PX = 16.0


# The network separates faces best at 0.5; curation believes every detector from 0.6 on.
_CONFIDENCE_POWER = float(np.log(0.6) / np.log(0.5))


class GeneratedFaceDetector:
    """Detect faces of the generated world; scores of at least 0.6 are faces, as elsewhere."""

    def __init__(
        self,
        path: Path | None = None,
        *,
        long_side_px: int = 256,
        min_score: float = 0.3,
        max_overlap: float = 0.4,
        device: str = "cpu",
    ) -> None:
        """Open the network.

        Args:
            path: An ONNX file; None takes the shipped one.
            device: "cpu" or "cuda".
            long_side_px: Size at which the network looks.
            min_score: Faces below are not reported.
            max_overlap: Of faces that overlap more (intersection over union) the better is kept.

        Raises:
            WeightsError: The file is missing or damaged.
        """
        self.name = "generated/face_detector"
        self._session = open_onnx_session(path or resolve_generated("face_detector"), device=device)
        self._long_side_px = long_side_px
        self._min_score = min_score
        self._max_overlap = max_overlap

    def detect(self, frame: UInt8[np.ndarray, "height width 3"]) -> list[FaceDetection]:
        """Return the faces of one RGB picture, largest box first."""
        values, scale = fit_to_input(frame, self._long_side_px)
        heat, shape = self._session.run(None, {"frames": values})
        found: list[FaceDetection] = []
        for row, column in find_peaks(heat[0, 0], self._min_score, limit=32):
            cell = (np.array([column, row]) + 0.5) * _STRIDE_PX - 0.5
            numbers = shape[0, :, row, column] * _UNIT_PX
            box = np.concatenate([cell - numbers[:2], cell + numbers[2:4]]).reshape(2, 2)
            landmarks = cell + numbers[4:].reshape(5, 2)
            face = FaceDetection(
                box=to_picture(box, scale).reshape(4),
                score=float(heat[0, 0, row, column]) ** _CONFIDENCE_POWER,
                landmarks=to_picture(landmarks, scale),
            )
            if all(_overlap(face.box, other.box) <= self._max_overlap for other in found):
                found.append(face)
        return sorted(found, key=lambda face: -_area(face.box))


def _area(box: Float32[np.ndarray, " 4"]) -> float:
    return float(max(box[2] - box[0], 0) * max(box[3] - box[1], 0))


def _overlap(first: Float32[np.ndarray, " 4"], second: Float32[np.ndarray, " 4"]) -> float:
    shared = np.concatenate([np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])])
    inside = _area(shared)
    return inside / max(_area(first) + _area(second) - inside, 1e-6)
