"""Find shots: spans of a source without a cut, fade or dissolve; hash the source on the way.

Reads: path. Adds: shots, cut_times_s, num_frames, frame_rate_fps, is_variable_fps, fps, duration_s,
has_plain_clock, warning, num_damaged_frames, hashes, motion_signature. Drops: nothing.
`shots` holds start_s, end_s, cut_before, cut_after. Shots end where the pictures say so (hard cuts,
dissolves, fades: see shot_detection), and where the file itself does: frames that are missing,
another picture size, a clock that restarts. `fps` and `duration_s` are what the frames say, in
place of what the container does.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from animaray.pipelines.stages.duplicates import SignatureBuilder
from animaray.pipelines.stages.shot_detection import ShotsConfig, make_detector
from animaray.platform.errors import MediaError
from animaray.platform.media.video import (
    ChildFrameStream,
    DecodeLimits,
    FrameSelection,
    StreamEnd,
    VideoInfo,
    measure_rate,
    try_decoding,
)

READS = ("path",)
ADDS = (
    "shots", "cut_times_s", "num_frames", "frame_rate_fps", "is_variable_fps", "fps", "duration_s",
    "has_plain_clock", "warning", "num_damaged_frames", "hashes", "motion_signature",
)  # fmt: skip
DROPS: tuple[str, ...] = ()

_LEAST_GAP_S, _LEAST_GAP_STEPS = 0.5, 4.0
"""A moment is missing where a frame stays for so long: what follows is another shot."""


def find_shots(row: dict[str, Any], config: ShotsConfig, limits: DecodeLimits) -> dict[str, Any]:
    """Decode one source once, small, and cut it into shots."""
    try:
        seen = try_decoding(lambda: _watch(row["path"], config, limits))
    except MediaError as error:
        facts: dict[str, Any] = dict.fromkeys(ADDS)
        state = {"state": "unreadable", "reason": error.reason, "detail": error.message}
        return {**row, **facts, **state}
    times = np.array(seen.pts_s)
    rate = measure_rate(times, seen.info.fps, seen.info.tick_s)
    step_s = 1.0 / rate.fps
    borders = seen.detector.borders(times)
    breaks = set(np.searchsorted(times, seen.end.breaks_s).tolist()) - {0, len(times)}
    breaks |= set(find_gaps(times, step_s))
    cuts = sorted({*borders.cuts, *breaks})
    shots = split_shots(times, step_s, cuts, borders.mixes)
    return {
        **row,
        "shots": shots,
        "cut_times_s": sorted({shot["start_s"] for shot in shots if shot["cut_before"]}),
        "num_frames": len(times),
        "frame_rate_fps": rate.fps,
        "is_variable_fps": rate.is_variable,
        "fps": rate.fps,
        "duration_s": float(times[-1] - times[0]) + step_s,
        "has_plain_clock": seen.end.has_plain_clock,
        "warning": seen.end.warning,
        "num_damaged_frames": seen.end.num_corrupt,
        "hashes": seen.signature.hashes(),
        "motion_signature": seen.signature.motion(),
    }


def _watch(path: str, config: ShotsConfig, limits: DecodeLimits) -> "_Seen":
    """Decode one source from start to end."""
    selection = FrameSelection(short_side_px=config.short_side_px)
    with ChildFrameStream(path, limits, selection) as frames:
        seen = _Seen(config, frames.info)
        for pts_s, frame in frames:
            seen.pts_s.append(pts_s)
            seen.detector.add(frame)
            seen.signature.add(pts_s, frame)
        seen.end = frames.end
    return seen


def find_gaps(times_s: Float64[np.ndarray, " frames"], step_s: float) -> list[int]:
    """Return the first frames after moments that are missing."""
    longest_s = max(_LEAST_GAP_S, _LEAST_GAP_STEPS * step_s)
    return (np.flatnonzero(np.diff(times_s) > longest_s) + 1).tolist()


def split_shots(
    times_s: Float64[np.ndarray, " frames"],
    step_s: float,
    cuts: Sequence[int],
    mixes: Sequence[tuple[int, int]],
) -> list[dict[str, Any]]:
    """Return the spans between cuts; what lies inside a dissolve or fade belongs to none.

    Args:
        times_s: Time stamp of each frame, seconds.
        step_s: Time from one frame to the next, seconds.
        cuts: First frames of new shots.
        mixes: First and last frame of each dissolve or fade.
    """
    num_frames = len(times_s)
    outside = np.ones(num_frames, dtype=bool)
    for first, last in mixes:
        outside[first : last + 1] = False
    starts = {0, *(cut for cut in cuts if outside[cut] and outside[cut - 1])}
    borders = np.flatnonzero(np.diff(outside.astype(int))) + 1
    edges = sorted(starts | {int(border) for border in borders} | {num_frames})
    shots = []
    for first, end in itertools.pairwise(edges):
        if outside[first]:
            shots.append(
                {
                    "start_s": float(times_s[first]),
                    "end_s": _end_of(times_s, end, step_s),
                    "cut_before": first > 0,
                    "cut_after": end < num_frames,
                }
            )
    return shots


def _end_of(times_s: Float64[np.ndarray, " frames"], end: int, step_s: float) -> float:
    """Return when the frame before `end` is over: a gap after it is not its own."""
    last_s = float(times_s[end - 1])
    if end == len(times_s):
        return last_s + step_s
    next_s = float(times_s[end])
    return next_s if next_s - last_s <= _LEAST_GAP_STEPS * step_s else last_s + step_s


class _Seen:
    """What one look at a source from start to end gives."""

    def __init__(self, config: ShotsConfig, info: VideoInfo) -> None:
        self.detector = make_detector(config)
        self.signature = SignatureBuilder()
        self.pts_s: list[float] = []
        self.info = info
        self.end = StreamEnd()
