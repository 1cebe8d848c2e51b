"""Read third-party checkpoints without running what they contain, and fill networks strictly."""

import pickle
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from animaray.platform.errors import WeightsError
from animaray.platform.weights.whole_files import require_whole_file

Shapes = Mapping[str, tuple[int, ...]]
"""Shape of each tensor of a state dict."""

_NAMED_AT_MOST = 3


def load_state(path: Path, *, mapped: bool = False) -> dict[str, Any]:
    """Return the mapping that a `.pth` or `.ckpt` file holds, on the CPU, tensors only.

    Args:
        path: Written by torch.save.
        mapped: Map tensors from the disk where the file allows it, instead of reading them now.

    Raises:
        WeightsError: The file is missing, damaged, holds code or is no mapping.
    """
    require_whole_file(path)
    try:
        state = _load(path, mapped=mapped)
    except pickle.UnpicklingError as error:
        name = _code_in(str(error))
        raise WeightsError(
            f"{path} is refused: it holds code ({name}), not only tensors. Nothing of it was run."
            if name
            else f"{path} cannot be read as plain tensors: it is damaged, or holds other things. "
            "Nothing of it was run.",
            fix="Only a state dict of tensors is read; ask its publisher for safetensors.",
            reason="code" if name else "damaged",
        ) from error
    except (OSError, RuntimeError, EOFError) as error:
        raise WeightsError(
            f"Expected a PyTorch checkpoint of plain tensors at {path}; it cannot be read: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}",
            fix="`animaray weights verify` names what is damaged, `weights pull` gets it.",
            reason="damaged",
        ) from error
    if not isinstance(state, dict):
        raise WeightsError(
            f"Expected a mapping of tensors in {path}, got {type(state).__name__}.",
            reason="other",
        )
    return state


def open_state(path: Path) -> dict[str, Tensor]:
    """Return the flat state dict of a safetensors or PyTorch file, mapped from the disk.

    Raises:
        WeightsError: The file is missing, damaged, holds code or anything but tensors.
    """
    if path.suffix == ".safetensors":
        require_whole_file(path)
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise WeightsError(
                f"Expected a safetensors file at {path}; it cannot be read: {error}.",
                fix="`animaray weights verify` names what is damaged, `weights pull` gets it.",
                reason="damaged",
            ) from error
    state = load_state(path, mapped=True)
    other = [str(key) for key, value in state.items() if not isinstance(value, Tensor)]
    if other:
        raise WeightsError(
            f"{path} is not a flat state dict: {_some(other)} hold no tensor.",
            fix="Save the network's state_dict() alone.",
            reason="other",
        )
    return state


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor."""
    return {key: tuple(value.shape) for key, value in state.items()}


def require_shapes(
    found: Shapes, expected: Shapes, what: str, *, may_be_there: Collection[str] = ()
) -> None:
    """Refuse a state dict that is not exactly of one architecture.

    Args:
        what: File and network, for the message.
        may_be_there: Keys that are neither needed nor a mistake.

    Raises:
        WeightsError: A key is missing or unexpected, or has another shape; the message names them.
    """
    missing = [key for key in expected if key not in found]
    unexpected = [key for key in found if key not in expected and key not in may_be_there]
    shapes = [
        f"{key} ({_shape(found[key])} instead of {_shape(expected[key])})"
        for key in expected
        if key in found and tuple(found[key]) != tuple(expected[key])
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    problems = [f"{len(keys)} {kind}: {_some(keys)}" for kind, keys in kinds if keys]
    if problems:
        raise WeightsError(
            f"{what} do not fit: {'; '.join(problems)}.",
            fix="The file is of another architecture or version, or was cut down.",
            reason="other",
        )


def fill_network(
    network: nn.Module,
    state: Mapping[str, Tensor],
    what: str,
    *,
    may_be_there: Collection[str] = (),
) -> None:
    """Copy a state dict into a network, strictly; raises WeightsError as `require_shapes`."""
    require_shapes(
        shapes_of(state), shapes_of(network.state_dict()), what, may_be_there=may_be_there
    )
    network.load_state_dict({k: v for k, v in state.items() if k not in may_be_there})


def _load(path: Path, *, mapped: bool) -> object:
    if mapped:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            # Files of PyTorch before 1.6 are no zip archives and cannot be mapped.
            if "mmap can only be used" not in str(error):
                raise
    return torch.load(path, map_location="cpu", weights_only=True)


def _code_in(message: str) -> str | None:
    """Return which function or class the unpickler stopped at, where its message says."""
    found = re.search(r"GLOBAL ([\w.]+)", message)
    return found.group(1) if found else None


def _some(names: list[str]) -> str:
    rest = len(names) - _NAMED_AT_MOST
    return ", ".join(names[:_NAMED_AT_MOST]) + (f" and {rest} more" if rest > 0 else "")


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in shape) or "a number"
