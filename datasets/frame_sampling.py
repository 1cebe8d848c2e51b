"""Which frames of a clip make a training window, and which frame beside them is the reference."""

import random
from collections.abc import Callable

import numpy as np

from animaray.platform.errors import DatasetError


def published_window(
    clip_frames: int, num_frames: int, stride: int, rng: random.Random
) -> tuple[tuple[int, ...], int]:
    """Draw the frames of a window and the reference frame, in the released code's order.

    Frames lie `stride` apart, or closer (then unevenly) where the clip is shorter than the span.
    The reference is any frame that is not in the window, also between its frames.

    Args:
        stride: Wanted step between frames.
        rng: Python's generator; drawn from twice.

    Raises:
        DatasetError: The clip has no frame left for the reference; the released code divides by
            zero there.
    """
    if clip_frames <= num_frames:
        raise DatasetError(
            f"A window of {num_frames} frames and a reference outside it need a clip of at least "
            f"{num_frames + 1} frames, got {clip_frames}.",
            fix="Use shorter windows, or leave out such clips.",
            reason="too_short",
        )
    frames, others = even_window(clip_frames, num_frames, stride, lambda most: rng.randint(0, most))
    return frames, rng.choice(others)


def even_window(
    clip_frames: int, num_frames: int, stride: int, draw_start: Callable[[int], int]
) -> tuple[tuple[int, ...], list[int]]:
    """Return the frames of an even window, and all others.

    Args:
        num_frames: Frames of the window, at most as many.
        stride: Wanted step; less where the clip is shorter than the span.
        draw_start: Draws the first frame from 0 up to a number, inclusive.
    """
    span = min(clip_frames, (num_frames - 1) * stride + 1)
    start = draw_start(clip_frames - span)
    frames = tuple(np.linspace(start, start + span - 1, num_frames, dtype=int).tolist())
    return frames, sorted(set(range(clip_frames)) - set(frames))


def strided_window(
    clip_frames: int, num_frames: int, max_stride: int, rng: np.random.Generator
) -> tuple[tuple[int, ...], list[int]]:
    """Draw frames that lie one whole stride apart; return them and where the reference may lie.

    That is outside the span where the clip is long enough, else between its frames, else any of
    them.

    Args:
        clip_frames: Frames of the clip, at least `num_frames`.
        max_stride: Strides are drawn from 1 to this, as far as the clip allows.
        rng: Drawn from twice.
    """
    gaps = max(num_frames - 1, 1)
    stride = int(rng.integers(1, max(1, min(max_stride, (clip_frames - 1) // gaps)) + 1))
    span = stride * (num_frames - 1) + 1
    start = int(rng.integers(0, clip_frames - span + 1))
    frames = tuple(range(start, start + span, stride))
    outside = [*range(start), *range(start + span, clip_frames)]
    between = sorted(set(range(start, start + span)) - set(frames))
    return frames, outside or between or list(frames)
