"""Choose which frames of a video are wanted while they stream by."""

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

_TIME_SLACK_S = 1e-6
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameSelection:
    """Which frames of a video are wanted, and how large."""

    start_s: float = 0.0
    """First time stamp wanted, seconds, in the file's own time; 0 or less takes the first frame."""
    end_s: float | None = None
    """Time stamp to stop before, seconds; None reads to the end."""
    fps: float | None = None
    """Take the frames nearest to a regular grid of this rate; a frame repeats where the file has
    fewer. None takes every frame."""
    short_side_px: int | None = None
    """Shrink so that the short side has this many pixels; never enlarges. None keeps the size."""
    max_frames: int | None = None
    """Return at most this many frames; None for all."""
    seeks: bool = True
    """Whether to jump to the start by the file's own time stamps; False for a file whose clock
    restarts or stands still, which only reading from the start can tell."""
    every: int = 1
    """Of the frames that the settings above choose, return each n-th, the first one first."""
    planes: bool = False
    """Return luma and chroma as they are stored, where they are what we would store: 8 bits, 4:2:0,
    BT.709 in limited range, upright, square pixels. Other frames come in RGB all the same."""

    def spans(self, pts_s: float) -> bool:
        """Return whether a time lies in the span that is wanted."""
        is_late_enough = self.start_s <= 0 or pts_s >= self.start_s - _TIME_SLACK_S
        return is_late_enough and (self.end_s is None or pts_s < self.end_s - _TIME_SLACK_S)


def choose_frames(
    frames: Iterator[tuple[float, Any]], selection: FrameSelection
) -> Iterator[tuple[float, Any]]:
    """Yield the chosen ones of frames with strictly increasing time stamps in seconds."""
    span = selection.start_s, selection.end_s
    if selection.fps is None:
        chosen = _in_span(frames, *span)
    else:
        chosen = _on_grid(frames, *span, selection.fps)
    wanted = selection.max_frames
    stop = None if wanted is None else wanted * selection.every
    return itertools.islice(chosen, 0, stop, selection.every)


def copies_of(frames: Iterator[_T], count: int) -> list[Iterator[_T]]:
    """Return iterators over the same items; itertools.tee would hold dozens of seen frames."""
    ahead: list[deque[_T]] = [deque() for _ in range(count)]

    def copy(own: deque[_T]) -> Iterator[_T]:
        while True:
            if not own:
                try:
                    item = next(frames)
                except StopIteration:
                    return
                for queue in ahead:
                    queue.append(item)
                del item
            yield own.popleft()

    return [copy(own) for own in ahead]


def _in_span(
    frames: Iterator[tuple[float, Any]], start_s: float, end_s: float | None
) -> Iterator[tuple[float, Any]]:
    for pts_s, frame in frames:
        if end_s is not None and pts_s >= end_s - _TIME_SLACK_S:
            return
        if start_s <= 0 or pts_s >= start_s - _TIME_SLACK_S:
            yield pts_s, frame


def _on_grid(
    frames: Iterator[tuple[float, Any]], start_s: float, end_s: float | None, fps: float
) -> Iterator[tuple[float, Any]]:
    """Yield, for each time of a regular grid, the nearest frame."""
    previous: tuple[float, Any] | None = None
    origin_s, step_s, taken = 0.0, 1.0 / fps, 0
    for pts_s, frame in frames:
        if previous is None:
            origin_s = pts_s if start_s <= 0 else max(start_s, pts_s)
        while (wanted_s := origin_s + taken / fps) <= pts_s + _TIME_SLACK_S:
            if end_s is not None and wanted_s >= end_s - _TIME_SLACK_S:
                return
            middle_s = pts_s if previous is None else (previous[0] + pts_s) / 2
            # Half-way between two frames the earlier is taken.
            is_earlier = previous is not None and wanted_s <= middle_s + _TIME_SLACK_S
            yield previous if is_earlier and previous is not None else (pts_s, frame)
            taken += 1
        if previous is not None:
            step_s = pts_s - previous[0]
        previous = (pts_s, frame)
    if previous is None:
        return
    # The last frame is shown for about as long as the one before it.
    while (wanted_s := origin_s + taken / fps) < previous[0] + step_s / 2:
        if end_s is not None and wanted_s >= end_s - _TIME_SLACK_S:
            return
        yield previous
        taken += 1
