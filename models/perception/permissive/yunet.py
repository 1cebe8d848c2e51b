"""Face boxes and five landmarks by YuNet (Apache-2.0), run by OpenCV at the picture's own shape.

References:
    Wu, Peng, Yu 2023, "YuNet: A Tiny Millisecond-level Face Detector".
"""

import logging
import threading
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from animaray.models.perception.protocols import FaceDetection
from animaray.platform.errors import WeightsError
from animaray.platform.weights.store import resolve_weights

_NMS_IOU = 0.3
_MOST_CANDIDATES = 5000

_log = logging.getLogger("animaray.models")


class YuNetFaceDetector:
    """Find real faces of about 10 px and more; safe to share between threads."""

    def __init__(
        self,
        path: Path,
        *,
        score_threshold: float = 0.7,
        max_side_px: int = 640,
        device: str = "cpu",
    ) -> None:
        """Open the ONNX file.

        Args:
            score_threshold: Least score in [0, 1]; cats and dogs reach 0.65.
            max_side_px: Larger pictures are averaged down to this long side first.
            device: "cpu" or "cuda"; OpenCV of the package index has no CUDA, which is said.

        Raises:
            WeightsError: OpenCV cannot read the file.
        """
        self.name = "permissive/yunet"
        self.max_side_px = max_side_px
        self._lock = threading.Lock()
        engine = (cv2.dnn.DNN_BACKEND_OPENCV, cv2.dnn.DNN_TARGET_CPU)
        if device == "cuda" and cv2.cuda.getCudaEnabledDeviceCount() > 0:
            engine = (cv2.dnn.DNN_BACKEND_CUDA, cv2.dnn.DNN_TARGET_CUDA)
        elif device == "cuda":
            _log.warning("%s stays on the CPU: this OpenCV was built without CUDA.", self.name)
        try:
            self._detector = cv2.FaceDetectorYN.create(
                str(path), "", (320, 320), score_threshold, _NMS_IOU, _MOST_CANDIDATES, *engine
            )
        except cv2.error as error:
            raise WeightsError(
                f"Expected YuNet's ONNX file at {path}; OpenCV says: {error.err}.",
                fix="Get it again: `animaray weights pull permissive/face_detector`.",
                reason="damaged",
            ) from error

    @classmethod
    def load(cls, path: Path | None = None, *, device: str = "cpu") -> "YuNetFaceDetector":
        """Open the registered weights, or those of a file."""
        return cls(path or resolve_weights("permissive/face_detector"), device=device)

    def detect(self, frame: UInt8[np.ndarray, "height width 3"]) -> list[FaceDetection]:
        """Return the faces of one RGB picture, largest box first.

        Boxes may reach a little past the picture's edge where a face does.
        """
        height, width = frame.shape[:2]
        scale = min(1.0, self.max_side_px / max(height, width))
        picture = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        if scale < 1.0:
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        small_height, small_width = picture.shape[:2]
        with self._lock:
            self._detector.setInputSize((small_width, small_height))
            _, rows = self._detector.detect(picture)
        if rows is None:
            return []
        to_frame = np.array([width / small_width, height / small_height], dtype=np.float32)
        faces = [_face_from_row(row, to_frame) for row in rows]
        return sorted(faces, key=_box_area, reverse=True)


def _face_from_row(row: np.ndarray, to_frame: np.ndarray) -> FaceDetection:
    """Turn OpenCV's row (x, y, width, height, 5 points, score) into a detection in frame pixels."""
    corner, extent = row[0:2] * to_frame, row[2:4] * to_frame
    return FaceDetection(
        box=np.concatenate([corner, corner + extent]).astype(np.float32),
        score=float(min(max(row[14], 0.0), 1.0)),
        landmarks=(row[4:14].reshape(5, 2) * to_frame).astype(np.float32),
    )


def _box_area(face: FaceDetection) -> float:
    left, top, right, bottom = face.box
    return float((right - left) * (bottom - top))
