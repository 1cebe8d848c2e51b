"""Faces with five landmarks by SCRFD-10G, the detector of InsightFace's antelopev2.

References:
    Guo, Deng, Lattas, Zafeiriou 2021, "Sample and Computation Redistribution for Efficient Face
    Detection", arXiv 2105.04714. Thresholds and input form are those of InsightFace.
"""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from animaray.models.perception.onnx_session import open_onnx_session
from animaray.models.perception.protocols import FaceDetection
from animaray.platform.errors import WeightsError
from animaray.platform.weights.store import resolve_weights

ONNX_FILE = "scrfd_10g_bnkps.onnx"
SIDE_PX = 640
"""Pictures are fitted into a square of this side, top left."""
STRIDES = (8, 16, 32)
ANCHORS = 2
"""Candidates per place."""
SCORE_THRESHOLD = 0.5
NMS_IOU = 0.4


class ScrfdFaceDetector:
    """Find faces in RGB pictures."""

    def __init__(
        self,
        path: Path,
        *,
        score_threshold: float = SCORE_THRESHOLD,
        num_threads: int = 1,
        device: str = "cpu",
    ) -> None:
        """Open the ONNX file.

        Args:
            path: With scores, boxes and landmarks for three strides.
            score_threshold: Least score in [0, 1].
            device: "cpu" or "cuda".

        Raises:
            WeightsError: The graph has another signature.
        """
        self.name = "paper/scrfd"
        self._threshold = score_threshold
        self._session = open_onnx_session(path, num_threads=num_threads, device=device)
        found = len(self._session.get_outputs())
        if found != 3 * len(STRIDES):
            raise WeightsError(
                f"Expected a face detector with {3 * len(STRIDES)} outputs at {path}, got {found}.",
                fix="Get it again: `animaray weights pull paper/antelopev2`.",
                reason="architecture",
            )

    @classmethod
    def load(
        cls, path: Path | None = None, *, num_threads: int = 1, device: str = "cpu"
    ) -> "ScrfdFaceDetector":
        """Open the registered weights (`paper/antelopev2`), or those of a file."""
        path = path or resolve_weights("paper/antelopev2") / ONNX_FILE
        return cls(path, num_threads=num_threads, device=device)

    def detect(self, frame: UInt8[np.ndarray, "height width 3"]) -> list[FaceDetection]:
        """Return the faces of one RGB picture, largest box first."""
        pixels, scale = _fitted(frame)
        name = self._session.get_inputs()[0].name
        outputs = self._session.run(None, {name: pixels})
        levels = len(STRIDES)
        boxes, points, scores = [], [], []
        for level, stride in enumerate(STRIDES):
            score = outputs[level].reshape(-1)
            keep = score >= self._threshold
            centres = _centres(stride)[keep]
            reach = outputs[levels + level].reshape(-1, 4)[keep] * stride
            offsets = outputs[2 * levels + level].reshape(-1, 5, 2)[keep] * stride
            boxes.append(np.concatenate([centres - reach[:, :2], centres + reach[:, 2:]], axis=1))
            points.append(centres[:, None] + offsets)
            scores.append(score[keep])
        box, point, score = (np.concatenate(each) for each in (boxes, points, scores))
        return [
            FaceDetection(
                box=(box[index] / scale).astype(np.float32),
                score=float(min(score[index], 1.0)),
                landmarks=(point[index] / scale).astype(np.float32),
            )
            for index in _largest_first(box, _suppressed(box, score))
        ]


def _fitted(
    frame: UInt8[np.ndarray, "height width 3"],
) -> tuple[Float32[np.ndarray, "1 3 side side"], float]:
    """Return the network's input and how much the picture was scaled for it."""
    height, width = frame.shape[:2]
    if height > width:
        size = max(1, int(SIDE_PX * width / height)), SIDE_PX
    else:
        size = SIDE_PX, max(1, int(SIDE_PX * height / width))
    square = np.zeros((SIDE_PX, SIDE_PX, 3), np.uint8)
    square[: size[1], : size[0]] = cv2.resize(frame, size)
    pixels = (square.astype(np.float32) - 127.5) / 128.0
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]), size[1] / height


def _centres(stride: int) -> Float32[np.ndarray, "candidates 2"]:
    """Return the places (x, y) of a stride's candidates, pixels of the square."""
    side = SIDE_PX // stride
    rows, columns = np.mgrid[:side, :side]
    places = np.stack([columns, rows], axis=-1).reshape(-1, 2) * stride
    return np.repeat(places, ANCHORS, axis=0).astype(np.float32)


def _suppressed(
    boxes: Float32[np.ndarray, "candidates 4"], scores: Float32[np.ndarray, " candidates"]
) -> list[int]:
    """Return the candidates that no better one covers; areas count the edge pixels."""
    areas = (boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1)
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(order):
        best, order = int(order[0]), order[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[order, :2])
        high = np.minimum(boxes[best, 2:], boxes[order, 2:])
        overlap = np.maximum(high - low + 1, 0).prod(axis=1)
        order = order[overlap / (areas[best] + areas[order] - overlap) <= NMS_IOU]
    return kept


def _largest_first(boxes: Float32[np.ndarray, "candidates 4"], kept: list[int]) -> list[int]:
    return sorted(kept, key=lambda index: -float((boxes[index, 2:] - boxes[index, :2]).prod()))
