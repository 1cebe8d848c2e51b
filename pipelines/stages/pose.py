"""Estimate the main person's keypoints and count people, at up to a given rate.

Reads: samples, clip_fps, clip_width, clip_height. Adds: pose_scores, pose_tracks. Drops: nothing.
What each score says: datasets/schemas.py.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8

from animaray.models.perception.protocols import (
    FollowingPoseEstimator,
    PersonPose,
    PoseEstimator,
    PoseFollower,
)
from animaray.models.pose.layouts import NUM_FURTHER_POINTS, NUM_KEYPOINTS
from animaray.platform.errors import ConfigError
from animaray.platform.media.video import FrameSelection

READS = ("samples", "clip_fps", "clip_width", "clip_height")
ADDS = ("pose_scores", "pose_tracks")
DROPS: tuple[str, ...] = ()

MIN_CONFIDENCE = 0.3
"""A keypoint counts as seen from this confidence on, as in the published pipeline."""
LITERAL_MIN_SEEN = 6
"""Reading L of "lack more than 70 %": 5 or fewer of 18 seen fails."""
STRICT_MIN_SEEN = 13
"""Reading S: fewer than 70 % of 18 seen fails."""

_NOBODY = PersonPose(
    keypoints=np.zeros((NUM_KEYPOINTS, 2), np.float32),
    keypoint_confidence=np.zeros(NUM_KEYPOINTS, np.float32),
)
_HIPS, _KNEES_AND_ANKLES = [8, 11], [9, 10, 12, 13]
_SECOND_PERSON_HEIGHT = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class PoseConfig:
    """How densely poses are estimated."""

    max_fps: float = 10.0
    """Poses per second; a faster clip is looked at on every k-th frame."""
    short_side_px: int = 640
    """Frames are shrunk to this for the estimator; keypoints are those of the clip's frames."""
    least_looks_fps: float = 2.0
    """Estimators that can follow people from pose to pose, which halves their time, look for them
    anew at least so often a second: nobody who enters is missed for longer. From `max_fps` on every
    frame is judged by itself."""

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ConfigError: A rate is not positive.
        """
        for name in ("max_fps", "least_looks_fps"):
            if not getattr(self, name) > 0.0:
                raise ConfigError(f"Expected pose.{name} > 0, got {getattr(self, name)}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class PoseTracks:
    """What was estimated on each looked-at frame; confidence 0 where nobody was found."""

    pts_s: Float64[np.ndarray, " poses"]
    frame_index: Int64[np.ndarray, " poses"]
    keypoints: Float32[np.ndarray, "poses 18 2"]
    keypoint_confidence: Float32[np.ndarray, "poses 18"]
    num_persons: Int64[np.ndarray, " poses"]
    """People of at least half the main person's height."""
    people: tuple[Float32[np.ndarray, "_ 18 3"], ...]
    """Everyone's keypoints and confidences, for masking the background; pixels."""
    further_points: Float32[np.ndarray, "poses 116 3"] | None = None
    """The main person's feet, face and hands, pixels and confidence; None where the estimator
    never looks for them."""


