"""How visible the borders between windows are: a measure per border for the caller."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

NEIGHBOUR_CHANGES = 3
"""Changes on each side of a border that say what is usual there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seam:
    """One border between neighbouring windows, as a denoising step left it."""

    frame: int
    """First frame that is more the later window's than the earlier one's."""
    num_shared: int
    """Frames that both windows estimated at this border."""
    disagreement: float
    """Mean absolute difference of the two windows' estimates of the shared frames, in latent
    units (deviation about 1); nan when they share none."""
    jump: float
    """Mean absolute change into `frame`, divided by the usual change around it; 1 means that
    nothing is to be seen, nan that there is nothing to compare with or that nothing moves."""


def disagreement(
    earlier: Float[Tensor, "batch shared channels h w"],
    later: Float[Tensor, "batch shared channels h w"],
) -> float:
    """Return the mean absolute difference of two estimates of the same frames; nan for none."""
    return (earlier - later).abs().mean().item()


def jumps(
    latents: Float[Tensor, "batch frames channels h w"], borders: Sequence[int]
) -> list[float]:
    """Return how much larger the change into each border frame is than those around it.

    Changes into other borders are not counted as usual.

    Args:
        latents: Of the whole clip, clean or estimated.
        borders: Frame numbers, from 1.
    """
    changes = latents.diff(dim=1).abs().mean(dim=(0, 2, 3, 4))
    found = []
    for border in borders:
        position = border - 1
        near = range(position - NEIGHBOUR_CHANGES, position + NEIGHBOUR_CHANGES + 1)
        usual = [
            changes[other].item()
            for other in near
            if 0 <= other < len(changes) and other + 1 not in borders
        ]
        mean = torch.tensor(usual).mean().item()
        found.append(changes[position].item() / mean if mean > 0 else float("nan"))
    return found
