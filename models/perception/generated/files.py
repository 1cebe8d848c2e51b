"""Find and load the weights files of the generated profile that ship with the package."""

from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from animaray.platform.errors import WeightsError
from animaray.platform.weights.store import resolve_weights

Network = TypeVar("Network", bound=nn.Module)


def resolve_generated(name: str) -> Path:
    """Return the weights file of one generated network.

    Args:
        name: codec, identity, image_encoder, face_detector or pose.

    Raises:
        WeightsError: The file is not there.
    """
    return resolve_weights(f"generated/{name}")


def load_network(network: Network, path: Path) -> Network:
    """Fill a network from a safetensors file (stored in half precision), frozen for evaluation.

    Args:
        network: A freshly built network.

    Returns:
        The same network in float32, without gradients for its parameters.

    Raises:
        WeightsError: The file is missing, damaged or of another network.
    """
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"Expected a safetensors file at {path}; it cannot be read: {error}.",
            fix="Reinstall animaray: the file is part of it.",
        ) from error
    floats = {
        key: value.float() if value.is_floating_point() else value for key, value in state.items()
    }
    try:
        network.load_state_dict(floats)
    except RuntimeError as error:
        raise WeightsError(
            f"{path} does not hold the weights of {type(network).__name__}: {error}",
            fix="Point to the file of this network.",
        ) from error
    network.requires_grad_(False).eval()  # noqa: FBT003 - PyTorch's signature
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
