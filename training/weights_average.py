"""Moving average of the weights, each rank keeping a share of the parameters."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


class WeightsAverage:
    """Average `decay * average + (1 - decay) * weight` of the trainable parameters.

    Ranks hold equal weights after each step, so each needs to average only its share; the shares
    meet in the checkpoint folder, which any number of ranks can read back. In the first steps the
    decay is lower, (1 + step) / (10 + step), so that a fresh start is forgotten quickly.
    """

    def __init__(self, module: nn.Module, decay: float, *, rank: int, world_size: int) -> None:
        self.decay = decay
        self._rank = rank
        self._world_size = world_size
        trainable = {
            name: weight for name, weight in module.named_parameters() if weight.requires_grad
        }
        self._weights = {name: trainable[name] for name in self._share(trainable)}
        self.averages = {
            name: weight.detach().float().clone() for name, weight in self._weights.items()
        }

    def _share(self, trainable: dict[str, nn.Parameter]) -> list[str]:
        by_size = sorted(trainable, key=lambda name: (-trainable[name].numel(), name))
        loads = [0] * self._world_size
        mine = []
        for name in by_size:
            lightest = loads.index(min(loads))
            loads[lightest] += trainable[name].numel()
            if lightest == self._rank:
                mine.append(name)
        return mine

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the averages towards the weights after optimizer step `step` (from 0)."""
        decay = min(self.decay, (1.0 + step) / (10.0 + step))
        for name, weight in self._weights.items():
            self.averages[name].lerp_(weight.detach().float(), 1.0 - decay)

    def save(self, folder: Path) -> None:
        """Write this rank's share."""
        tensors = {name: tensor.contiguous().cpu() for name, tensor in self.averages.items()}
        save_file(tensors, folder / f"average-{self._rank:03d}.safetensors")

    @torch.no_grad()
    def load(self, folder: Path) -> None:
        """Read this rank's share from the files of any number of ranks."""
        merged = read_average(folder)
        for name, average in self.averages.items():
            average.copy_(merged[name])


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
