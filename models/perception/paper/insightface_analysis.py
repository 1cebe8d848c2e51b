"""Faces and identities by the package `insightface` itself, from files that are here already.

Profile paper finds faces by it where the package is installed, and by our own SCRFD elsewhere; the
two agree (tests/models/perception/test_insightface.py). Our own ArcFace stays the embedder, since
gradients pass through it; it is compared with the package's here. `FaceAnalysis` fetches a model
that it does not find: it is only ever given a folder that exists, so it never does.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from animaray.models.perception.onnx_session import provider_of, session_options
from animaray.models.perception.protocols import FaceDetection
from animaray.platform.errors import ConfigError, MachineError, WeightsError
from animaray.platform.weights.store import resolve_weights

SIDE_PX = 640
"""Of the square that pictures are fitted into, as in our own SCRFD."""


class InsightFaceAnalysis:
    """Find faces and embed them with `insightface.app.FaceAnalysis`.

    It is a face detector and an identity embedder; gradients do not pass through it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        num_threads: int = 1,
        device: str = "cpu",
        score_threshold: float = 0.5,
        embeds: bool = True,
    ) -> None:
        """Open the ONNX files of a folder.

        Args:
            folder: With a detector and a recogniser, as antelopev2.
            num_threads: CPU threads of each session.
            device: "cpu" or "cuda", which is checked.
            score_threshold: Least score of a face in [0, 1].
            embeds: Whether the recogniser is loaded, too; without it faces are only found.

        Raises:
            MachineError: The package is not installed, or CUDA cannot be had.
            WeightsError: The folder is missing or lacks a file.
        """
        provider = provider_of(device, f"the files of {folder.name}")
        if not folder.is_dir():
            raise WeightsError(
                f"Expected InsightFace's files in {folder}; there is no such folder.",
                fix="Get them: `animaray weights pull paper/antelopev2`.",
                reason="missing",
            )
        self.name = "paper/insightface"
        needed = ("detection", "recognition") if embeds else ("detection",)
        self._analysis = _face_analysis()(
            name=str(folder.resolve()),
            allowed_modules=list(needed),
            providers=[provider],
            sess_options=session_options(num_threads),
        )
        missing = set(needed) - set(self._analysis.models)
        if missing:
            raise WeightsError(
                f"{folder} holds no ONNX file for {' and '.join(sorted(missing))}.",
                fix="Get them again: `animaray weights pull paper/antelopev2`.",
                reason="other",
            )
        self._analysis.prepare(
            ctx_id=0 if device == "cuda" else -1,
            det_thresh=score_threshold,
            det_size=(SIDE_PX, SIDE_PX),
        )
        self._recogniser = self._analysis.models.get("recognition")
        self.embedding_dim = int(self._recogniser.output_shape[1]) if embeds else 0

    @classmethod
    def load(
        cls, *, num_threads: int = 1, device: str = "cpu", embeds: bool = True
    ) -> "InsightFaceAnalysis":
        """Open the registered weights (`paper/antelopev2`)."""
        folder = resolve_weights("paper/antelopev2")
        return cls(folder, num_threads=num_threads, device=device, embeds=embeds)

    def detect(self, frame: UInt8[np.ndarray, "height width 3"]) -> list[FaceDetection]:
        """Return the faces of one RGB picture, largest box first."""
        boxes, landmarks = self._analysis.det_model.detect(_bgr(frame), max_num=0, metric="default")
        if landmarks is None:
            return []
        faces = [
            FaceDetection(
                box=box[:4].astype(np.float32),
                score=float(min(box[4], 1.0)),
                landmarks=points.astype(np.float32),
            )
            for box, points in zip(boxes, landmarks, strict=True)
        ]
        return sorted(faces, key=_area, reverse=True)

    def embed(
        self,
        frame: UInt8[np.ndarray, "height width 3"],
        landmarks: Float32[np.ndarray, "5 2"],
    ) -> Float32[np.ndarray, " embedding"]:
        """Return the unit embedding of one face of an RGB picture.

        Raises:
            ConfigError: The recogniser was not loaded.
        """
        if self._recogniser is None:
            raise ConfigError("This InsightFaceAnalysis was opened with embeds=False.")
        from insightface.app.common import Face

        face = Face(kps=landmarks)
        raw = np.asarray(self._recogniser.get(_bgr(frame), face), dtype=np.float32)
        return raw / max(float(np.linalg.norm(raw)), 1e-12)


def is_installed() -> bool:
    """Tell whether the package is there, without importing it."""
    return find_spec("insightface") is not None


def _face_analysis() -> Any:  # noqa: ANN401 - a class of an untyped package
    """Return the package's class.

    Raises:
        MachineError: It is not installed.
    """
    try:
        from insightface.app import FaceAnalysis
    except ImportError as error:
        raise MachineError(
            f"The package insightface cannot be imported: {error}.",
            fix="pip install --no-deps 'insightface>=2.1' (with dependencies it brings a second"
            " OpenCV); our own SCRFD and ArcFace do the same without it.",
        ) from error
    return FaceAnalysis


def _bgr(frame: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "height width 3"]:
    return np.ascontiguousarray(frame[..., ::-1])


def _area(face: FaceDetection) -> float:
    left, top, right, bottom = face.box
    return float((right - left) * (bottom - top))
