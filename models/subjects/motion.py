"""The motion to follow: people's keypoints through a driving video, without gaps."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64, UInt8

from animaray.models.alignment.alignment import PosedPicture
from animaray.models.perception.protocols import PoseEstimator
from animaray.models.pose.further_points import fill_further
from animaray.models.subjects.choice import PersonChoice, choose_people, prominent_people
from animaray.models.subjects.tracks import PersonTrack, extend_tracks
from animaray.platform.errors import PoseError

MAX_MISSING_SHARE = 0.5
"""A person whom more frames than this do not show cannot be followed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Motion:
    """A driving clip as the animator follows it."""

    keypoints: Float[np.ndarray, "frames 18 2"]
    """Pixels of the driving video."""
    keypoint_confidence: Float[np.ndarray, "frames 18"]
    """In [0, 1]."""
    width_px: int
    """Width of the driving video."""
    height_px: int
    """Height of the driving video."""
    is_filled: Bool[np.ndarray, " frames"]
    """Frames where the person was not found; their pose is interpolated between the neighbours."""
    num_persons: int = 1
    """People who could have been followed instead, this one included."""
    further_points: Float[np.ndarray, "frames 116 3"] | None = None
    """Feet, face and hands: pixels and confidence; None where nobody looked for them."""
    is_alone: Bool[np.ndarray, " frames"] | None = None
    """Frames that show this person and nobody else; None where that is not known."""

    def first(self, num_frames: int | None) -> "Motion":
        """Return the motion's beginning; None returns all of it."""
        further, alone = self.further_points, self.is_alone
        return replace(
            self,
            keypoints=self.keypoints[:num_frames],
            keypoint_confidence=self.keypoint_confidence[:num_frames],
            is_filled=self.is_filled[:num_frames],
            further_points=None if further is None else further[:num_frames],
            is_alone=None if alone is None else alone[:num_frames],
        )

    def posed(self) -> PosedPicture:
        """Return the keypoints with their picture's size, for alignment."""
        return PosedPicture(
            keypoints=self.keypoints,
            keypoint_confidence=self.keypoint_confidence,
            width_px=self.width_px,
            height_px=self.height_px,
            further_points=self.further_points,
            is_alone=self.is_alone,
        )


def estimate_motion(
    frames_uint8: UInt8[np.ndarray, "frames height width 3"], estimator: PoseEstimator
) -> Motion:
    """Follow one person through a video: the largest.

    Args:
        frames_uint8: RGB frames.
        estimator: Finds people.

    Raises:
        PoseError: Too many frames show nobody.
    """
    return follow_people(frames_uint8, estimator).motions()[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class PeopleInVideo:
    """Everybody who is seen in a driving video for a good part of it."""

    tracks: tuple[PersonTrack, ...]
    """Each person's way; at least one."""
    num_frames: int
    """Length of the video."""
    width_px: int
    """Width of the frames looked at."""
    height_px: int
    """Height of the frames looked at."""
    num_seen: Int64[np.ndarray, " frames"]
    """People in each frame, passers-by included."""

    def choose(
        self, choices: Sequence[PersonChoice] = (), *, option: str | None = None
    ) -> list[int]:
        """Return the places in `tracks` of those chosen, without a choice the largest.

        Args:
            choices: Whom to take; a point lies in the first frame, in pixels of these frames.
            option: Name of the option to ask for where several are seen and none is chosen.
        """
        return choose_people(
            [track.seen_person() for track in self.tracks],
            choices,
            height_px=self.height_px,
            where="the driving video",
            option=option,
        )

    def motions(
        self, choices: Sequence[PersonChoice] = (), *, option: str | None = None
    ) -> list[Motion]:
        """Return the chosen people's motions; errors as in `choose` and `motion`."""
        return [self.motion(index) for index in self.choose(choices, option=option)]

    def motion(self, index: int) -> Motion:
        """Return one person's motion without gaps.

        Raises:
            PoseError: Too many frames do not show them.
        """
        track = self.tracks[index]
        known = np.array(track.frames, np.int64)
        missing = np.ones(self.num_frames, bool)
        missing[known] = False
        if missing.mean() > MAX_MISSING_SHARE:
            _refuse_nobody(int(missing.sum()), self.num_frames)
        frames = np.arange(self.num_frames)
        keypoints = np.stack([pose.keypoints for pose in track.poses])
        confidence = np.stack([pose.keypoint_confidence for pose in track.poses])
        further = [pose.further_points for pose in track.poses]
        looked = [points for points in further if points is not None]
        return Motion(
            keypoints=_between(frames, known, keypoints),
            keypoint_confidence=_between(frames, known, confidence),
            width_px=self.width_px,
            height_px=self.height_px,
            is_filled=missing,
            num_persons=len(prominent_people([other.seen_person() for other in self.tracks])),
            further_points=fill_further(frames, known, np.stack(looked))
            if len(looked) == len(further)
            else None,
            is_alone=~missing & (self.num_seen == 1),
        )


def follow_people(
    frames_uint8: Iterable[UInt8[np.ndarray, "height width 3"]],
    estimator: PoseEstimator,
    on_frame: Callable[[int], None] | None = None,
) -> PeopleInVideo:
    """Follow everybody through a video, which is read frame by frame.

    Args:
        frames_uint8: RGB frames.
        estimator: Finds people.
        on_frame: Told how many frames are done; raising ends it.

    Raises:
        PoseError: No frame shows anybody, or no person is seen in half of the frames.
    """
    tracks: list[PersonTrack] = []
    num_frames, height, width = 0, 0, 0
    for frame in frames_uint8:
        height, width = frame.shape[:2]
        extend_tracks(tracks, num_frames, estimator.estimate(frame), (width, height))
        num_frames += 1
        if on_frame is not None:
            on_frame(num_frames)
    return lasting_people(tracks, num_frames, (width, height))


def lasting_people(
    tracks: Sequence[PersonTrack], num_frames: int, size: tuple[int, int]
) -> PeopleInVideo:
    """Keep those who are seen in at least half of the frames.

    Args:
        tracks: Everybody's way.
        num_frames: Length of the clip.
        size: Width and height of its frames.

    Raises:
        PoseError: There is nobody.
    """
    least = (1 - MAX_MISSING_SHARE) * num_frames
    lasting = [track for track in tracks if len(track.frames) >= least]
    if not lasting:
        longest = max((len(track.frames) for track in tracks), default=0)
        _refuse_nobody(num_frames - longest, num_frames)
    num_seen = np.zeros(num_frames, np.int64)
    for track in tracks:
        num_seen[track.frames] += 1
    return PeopleInVideo(
        tracks=tuple(lasting),
        num_frames=num_frames,
        width_px=size[0],
        height_px=size[1],
        num_seen=num_seen,
    )


def _refuse_nobody(num_missing: int, num_frames: int) -> NoReturn:
    raise PoseError(
        f"{num_missing} of {num_frames} frames of the driving video show nobody who could be"
        " followed.",
        fix="Use a video in which one person is visible throughout.",
        reason="no_person",
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
