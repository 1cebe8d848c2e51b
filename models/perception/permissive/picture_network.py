"""Networks that look at one small square picture, whichever engine runs the file: .tflite or .onnx.

MediaPipe's networks come as .tflite (LiteRT); older conversions of them to ONNX have the same
inputs and the same output names, so that whatever reads the outputs need not know.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from animaray.models.perception.onnx_session import open_onnx_session
from animaray.models.perception.permissive.litert_session import LiteRtSession
from animaray.platform.errors import WeightsError


class PictureNetwork:
    """A square RGB picture in, arrays by name out."""

    def __init__(
        self,
        path: Path,
        *,
        side_px: int,
        outputs: Sequence[str],
        is_signed: bool = False,
        num_threads: int = 1,
        device: str = "cpu",
    ) -> None:
        """Open a file by the engine that its suffix asks for.

        Args:
            path: A .tflite file, or an ONNX conversion of one.
            side_px: Of the picture that the network takes.
            outputs: Names of the outputs that will be read.
            is_signed: The network takes pixels from -1 to 1 instead of 0 to 1.
            num_threads: CPU threads of this network.
            device: "cpu" or "cuda".

        Raises:
            WeightsError: The file is missing, damaged or of another network.
        """
        self.side_px = side_px
        self._outputs = list(outputs)
        self._is_signed = is_signed
        self._litert: LiteRtSession | None = None
        if path.suffix == ".tflite":
            self._litert = LiteRtSession(path, num_threads=num_threads, device=device)
            shape: Sequence[object] = self._litert.input_shape
            names: Sequence[str] = self._litert.output_names
        else:
            self._onnx = open_onnx_session(path, num_threads=num_threads, device=device)
            entry = self._onnx.get_inputs()[0]
            self._onnx_input = entry.name
            shape, names = entry.shape, [each.name for each in self._onnx.get_outputs()]
        if list(shape) != [1, side_px, side_px, 3] or set(outputs) - set(names):
            raise WeightsError(
                f"Expected a network of 1x{side_px}x{side_px}x3 pictures with the outputs "
                f"{', '.join(outputs)} at {path}; it takes {'x'.join(map(str, shape))} and has "
                f"{', '.join(names)}.",
                fix="`animaray weights verify` names what is damaged, `animaray weights pull` gets "
                "it.",
                reason="other",
            )

    def look(
        self, picture: UInt8[np.ndarray, "side side 3"]
    ) -> Mapping[str, Float32[np.ndarray, "..."]]:
        """Return the outputs that were asked for at the start, by name.

        Args:
            picture: RGB, of the network's own size.
        """
        scale, offset = (1 / 127.5, -1.0) if self._is_signed else (1 / 255.0, 0.0)
        inputs = picture[None] * np.float32(scale) + np.float32(offset)
        if self._litert is not None:
            return self._litert.run(inputs)
        answers = self._onnx.run(self._outputs, {self._onnx_input: inputs})
        return dict(zip(self._outputs, answers, strict=True))


def probability(logits: Float32[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    """Return the sigmoid of a network's raw scores."""
    clipped = np.clip(logits, -60.0, 60.0)
    return (1.0 / (1.0 + np.exp(-clipped))).astype(np.float32)
