"""Moving average of the weights, each rank keeping a share of the parameters."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


class Ema:
    """Average `decay * average + (1 - decay) * weight` of the trainable parameters.

    Ranks hold equal weights after each step, so each needs to average only its share; the shares
    meet in the checkpoint folder, which any number of ranks can read back. In the first steps the
    decay is lower, (1 + step) / (10 + step), so that a fresh start is forgotten quickly.
    """

    def __init__(self, module: nn.Module, decay: float, *, rank: int, world_size: int) -> None:
        self.decay = decay
        self._rank = rank
        trainable = trainable_weights(module)
        mine = share_of_rank(trainable, rank=rank, world_size=world_size)
        self._weights = {name: trainable[name] for name in mine}
        self.averages = {
            name: weight.detach().float().clone() for name, weight in self._weights.items()
        }

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the averages towards the weights after optimizer step `step` (from 0)."""
        decay = min(self.decay, (1.0 + step) / (10.0 + step))
        for name, weight in self._weights.items():
            self.averages[name].lerp_(weight.detach().float(), 1.0 - decay)

    def save(self, folder: Path) -> list[str]:
        """Write this rank's share; return the names of averages that are not finite."""
        tensors = {name: tensor.contiguous().cpu() for name, tensor in self.averages.items()}
        save_file(tensors, folder / f"average-{self._rank:03d}.safetensors")
        return names_not_finite(tensors)

    @torch.no_grad()
    def load(self, folder: Path) -> None:
        """Read this rank's share from the files of any number of ranks."""
        merged = read_average(folder)
        for name, average in self.averages.items():
            average.copy_(merged[name])


def trainable_weights(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained, by name."""
    return {name: weight for name, weight in module.named_parameters() if weight.requires_grad}


def names_not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of tensors that hold a number which is not finite."""
    return [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]


def share_of_rank(weights: Mapping[str, Tensor], *, rank: int, world_size: int) -> list[str]:
    """Return the names that one rank looks after; together the ranks have all, evenly by size."""
    loads = [0] * world_size
    mine = []
    for name in sorted(weights, key=lambda name: (-weights[name].numel(), name)):
        lightest = loads.index(min(loads))
        loads[lightest] += weights[name].numel()
        if lightest == rank:
            mine.append(name)
    return mine


def read_average(folder: Path) -> dict[str, Tensor]:
    """Return the averaged weights by parameter name from a checkpoint folder."""
    merged: dict[str, Tensor] = {}
    for path in sorted(folder.glob("average-*.safetensors")):
        merged |= load_file(path)
    return merged


@contextmanager
def averaged_weights(module: nn.Module, folder: Path) -> Iterator[None]:
    """Yield with the averaged weights of a checkpoint in a module; then put its own back.

    A checkpoint without averages changes nothing.
    """
    averages = read_average(folder)
    own = {}
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if name in averages:
                own[name] = weight.detach().clone()
                weight.copy_(averages[name])
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)
        with torch.no_grad():
            for name, weight in module.named_parameters():
                if name in own:
                    weight.copy_(own[name])
