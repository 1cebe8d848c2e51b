"""Overlapping windows over time, so that clips of any length fit a network of few frames."""

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from animaray.models.diffusion.sampler_config import WindowRule, check_windows


def tile_indices(
    num_frames: int, window_frames: int, window_overlap: int, window_rule: WindowRule = "published"
) -> list[Int64[Tensor, " tile"]]:
    """Return which frames each window holds; together they hold every frame.

    `published` windows hold frame 0 and then consecutive ones, so that every window sees the
    start of the clip; neighbours then share one frame less than `window_overlap`. `sliding` windows
    are consecutive frames, evenly spread, so that every pair of neighbours shares `window_overlap`
    frames or a few more. A clip shorter than a window is one window under both rules.

    An overlap that leaves frames uncovered is a ConfigError.

    Args:
        num_frames: Frames of the clip; up to `window_frames` of them give one window.
        window_frames: Frames of a window.
        window_overlap: Frames that neighbours share; 0 is allowed for `sliding`.
        window_rule: Rule of the windows.
    """
    check_windows(window_frames, window_overlap, window_rule)
    if num_frames <= window_frames:
        return [torch.arange(num_frames)]
    if window_rule == "published":
        return published_tiles(num_frames, window_frames, window_overlap)
    last = num_frames - window_frames
    steps = math.ceil(last / (window_frames - window_overlap))
    starts = [round(last * step / steps) for step in range(steps + 1)]
    return [torch.arange(start, start + window_frames) for start in starts]


def published_tiles(
    num_frames: int, window_frames: int, window_overlap: int
) -> list[Int64[Tensor, " tile"]]:
    """Return the released code's windows, for at least `window_frames` frames."""
    first = torch.zeros(1, dtype=torch.int64)
    starts = list(range(0, num_frames - window_frames + 1, window_frames - window_overlap))
    if starts[-1] + window_frames < num_frames:
        starts.append(num_frames - window_frames)
    return [torch.cat([first, torch.arange(start + 1, start + window_frames)]) for start in starts]


def tile_weights(num_frames: int) -> Float[Tensor, " tile"]:
    """Return the triangular weights of a window's frames, largest in its middle."""
    position = (torch.arange(num_frames) + 0.5) * 2 / num_frames
    return torch.minimum(position, 2 - position)


def blend_weights(
    tiles: list[Int64[Tensor, " _"]], window_rule: WindowRule = "published"
) -> list[Float[Tensor, " _"]]:
    """Return each window's weights; an estimate is the weighted mean over the windows.

    `published` weights are triangles over each window, whatever it shares. `sliding` weights are
    1 inside and fall as a squared cosine over the frames shared with a neighbour: the weights of
    two neighbours add up to 1, and the blend neither jumps nor touches frames that are not shared.

    Args:
        tiles: Windows of `tile_indices` with the same rule.
        window_rule: Rule of the windows.
    """
    if window_rule == "published":
        return [tile_weights(len(tile)) for tile in tiles]
    weights = [torch.ones(len(tile)) for tile in tiles]
    for left in range(len(tiles) - 1):
        shared = num_shared(tiles[left], tiles[left + 1], window_rule)
        if shared:
            rise = torch.sin((torch.arange(shared) + 0.5) * math.pi / (2 * shared)).square()
            weights[left + 1][:shared] *= rise
            weights[left][-shared:] *= rise.flip(0)
    return weights


def num_shared(
    left: Int64[Tensor, " _"], right: Int64[Tensor, " _"], window_rule: WindowRule
) -> int:
    """Return how many frames two neighbouring windows share at their border.

    The frame 0 that every published window begins with is not at the border.
    """
    first = int(right[1 if window_rule == "published" and len(right) > 1 else 0])
    return max(0, int(left[-1]) - first + 1)
