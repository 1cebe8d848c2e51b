"""Find shots: spans of a source without a cut, fade or dissolve; hash the source on the way.

Reads: path. Adds: shots, cut_times_s, num_frames, frame_rate_fps, is_variable_fps, fps, duration_s,
has_plain_clock, warning, num_damaged_frames, hashes, motion_signature. Drops: nothing.
`shots` holds start_s, end_s, cut_before, cut_after. Cuts are the union of PySceneDetect's adaptive
and content detectors (hard cuts), of linear mixes between two pictures (dissolves, fades), and of
what the file itself tells: frames that are missing, another picture size, a clock that restarts.
`fps` and `duration_s` are what the frames say, in place of what the container does.

References:
    PySceneDetect 0.7, detectors AdaptiveDetector and ContentDetector.
"""

import itertools
import subprocess
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any, NoReturn

import cv2
import numpy as np
from jaxtyping import Bool, Float64, UInt8

from animaray.pipelines.stages.duplicates import SignatureBuilder
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

_MIN_SHARE, _MIN_SHARE_OF_MOVING = 0.02, 0.15
_LEAST_SHOT_S = 0.35
_LEAST_GAP_S, _LEAST_GAP_STEPS = 0.5, 4.0
"""A moment is missing where a frame stays for so long: what follows is another shot."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShotsConfig:
    """When a change of the picture counts as a cut; calibrated in docs/lab_log.md."""

    short_side_px: int = 144
    """Size at which frames are compared."""
    adaptive_ratio: float = 3.5
    """A hard cut changes the picture this many times more than the frames around it."""
    min_adaptive_change: float = 10.0
    """And by at least this much (mean of hue, saturation and value change, of 255)."""
    content_change: float = 27.0
    """A change this large is a cut whatever happens around it."""
    min_mix_change: float = 12.0
    """A dissolve leads to a picture that differs by this much (mean of 255)."""
    max_mix_residual: float = 0.04
    """Share of the change that mixing the two end pictures may leave unexplained."""
    max_unlike_residual: float = 0.22
    """The same where the two ends are quite unlike: what moves during a dissolve stays unexplained,
    and a move that makes a picture so unlike itself leaves more."""
    unlike_correlation: tuple[float, float] = (0.3, 0.6)
    """Ends that correlate by the first of these are quite unlike, by the second not; in between
    the limit runs straight. Measured: docs/decisions/0012-calibration.md."""
    max_mix_correlation: float = 0.82
    """The two end pictures of a dissolve correlate less than this; a slow move more."""


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
    mixes = find_mixes(seen.detector.thumbnails(), times, config)
    breaks = set(np.searchsorted(times, seen.end.breaks_s).tolist()) - {0, len(times)}
    breaks |= set(find_gaps(times, step_s))
    cuts = sorted({*seen.detector.hard_cuts(), *breaks})
    shots = split_shots(times, step_s, cuts, mixes)
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
    cuts: list[int],
    mixes: list[tuple[int, int]],
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


def find_mixes(
    thumbnails: UInt8[np.ndarray, "frames height width 3"],
    times_s: Float64[np.ndarray, " frames"],
    config: ShotsConfig,
) -> list[tuple[int, int]]:
    """Find dissolves and fades: frames that are linear mixes of two different pictures.

    For a window from picture A to picture B each frame F between them is projected on B - A. In a
    dissolve the share of B grows steadily and almost nothing of F - A is left over; motion, pans
    and zooms leave much.

    Returns:
        First and last frame of each dissolve or fade, not overlapping.
    """
    num_frames = len(thumbnails)
    if num_frames < 8:
        return []
    pictures = thumbnails.reshape(num_frames, -1)  # hours of them: as floats only a window
    rate = (num_frames - 1) / max(float(times_s[-1] - times_s[0]), 1e-3)
    mixed = np.zeros(num_frames, dtype=bool)
    for half_s in (0.25, 0.5, 0.75):
        half = max(3, round(half_s * rate))
        for centre in range(half, num_frames - half, max(1, half // 4)):
            window = pictures[centre - half : centre + half + 1].astype(np.float32)
            is_between = _is_mixed(window, config)
            if is_between is not None:
                mixed[centre - half : centre + half + 1] |= is_between
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mixed.astype(int), [0]])))
    mixes: list[tuple[int, int]] = []
    for first, end in edges.reshape(-1, 2).tolist():
        # A moment between two mixes, as the black of a fade, is no shot.
        if mixes and first - mixes[-1][1] <= _LEAST_SHOT_S * rate:
            mixes[-1] = mixes[-1][0], end - 1
        else:
            mixes.append((first, end - 1))
    return mixes


def _is_mixed(window: np.ndarray, config: ShotsConfig) -> Bool[np.ndarray, " window"] | None:
    """Return which frames are neither the first picture nor the last, None when this is no mix."""
    first, last = window[0], window[-1]
    change = last - first
    if float(np.abs(change).mean()) < config.min_mix_change:
        return None
    moved = window - first
    energy = float((change * change).mean())
    shares = (moved * change).mean(axis=1) / energy
    steps = np.diff(shares)
    if steps.min() < -0.05 or steps.max() > 0.4:
        return None
    is_textured = first.std() > 2 and last.std() > 2
    correlation = float(np.corrcoef(first, last)[0, 1]) if is_textured else None
    if correlation is not None and correlation > config.max_mix_correlation:
        return None
    left_over = ((moved - shares[:, None] * change) ** 2).mean(axis=1) / energy
    if left_over.max() > _residual_limit(correlation, config):
        return None
    # What moves has a share in the change, too, without being a mix.
    margin = _MIN_SHARE if left_over.max() <= config.max_mix_residual else _MIN_SHARE_OF_MOVING
    is_between: Bool[np.ndarray, " window"] = (shares > margin) & (shares < 1 - margin)
    return is_between


def _residual_limit(correlation: float | None, config: ShotsConfig) -> float:
    """Return what a mix of two pictures may leave unexplained; None for a black or blank end."""
    if correlation is None:
        return config.max_mix_residual
    limits = config.max_unlike_residual, config.max_mix_residual
    return float(np.interp(correlation, config.unlike_correlation, limits))


@cache
def _scenedetect() -> ModuleType:
    """Import PySceneDetect, which would run ffmpeg to learn whether there is one.

    We need no ffmpeg, and a program must not run (and touch a terminal) because of an import.
    """

    def find_none(*_: object, **__: object) -> NoReturn:
        raise FileNotFoundError

    call = subprocess.call
    subprocess.call = find_none
    try:
        import scenedetect
    finally:
        subprocess.call = call
    return scenedetect


class _CutDetector:
    """Feed frames to PySceneDetect and keep thumbnails for the search for dissolves."""

    def __init__(self, config: ShotsConfig) -> None:
        scenedetect = _scenedetect()
        self._frame_time = scenedetect.FrameTimecode
        self._detectors = [
            scenedetect.AdaptiveDetector(
                adaptive_threshold=config.adaptive_ratio,
                min_content_val=config.min_adaptive_change,
                min_scene_len=3,
            ),
            scenedetect.ContentDetector(threshold=config.content_change, min_scene_len=3),
        ]
        self._cuts: set[int] = set()
        self._thumbnails: list[UInt8[np.ndarray, "height width 3"]] = []

    def add(self, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        # Detectors count frames; real times come from the stream, so the rate here is free.
        now = self._frame_time(len(self._thumbnails), 25.0)
        picture = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        for detector in self._detectors:
            self._cuts |= {cut.frame_num for cut in detector.process_frame(now, picture)}
        height, width = frame.shape[:2]
        # A forged picture may be a line: its long side is limited, too.
        scale = min(24 / min(height, width), 96 / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        self._thumbnails.append(cv2.resize(frame, size, interpolation=cv2.INTER_AREA))

    def hard_cuts(self) -> list[int]:
        return sorted(self._cuts - {0})

    def thumbnails(self) -> UInt8[np.ndarray, "frames height width 3"]:
        return np.stack(self._thumbnails)


class _Seen:
    """What one look at a source from start to end gives."""

    def __init__(self, config: ShotsConfig, info: VideoInfo) -> None:
        self.detector = _CutDetector(config)
        self.signature = SignatureBuilder()
        self.pts_s: list[float] = []
        self.info = info
        self.end = StreamEnd()
