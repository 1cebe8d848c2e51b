"""Decide which frames every rank sees in every step, from numbers alone.

The order of the data is a pure function of (seed, position), where position counts the items of
the whole run. Nothing has to be saved to resume it, and it does not depend on how many workers
share a step: item `position` is the same window on one worker or on sixteen.
"""

import random
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int64

from animaray.datasets.frame_sampling import published_window, strided_window
from animaray.platform.errors import ConfigError

_ORDER_STREAM, _WINDOW_STREAM, _NOISE_STREAM = 1, 2, 3


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchLayout:
    """How the items of one optimizer step are spread over workers and passes."""

    global_batch_size: int
    """Items per optimizer step, over all workers."""
    micro_batch_size: int
    """Items per worker and pass."""
    world_size: int
    """Number of workers."""

    def __post_init__(self) -> None:
        """Refuse a global batch that does not divide.

        Raises:
            ConfigError: It is no multiple of what all workers do in one pass.
        """
        per_pass = self.micro_batch_size * self.world_size
        if min(self.global_batch_size, per_pass) < 1 or self.global_batch_size % per_pass:
            raise ConfigError(
                f"global_batch_size {self.global_batch_size} must be a multiple of "
                f"micro_batch_size {self.micro_batch_size} x {self.world_size} workers.",
                fix=f"Use a multiple of {max(per_pass, 1)}, or other micro batches or workers.",
            )

    @property
    def num_micro_steps(self) -> int:
        """Passes per optimizer step and worker (gradient accumulation)."""
        return self.global_batch_size // (self.micro_batch_size * self.world_size)

    def positions(self, step: int, micro_step: int, rank: int) -> range:
        """Return the run-wide item numbers of one pass of one worker."""
        first = (
            step * self.global_batch_size
            + (micro_step * self.world_size + rank) * self.micro_batch_size
        )
        return range(first, first + self.micro_batch_size)


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowConfig:
    """How a training window is cut from a clip."""

    num_frames: int = 8
    """Frames of one window."""
    max_stride: int = 2
    """Largest step between frames of a window; drawn from 1 to this, as far as the clip allows."""
    mirror_probability: float = 0.0
    """Share of windows taken from the mirrored copy of a clip, where one was encoded."""
    sampling: Literal["strided", "published"] = "strided"
    """`strided` as `plan_window` says; `published` is the released code's rule: the step is
    `max_stride` (it used 4), closer in short clips, and the reference may lie between frames."""

    def __post_init__(self) -> None:
        """Refuse empty windows and impossible shares.

        Raises:
            ConfigError: A setting is out of range.
        """
        if self.num_frames < 1 or self.max_stride < 1:
            raise ConfigError("window.num_frames and window.max_stride must be at least 1.")
        if not 0.0 <= self.mirror_probability <= 1.0:
            raise ConfigError("window.mirror_probability must be in [0, 1].")

    @property
    def min_clip_frames(self) -> int:
        """Frames that a clip needs; the published rule wants one more for the reference."""
        return self.num_frames + (self.sampling == "published")


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """One item: frames of one clip and the frame that is shown as reference."""

    clip_index: int
    frame_indices: tuple[int, ...]
    reference_index: int
    is_mirrored: bool


def item_rng(seed: int, position: int) -> np.random.Generator:
    """Return the generator that draws the window of one item."""
    return np.random.default_rng([_WINDOW_STREAM, seed, position])


def noise_seed(seed: int, position: int) -> int:
    """Return the seed of the noise and noise levels of the pass that starts at an item."""
    return int(np.random.default_rng([_NOISE_STREAM, seed, position]).integers(2**62))


def clip_at(position: int, num_clips: int, seed: int) -> int:
    """Return which clip an item comes from: every epoch visits every clip once, shuffled."""
    epoch, place = divmod(position, num_clips)
    return int(_epoch_order(num_clips, seed, epoch)[place])


def plan_window(
    position: int, clip_lengths: Int64[np.ndarray, " clips"], config: WindowConfig, seed: int
) -> Window:
    """Draw one item: clip, stride, start and reference frame.

    Args:
        position: Run-wide number of the item.
        clip_lengths: Frames of each clip; each at least `config.min_clip_frames`.
    """
    clip_index = clip_at(position, len(clip_lengths), seed)
    length = int(clip_lengths[clip_index])
    rng = item_rng(seed, position)
    if config.sampling == "published":
        draws = random.Random(int(rng.integers(2**62)))  # noqa: S311 - the published rule's own
        frames, reference = published_window(length, config.num_frames, config.max_stride, draws)
    else:
        frames, others = strided_window(length, config.num_frames, config.max_stride, rng)
        reference = others[int(rng.integers(len(others)))]
    return Window(
        clip_index=clip_index,
        frame_indices=frames,
        reference_index=reference,
        is_mirrored=bool(rng.random() < config.mirror_probability),
    )


def _epoch_order(num_clips: int, seed: int, epoch: int) -> Int64[np.ndarray, " clips"]:
    return np.random.default_rng([_ORDER_STREAM, seed, epoch]).permutation(num_clips)
