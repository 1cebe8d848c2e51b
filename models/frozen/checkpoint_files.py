"""Read third-party PyTorch checkpoints without running anything they contain."""

import pickle
from pathlib import Path
from typing import Any

import torch

from animaray.platform.errors import WeightsError


def load_state(path: Path) -> dict[str, Any]:
    """Return the mapping that a `.pth` or `.ckpt` file holds, on the CPU, tensors only.

    Raises:
        WeightsError: The file is missing, damaged, holds code or is no mapping.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise WeightsError(
            f"Expected a PyTorch checkpoint of plain tensors at {path}; it cannot be read: {error}",
            fix="Get the file again: `animaray weights verify` names the ones that are damaged.",
            reason="damaged",
        ) from error
    if not isinstance(state, dict):
        raise WeightsError(
            f"Expected a mapping of tensors in {path}, got {type(state).__name__}.",
            reason="other",
        )
    return state
