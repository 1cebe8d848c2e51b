"""Open .tflite networks with LiteRT (package ai-edge-litert), on the CPU, with stated threads."""

import logging
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from animaray.platform.errors import ConfigError, MachineError, WeightsError
from animaray.platform.terminal import silent_stderr

_log = logging.getLogger("animaray.models")


class LiteRtSession:
    """One .tflite network of one input; safe to share between threads, which take turns."""

    def __init__(self, path: Path, *, num_threads: int = 1, device: str = "cpu") -> None:
        """Open a file.

        Args:
            num_threads: CPU threads of this session; 1 lets many workers share a machine well.
            device: "cpu" or "cuda"; LiteRT's wheel knows no CUDA, which is said in the log.

        Raises:
            ConfigError: The device is unknown or num_threads is below 1.
            MachineError: The package ai-edge-litert is not installed.
            WeightsError: The file is missing, or no network that LiteRT can run.
        """
        if device not in {"cpu", "cuda"} or num_threads < 1:
            raise ConfigError(
                f"Expected device cpu or cuda and at least 1 thread; got {device!r} and "
                f"{num_threads}."
            )
        if device == "cuda":
            _log.warning("%s stays on the CPU: LiteRT has no CUDA.", path.name)
        if not path.is_file():
            raise WeightsError(
                f"Expected a .tflite network at {path}; there is no such file.",
                fix="Get it: `animaray weights pull --profile permissive`.",
                reason="missing",
            )
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise MachineError(
                f"{path.name} is run by the package ai-edge-litert, which cannot be imported: "
                f"{error}.",
                fix="pip install ai-edge-litert",
            ) from error
        self._lock = threading.Lock()
        try:
            with silent_stderr():  # it tells every time that it runs on the CPU
                self._interpreter = Interpreter(str(path), num_threads=num_threads)
                self._interpreter.allocate_tensors()
            (entry,) = self._interpreter.get_input_details()
        except (RuntimeError, ValueError) as error:
            raise WeightsError(
                f"Expected a .tflite network of one input at {path}; LiteRT says: {error}.",
                fix="`animaray weights verify` names what is damaged, `animaray weights pull` gets "
                "it.",
                reason="damaged",
            ) from error
        self._input: int = entry["index"]
        self.input_shape: tuple[int, ...] = tuple(int(side) for side in entry["shape"])
        """As the file says it: batch, height, width, channels for pictures."""
        self._outputs: dict[str, int] = {
            each["name"]: each["index"] for each in self._interpreter.get_output_details()
        }

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of all outputs."""
        return tuple(self._outputs)

    def run(self, inputs: Float32[np.ndarray, "..."]) -> Mapping[str, Float32[np.ndarray, "..."]]:
        """Return every output by its name.

        Args:
            inputs: Of exactly `input_shape`.
        """
        with self._lock:
            self._interpreter.set_tensor(self._input, inputs)
            self._interpreter.invoke()
            return {name: self._interpreter.get_tensor(at) for name, at in self._outputs.items()}
