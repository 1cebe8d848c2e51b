"""Overlapping windows over time, so that clips of any length fit a network of few frames.

How they lie, how their estimates are blended, and how visible the seams between them are.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from animaray.models.diffusion.sampler_config import WindowRule, check_windows

NEIGHBOUR_CHANGES = 3
"""Changes on each side of a border that say what is usual there."""


def window_indices(
    num_frames: int, window_frames: int, window_overlap: int, window_rule: WindowRule = "published"
) -> list[Int64[Tensor, " window"]]:
    """Return which frames each window holds; together they hold every frame.

    `published` windows hold frame 0 and then consecutive ones, so that every window sees the
    start of the clip; neighbours then share one frame less than `window_overlap`. `sliding` windows
    are consecutive frames, evenly spread, so that every pair of neighbours shares `window_overlap`
    frames or a few more. A clip shorter than a window is one window under both rules. An overlap
    that leaves frames uncovered is a ConfigError.

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
        return published_windows(num_frames, window_frames, window_overlap)
    last = num_frames - window_frames
    steps = math.ceil(last / (window_frames - window_overlap))
    starts = [round(last * step / steps) for step in range(steps + 1)]
    return [torch.arange(start, start + window_frames) for start in starts]


def published_windows(
    num_frames: int, window_frames: int, window_overlap: int
) -> list[Int64[Tensor, " window"]]:
    """Return the released code's windows, for at least `window_frames` frames."""
    first = torch.zeros(1, dtype=torch.int64)
    starts = list(range(0, num_frames - window_frames + 1, window_frames - window_overlap))
    if starts[-1] + window_frames < num_frames:
        starts.append(num_frames - window_frames)
    return [torch.cat([first, torch.arange(start + 1, start + window_frames)]) for start in starts]


def triangle_weights(num_frames: int) -> Float[Tensor, " window"]:
    """Return the published weights of a window's frames, largest in its middle."""
    position = (torch.arange(num_frames) + 0.5) * 2 / num_frames
    return torch.minimum(position, 2 - position)


def blend_weights(
    windows: list[Int64[Tensor, " _"]], window_rule: WindowRule = "published"
) -> list[Float[Tensor, " _"]]:
    """Return each window's weights; an estimate is the weighted mean over the windows.

    `published` weights are triangles over each window, whatever it shares. `sliding` weights are
    1 inside and fall as a squared cosine over the frames shared with a neighbour: the weights of
    two neighbours add up to 1, and the blend neither jumps nor touches frames that are not shared.

    Args:
        windows: Of `window_indices` with the same rule.
        window_rule: Rule of the windows.
    """
    if window_rule == "published":
        return [triangle_weights(len(window)) for window in windows]
    weights = [torch.ones(len(window)) for window in windows]
    for left in range(len(windows) - 1):
        shared = num_shared(windows[left], windows[left + 1], window_rule)
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


class Border(NamedTuple):
    """Where two neighbouring windows meet."""

    frame: int
    """First frame that is more the later window's than the earlier one's."""
    num_shared: int
    """Frames that both windows estimate here."""
    start: int
    """Place in the later window where they begin: published ones hold frame 0 before them."""

    def disagreement(
        self,
        earlier: Float[Tensor, "batch left channels h w"],
        later: Float[Tensor, "batch right channels h w"],
    ) -> float:
        """Return the mean absolute difference of two estimates of the shared frames; nan of none.

        Args:
            earlier: The whole earlier window.
            later: The whole later window.
        """
        first = earlier[:, earlier.shape[1] - self.num_shared :]
        second = later[:, self.start : self.start + self.num_shared]
        return (first - second).abs().mean().item()


def borders_of(
    windows: list[Int64[Tensor, " _"]],
    weights: list[Float[Tensor, " _"]],
    window_rule: WindowRule,
) -> list[Border]:
    """Return the borders between neighbouring windows."""
    borders, start = [], 1 if window_rule == "published" else 0
    for index in range(1, len(windows)):
        left = dict(zip(windows[index - 1].tolist(), weights[index - 1].tolist(), strict=True))
        right = list(zip(windows[index].tolist(), weights[index].tolist(), strict=True))[start:]
        frame = next(frame for frame, weight in right if weight > left.get(frame, 0.0))
        shared = num_shared(windows[index - 1], windows[index], window_rule)
        borders.append(Border(frame=frame, num_shared=shared, start=start))
    return borders


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
