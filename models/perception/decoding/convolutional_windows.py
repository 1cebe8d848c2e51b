"""Plain stacks of convolutions as stages, so that parts of frames can be decoded."""

from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from animaray.models.perception.decoding.windowed_decoding import DecoderPass, Stage


@runtime_checkable
class StagedModule(Protocol):
    """A block that tells its own reach and lets a pass compute its norms."""

    receptive_radius: int

    def run(self, features: Tensor, run: DecoderPass, name: str) -> Tensor:
        """Compute the block."""
        ...


def stack_stages(
    layers: Iterable[nn.Module], *, after: Callable[[Tensor], Tensor] | None = None
) -> list[Stage]:
    """Return the layers of a decoder as stages.

    Args:
        layers: Convolutions, pixel shuffles, upsamplings, element-wise layers, staged blocks.
        after: Applied to the pixels.

    Raises:
        TypeError: A layer is not local, or its reach is not known.
    """
    stages = [_stage(f"layer.{index}", layer) for index, layer in enumerate(layers)]
    if after is not None:
        finish = after
        stages.append(Stage(run=lambda x, _: finish(x)))
    return stages


def _stage(name: str, layer: nn.Module) -> Stage:
    if isinstance(layer, StagedModule):
        block = layer
        return Stage(run=lambda x, run: block.run(x, run, name), radius=block.receptive_radius)
    if isinstance(layer, nn.Conv2d):
        return Stage(run=lambda x, _: layer(x), radius=int(layer.kernel_size[0]) // 2)
    if isinstance(layer, nn.PixelShuffle):
        return Stage(run=lambda x, _: layer(x), upscale=layer.upscale_factor)
    if isinstance(layer, nn.Upsample) and isinstance(layer.scale_factor, int | float):
        return Stage(run=lambda x, _: layer(x), upscale=int(layer.scale_factor))
    if isinstance(layer, nn.ReLU | nn.SiLU | nn.Tanh):
        return Stage(run=lambda x, _: layer(x))
    raise TypeError(f"{type(layer).__name__} cannot be decoded in windows: its reach is unknown.")
