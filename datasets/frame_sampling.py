"""The released code's choice of training frames: an even spread, and a reference beside it."""

import random

import numpy as np

from animaray.platform.errors import DatasetError


def published_window(
    clip_frames: int, num_frames: int, stride: int, rng: random.Random
) -> tuple[tuple[int, ...], int]:
    """Draw the frames of a window and the reference frame, in the released code's order.

    Frames lie `stride` apart, or closer (then unevenly) where the clip is shorter than the span.
    The reference is any frame that is not in the window, also between its frames.

    Args:
        clip_frames: Frames of the clip.
        num_frames: Frames of the window.
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
    span = min(clip_frames, (num_frames - 1) * stride + 1)
    start = rng.randint(0, clip_frames - span)
    places = np.linspace(start, start + span - 1, num_frames, dtype=int)
    frames = tuple(int(place) for place in places)
    others = sorted(set(range(clip_frames)) - set(frames))
    return frames, rng.choice(others)