class PoseStage:
    """Estimate poses of clips; holds the network."""

    def __init__(self, estimator: PoseEstimator, config: PoseConfig | None = None) -> None:
        self._estimator = estimator
        self._config = config or PoseConfig()
        self.networks = estimator.name

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Estimate and score one clip."""
        tracks = self._track(row)
        return {**row, "pose_tracks": tracks, "pose_scores": score_poses(tracks)}

    def _track(self, row: dict[str, Any]) -> PoseTracks:
        fps, short = row["clip_fps"], min(row["clip_width"], row["clip_height"])
        scale = short / min(short, self._config.short_side_px)
        step = max(1, int(np.ceil(fps / self._config.max_fps - 1e-6)))
        selection = FrameSelection(every=step, short_side_px=self._config.short_side_px)
        times, mains, counts, everyone = [], [], [], []
        previous: PersonPose | None = None
        estimator = self._start_clip(fps / step)
        for pts_s, frame in row["samples"].stream(selection):
            people = _estimate(estimator, frame, scale)
            main = main_person(people, previous)
            previous = main or previous
            times.append(pts_s)
            mains.append(main)
            counts.append(0 if main is None else _count_comparable(people, main))
            everyone.append(_as_array(people))
        pts = np.array(times)
        poses = [_NOBODY if main is None else main for main in mains]
        return PoseTracks(
            pts_s=pts - pts[0],
            frame_index=np.arange(len(pts), dtype=np.int64) * step,
            keypoints=np.stack([pose.keypoints for pose in poses]),
            keypoint_confidence=np.stack([pose.keypoint_confidence for pose in poses]),
            num_persons=np.array(counts, dtype=np.int64),
            people=tuple(everyone),
            further_points=_further_points(mains),
        )

    def _start_clip(self, fps: float) -> PoseFollower:
        """Return what looks at the frames of one clip, in order."""
        if not isinstance(self._estimator, FollowingPoseEstimator):
            return self._estimator
        return self._estimator.start_clip(fps=fps, least_looks_fps=self._config.least_looks_fps)


def score_poses(tracks: PoseTracks) -> dict[str, Any]:
    """Score the poses of one clip."""
    seen = tracks.keypoint_confidence >= MIN_CONFIDENCE
    count = seen.sum(axis=1)
    found = count > 0
    return {
        "pose_coverage": float(count.mean()),
        "pose_missing_share_literal": float((count < LITERAL_MIN_SEEN).mean()),
        "pose_missing_share_strict": float((count < STRICT_MIN_SEEN).mean()),
        # Where nobody is seen nobody is one too many: other rules drop such a clip.
        "pose_single_share": float((tracks.num_persons[found] == 1).mean())
        if found.any()
        else None,
        "pose_found_share": float(found.mean()),
        "pose_framing": _framing(seen),
        "pose_jitter": _jitter(tracks, seen),
    }


def _estimate(
    estimator: PoseFollower, frame: UInt8[np.ndarray, "height width 3"], scale: float
) -> list[PersonPose]:
    """Return people with at least two seen keypoints, in pixels of the full frame."""
    return [
        # Pixel centres of the small frame in the full one.
        person.moved(lambda points: (points + 0.5) * scale - 0.5)
        for person in estimator.estimate(frame)
        if (person.keypoint_confidence >= MIN_CONFIDENCE).sum() >= 2
    ]


def main_person(people: list[PersonPose], previous: PersonPose | None) -> PersonPose | None:
    """Return the person to follow: the largest, or a nearly as large one where the last one was."""
    if not people:
        return None
    if previous is None:
        return max(people, key=person_height)
    tallest = max(person_height(person) for person in people)
    big = [person for person in people if person_height(person) >= 0.6 * tallest]
    before = person_box(previous)
    return min(big, key=lambda person: float(np.linalg.norm(person_box(person) - before)))


def person_box(person: PersonPose) -> Float32[np.ndarray, " 4"]:
    """Return the box around the seen keypoints: left, top, right, bottom, pixels."""
    points = person.keypoints[person.keypoint_confidence >= MIN_CONFIDENCE]
    return np.concatenate([points.min(axis=0), points.max(axis=0)]).astype(np.float32)


def person_height(person: PersonPose) -> float:
    """Return the longer side of the box around the seen keypoints, pixels."""
    left, top, right, bottom = person_box(person)
    return float(max(right - left, bottom - top))


def _further_points(
    mains: Sequence[PersonPose | None],
) -> Float32[np.ndarray, "poses 116 3"] | None:
    """Return the further points of each pose, 0 where nobody is; None where nobody has any."""
    found = [None if main is None else main.further_points for main in mains]
    if all(points is None for points in found):
        return None
    nothing = np.zeros((NUM_FURTHER_POINTS, 3), np.float32)
    return np.stack([nothing if points is None else points for points in found])


def _as_array(people: list[PersonPose]) -> Float32[np.ndarray, "persons 18 3"]:
    rows = [
        np.concatenate([person.keypoints, person.keypoint_confidence[:, None]], axis=1)
        for person in people
    ]
    return np.array(rows, dtype=np.float32).reshape(-1, NUM_KEYPOINTS, 3)


def _count_comparable(people: list[PersonPose], main: PersonPose) -> int:
    smallest = _SECOND_PERSON_HEIGHT * person_height(main)
    return sum(person is main or person_height(person) >= smallest for person in people)


def _framing(seen: np.ndarray) -> str:
    """Return what most frames show: full (legs), half (hips), close (above), none."""
    kinds = Counter(
        "none"
        if not row.any()
        else "full"
        if row[_KNEES_AND_ANKLES].sum() >= 3
        else "half"
        if row[_HIPS].any()
        else "close"
        for row in seen
    )
    return kinds.most_common(1)[0][0] if kinds else "none"


def _jitter(tracks: PoseTracks, seen: np.ndarray) -> float:
    """Return the share of motion that reverses within two poses; 0 for steady motion."""
    if len(seen) < 3:
        return 0.0
    steady = seen[:-2] & seen[1:-1] & seen[2:]
    steps = np.diff(tracks.keypoints.astype(np.float64), axis=0)
    path = np.linalg.norm(steps[:-1], axis=2) + np.linalg.norm(steps[1:], axis=2)
    advance = np.linalg.norm(steps[:-1] + steps[1:], axis=2)
    total = float(path[steady].sum())
    return float(1.0 - advance[steady].sum() / total) if total > 0 else 0.0
