"""The motion to follow: one person's keypoints through a driving video, without gaps."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from animaray.models.frozen.protocols import PersonPose, PoseEstimator
from animaray.models.pose.alignment import PosedPicture
from animaray.models.pose.layouts import VISIBLE_CONFIDENCE
from animaray.platform.errors import PoseError

MAX_MISSING_SHARE = 0.5
"""A video where more frames than this show nobody is refused."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Motion:
    """A driving clip as the animator follows it."""

    keypoints: Float32[np.ndarray, "frames 18 2"]
    """Pixels of the driving video."""
    keypoint_confidence: Float32[np.ndarray, "frames 18"]
    """In [0, 1]."""
    width_px: int
    """Width of the driving video."""
    height_px: int
    """Height of the driving video."""
    is_filled: Bool[np.ndarray, " frames"]
    """Frames where nobody was found; their pose is interpolated between the neighbours."""

    def posed(self) -> PosedPicture:
        """Return the keypoints with their picture's size, for alignment."""
        return PosedPicture(
            keypoints=self.keypoints,
            keypoint_confidence=self.keypoint_confidence,
            width_px=self.width_px,
            height_px=self.height_px,
        )


def estimate_motion(
    frames_uint8: UInt8[np.ndarray, "frames height width 3"], estimator: PoseEstimator
) -> Motion:
    """Follow one person through a video: the largest at first, then the nearest to before.

    Args:
        frames_uint8: RGB frames.
        estimator: Finds people.

    Raises:
        PoseError: Too many frames show nobody.
    """
    height, width = frames_uint8.shape[1:3]
    people: list[PersonPose | None] = []
    last: PersonPose | None = None
    for frame in frames_uint8:
        found = _same_person(estimator.estimate(frame), last)
        people.append(found)
        last = found or last
    missing = np.array([person is None for person in people])
    if missing.mean() > MAX_MISSING_SHARE:
        raise PoseError(
            f"{int(missing.sum())} of {len(people)} frames of the driving video show nobody.",
            fix="Use a video in which one person is visible throughout.",
            reason="no_person",
        )
    known = np.flatnonzero(~missing)
    seen = [person for person in people if person is not None]
    frames = np.arange(len(people))
    return Motion(
        keypoints=_between(frames, known, np.stack([person.keypoints for person in seen])),
        keypoint_confidence=_between(
            frames, known, np.stack([person.keypoint_confidence for person in seen])
        ),
        width_px=width,
        height_px=height,
        is_filled=missing,
    )


def _between(
    frames: Int64[np.ndarray, " frames"],
    known: Int64[np.ndarray, " known"],
    values: Float32[np.ndarray, "known ..."],
) -> Float32[np.ndarray, "frames ..."]:
    """Interpolate values of known frames linearly; the ends are held."""
    flat = values.reshape(len(values), -1)
    columns = [np.interp(frames, known, column) for column in flat.T]
    return np.stack(columns, axis=1).reshape(len(frames), *values.shape[1:]).astype(np.float32)


def _same_person(people: list[PersonPose], last: PersonPose | None) -> PersonPose | None:
    """Return the person nearest to the last one seen, or the largest."""
    if not people or last is None:
        return people[0] if people else None
    return min(people, key=lambda person: _distance(person, last))


def _distance(person: PersonPose, last: PersonPose) -> float:
    """Return the mean distance of keypoints seen in both, infinite where there are none."""
    seen = (person.keypoint_confidence >= VISIBLE_CONFIDENCE) & (
        last.keypoint_confidence >= VISIBLE_CONFIDENCE
    )
    if not seen.any():
        return float("inf")
    return float(np.linalg.norm((person.keypoints - last.keypoints)[seen], axis=1).mean())
