"""Follow several people from frame to frame, each as one track."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import linear_sum_assignment

from animaray.models.perception.protocols import PersonPose
from animaray.models.pose.layouts import VISIBLE_CONFIDENCE
from animaray.models.subjects.choice import SeenPerson

MAX_JUMP_SHARE = 0.15
"""Mean way of the keypoints from one sighting to the next that is still the same person: in picture
diagonals, or a whole size of the person if that is more."""
MAX_PREDICTED_FRAMES = 3
"""A person out of sight is expected to have gone on for so many frames, then to stand still."""
_FAR = 1e6


@dataclass(kw_only=True, slots=True)
class PersonTrack:
    """One person's poses in the frames that show them."""

    frames: list[int] = field(default_factory=list)
    """Frame numbers, rising."""
    poses: list[PersonPose] = field(default_factory=list)
    """The pose in each of those frames."""

    def seen_person(self) -> SeenPerson:
        """Return where the person stands at first, and their typical size."""
        sizes = [max(np.ptp(_seen_points(pose), axis=0)) for pose in self.poses]
        return seen_person(self.poses[0], float(np.median(sizes)))


def seen_person(pose: PersonPose, size_px: float | None = None) -> SeenPerson:
    """Return the box around a pose's seen keypoints.

    Args:
        pose: One person.
        size_px: Typical size; None takes the longer side of this box.
    """
    points = _seen_points(pose)
    (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    size = max(right - left, bottom - top) if size_px is None else size_px
    return SeenPerson(left_px=left, top_px=top, right_px=right, bottom_px=bottom, size_px=size)


def extend_tracks(
    tracks: list[PersonTrack],
    frame_index: int,
    people: Sequence[PersonPose],
    size: tuple[int, int],
) -> None:
    """Add one frame's people to their tracks, in place; newcomers start tracks of their own.

    Pairs are chosen to have the smallest sum of distances. The only person of a video stays the
    same person however far they jump, as after a cut.

    Args:
        tracks: What is known so far.
        frame_index: Number of the frame.
        people: Who is seen in it.
        size: Width and height of the frame.
    """
    distances = np.array(
        [[_distance(track, frame_index, person) for person in people] for track in tracks]
    )
    unmatched = set(range(len(people)))
    for row, column in _pairs(distances.reshape(len(tracks), len(people))):
        is_only = len(tracks) == len(people) == 1
        limit = max(
            MAX_JUMP_SHARE * float(np.hypot(*size)), seen_person(tracks[row].poses[-1]).size_px
        )
        if distances[row, column] <= limit or is_only:
            tracks[row].frames.append(frame_index)
            tracks[row].poses.append(people[column])
            unmatched.remove(column)
    tracks.extend(
        PersonTrack(frames=[frame_index], poses=[people[column]]) for column in sorted(unmatched)
    )


def _pairs(distances: Float[np.ndarray, "tracks people"]) -> list[tuple[int, int]]:
    if distances.size == 0:
        return []
    rows, columns = linear_sum_assignment(np.minimum(distances, _FAR))
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def _distance(track: PersonTrack, frame_index: int, person: PersonPose) -> float:
    """Return the mean distance to where the track is expected, else infinite.

    Only keypoints count that are seen in both. People who cross keep their way.
    """
    last = track.poses[-1]
    seen = _seen(person) & _seen(last)
    if not seen.any():
        return float("inf")
    ahead = min(frame_index - track.frames[-1], MAX_PREDICTED_FRAMES)
    expected = last.keypoints + _velocity(track) * ahead
    return float(np.linalg.norm((person.keypoints - expected)[seen], axis=1).mean())


def _velocity(track: PersonTrack) -> Float[np.ndarray, " 2"]:
    """Return the mean way of the keypoints per frame between the last two sightings."""
    if len(track.poses) < 2:
        return np.zeros(2)
    before, last = track.poses[-2:]
    seen = _seen(before) & _seen(last)
    if not seen.any():
        return np.zeros(2)
    way = (last.keypoints - before.keypoints)[seen].mean(axis=0)
    return way / (track.frames[-1] - track.frames[-2])


def _seen(pose: PersonPose) -> Bool[np.ndarray, " 18"]:
    return pose.keypoint_confidence >= VISIBLE_CONFIDENCE


def _seen_points(pose: PersonPose) -> Float[np.ndarray, "points 2"]:
    seen = _seen(pose)
    return pose.keypoints[seen] if seen.any() else pose.keypoints
