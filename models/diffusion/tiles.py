"""Overlapping windows over time, so that clips of any length fit a network of few frames."""

from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from animaray.platform.errors import ConfigError

Tiling = Literal["published", "sliding"]


def tile_indices(
    num_frames: int, tile_frames: int, tile_overlap: int, tiling: Tiling = "published"
) -> list[Int64[Tensor, " tile"]]:
    """Return which frames each window holds; together they hold every frame.

    `sliding` windows are consecutive frames. `published` windows hold frame 0 and then
    consecutive ones, so that every window sees the start of the clip; neighbours then share one
    frame less than `tile_overlap`.

    Args:
        num_frames: Frames of the clip; up to `tile_frames` of them give one window.
        tile_frames: Frames of a window.
        tile_overlap: Frames that neighbours share.
        tiling: Rule of the windows.

    Raises:
        ConfigError: The overlap leaves frames uncovered or the windows do not advance.
    """
    minimum = 1 if tiling == "published" else 0
    if not minimum <= tile_overlap < tile_frames:
        raise ConfigError(
            f"`tile_overlap` must be within [{minimum}, {tile_frames - 1}] for {tiling} windows, "
            f"got {tile_overlap}."
        )
    if num_frames <= tile_frames:
        return [torch.arange(num_frames)]
    if tiling == "published":
        return published_tiles(num_frames, tile_frames, tile_overlap)
    last = num_frames - tile_frames
    starts = [*range(0, last, tile_frames - tile_overlap), last]
    return [torch.arange(start, start + tile_frames) for start in starts]


def published_tiles(
    num_frames: int, tile_frames: int, tile_overlap: int
) -> list[Int64[Tensor, " tile"]]:
    """Return the released code's windows, for at least `tile_frames` frames."""
    first = torch.zeros(1, dtype=torch.int64)
    starts = list(range(0, num_frames - tile_frames + 1, tile_frames - tile_overlap))
    if starts[-1] + tile_frames < num_frames:
        starts.append(num_frames - tile_frames)
    return [torch.cat([first, torch.arange(start + 1, start + tile_frames)]) for start in starts]


def tile_weights(num_frames: int) -> Float[Tensor, " tile"]:
    """Return the triangular weights of a window's frames, largest in its middle."""
    position = (torch.arange(num_frames) + 0.5) * 2 / num_frames
    return torch.minimum(position, 2 - position)
