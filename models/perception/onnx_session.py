"""Open ONNX files with a stated number of threads and a provider that is checked, not hoped for."""

from pathlib import Path
from typing import NoReturn

import onnxruntime

from animaray.platform.errors import ConfigError, MachineError, WeightsError

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def open_onnx_session(
    path: Path, *, num_threads: int = 1, device: str = "cpu"
) -> onnxruntime.InferenceSession:
    """Open an ONNX file for inference; CUDA that cannot be had raises MachineError.

    Args:
        num_threads: CPU threads of this session; 1 lets many workers share a machine well.
        device: "cpu" or "cuda"; onnxruntime falls back to the CPU without a word, we do not.

    Raises:
        ConfigError: The device is unknown or num_threads is below 1.
        WeightsError: The file is no ONNX graph that onnxruntime can run.
    """
    if device not in _PROVIDERS or num_threads < 1:
        raise ConfigError(
            f"Expected device cpu or cuda and at least 1 thread; got {device!r} and {num_threads}."
        )
    provider = provider_of(device, path.name)
    try:
        session = onnxruntime.InferenceSession(
            str(path), sess_options=session_options(num_threads), providers=[provider]
        )
    except Exception as error:
        raise WeightsError(
            f"Expected an ONNX graph at {path}; onnxruntime says: {error}.",
            fix="`animaray weights verify` names what is damaged, `animaray weights pull` gets it.",
            reason="damaged",
        ) from error
    got = session.get_providers()[0]
    if got != provider:
        _refuse_cuda(path.name, f"the {got} that onnxruntime fell back to")
    return session


def session_options(num_threads: int) -> onnxruntime.SessionOptions:
    """Return the options of a session that shares its machine with other workers.

    Args:
        num_threads: CPU threads of the session.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Idle spinning takes a core from the other workers of a machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def provider_of(device: str, what: str) -> str:
    """Return onnxruntime's name of a device; CUDA that cannot be had raises MachineError.

    Args:
        device: "cpu" or "cuda".
        what: What is going to be opened, for the message.

    Raises:
        ConfigError: The device is unknown.
    """
    provider = _PROVIDERS.get(device)
    if provider is None:
        raise ConfigError(f"Expected device cpu or cuda, got {device!r}.")
    if provider not in onnxruntime.get_available_providers():
        _refuse_cuda(what, "an onnxruntime that was built without CUDA")
    return provider


def _refuse_cuda(what: str, instead: str) -> NoReturn:
    """Raise that CUDA was asked for in vain.

    Raises:
        MachineError: Always.
    """
    raise MachineError(
        f"CUDA was asked for, but {what} would run on {instead}.",
        fix="Install animaray[gpu] with CUDA 13 and cuDNN 9, or choose device cpu.",
    )
