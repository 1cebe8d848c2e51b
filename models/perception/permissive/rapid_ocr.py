"""Find and read writing with PP-OCRv6's small networks, by the package `rapidocr` (Apache-2.0).

The networks lie inside the package's wheel and are named to it by path: it fetches a network only
where none is named, so it never does. Detection alone marks whole pictures without any writing;
that the writing can be read is what tells.
"""

import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from animaray.models.perception.protocols import TextLine
from animaray.platform.errors import MachineError

PACKAGE = "rapidocr"
LICENCE = {
    "id": PACKAGE,
    "purpose": "burned-in text (PP-OCRv6, small)",
    "licence": "Apache-2.0",
    "commercial_use": True,
}
"""Of its code and of the networks in its wheel, for the dataset card."""
INSTALL = "pip install 'rapidocr>=3.10,<3.11'"
SIDE_PX = 480
"""Longest side at which a picture is searched."""
_DETECTOR = "PP-OCRv6_det_small.onnx"
_READER = "PP-OCRv6_rec_small.onnx"


class RapidOcrTextDetector:
    """Read the lines of writing of a picture; one CPU thread unless told otherwise."""

    def __init__(self, *, num_threads: int = 1) -> None:
        """Open the package's networks.

        Args:
            num_threads: CPU threads of each network.

        Raises:
            MachineError: The package is not installed, or is of a version without these networks.
        """
        folder = find_networks()
        from rapidocr import RapidOCR

        self.name = f"{PACKAGE}@{importlib.metadata.version(PACKAGE)}"
        self._reader = RapidOCR(
            params={
                "Global.log_level": "critical",
                "Global.use_cls": False,  # nobody writes captions upside down
                "Global.text_score": 0.0,
                "Det.model_path": str(folder / _DETECTOR),
                "Det.limit_side_len": SIDE_PX,
                "Det.limit_type": "max",
                "Rec.model_path": str(folder / _READER),
                # Each line at its own width, and short ones not as wide as a sentence: of what it
                # reads of a clip with text that saves two fifths.
                "Rec.rec_batch_num": 1,
                "Rec.rec_img_shape": [3, 48, 160],
                "EngineConfig.onnxruntime.intra_op_num_threads": num_threads,
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            }
        )

    def detect(self, frame: UInt8[np.ndarray, "height width 3"]) -> list[TextLine]:
        """Return the lines of one RGB picture, the doubtful ones, too, from top to bottom."""
        found: Any = self._reader(np.ascontiguousarray(frame[..., ::-1]))
        if found.boxes is None:
            return []
        return [
            TextLine(corners=_corners(box), words=words, score=float(score))
            for box, words, score in zip(found.boxes, found.txts, found.scores, strict=True)
        ]


def _corners(box: Any) -> Float32[np.ndarray, "4 2"]:  # noqa: ANN401 - the package has no types
    return np.asarray(box, dtype=np.float32).reshape(4, 2)


def find_networks() -> Path:
    """Return the folder of the package's networks.

    Raises:
        MachineError: There is none, or they are others.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise MachineError(
            f"Looking for burned-in text needs the package {PACKAGE}, which is not installed.",
            fix=f"{INSTALL}, or curate without: `--set text.look=never`.",
        )
    folder = Path(spec.origin).parent / "models"
    missing = [name for name in (_DETECTOR, _READER) if not (folder / name).is_file()]
    if missing:
        raise MachineError(
            f"Expected {missing[0]} in {folder}; this version of {PACKAGE} does not bring it.",
            fix=f"{INSTALL}, or curate without: `--set text.look=never`.",
        )
    return folder
