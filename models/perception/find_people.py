"""Find people and faces in a picture of any size and shape.

A large picture is reduced first. A long one, such as a panorama, is looked at as a whole and window
by window: the networks shrink what they see to a square, in which the people of a panorama would be
a few pixels high.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from animaray.models.perception.protocols import (
    FaceDetection,
    FaceDetector,
    PersonPose,
    PoseEstimator,
)
from animaray.models.pose.layouts import VISIBLE_CONFIDENCE

MAX_PERCEPTION_PX = 1280
"""Larger pictures, or windows of a long one, are reduced before anything looks at them."""
DRIVING_SHORT_SIDE_PX = 512
"""A driving video is only looked at for its poses; larger pictures would not change them."""
LONG_ASPECT = 3.0
"""From this ratio of its sides on a picture is long."""
WINDOW_ASPECT = 2.0
"""Ratio of the sides of a window; neighbours share half of it."""
_SAME_SHARE = 0.4

T = TypeVar("T")


def reduced(
    picture_uint8: UInt8[np.ndarray, "height width 3"],
) -> UInt8[np.ndarray, "reduced_height reduced_width 3"]:
    """Return a picture that is small enough to be looked at."""
    height, width = picture_uint8.shape[:2]
    longest = max(height, width)
    if _is_long(height, width):
        longest = round(WINDOW_ASPECT * min(height, width))
    scale = MAX_PERCEPTION_PX / longest
    if scale >= 1:
        return np.ascontiguousarray(picture_uint8)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(picture_uint8, size, interpolation=cv2.INTER_AREA)


def find_people(
    picture_uint8: UInt8[np.ndarray, "height width 3"], estimator: PoseEstimator
) -> list[PersonPose]:
    """Return the people of a reduced picture, largest first; of several views the clearest."""

    def moved(person: PersonPose, left_top: Float[np.ndarray, " 2"]) -> PersonPose:
        return person.moved(lambda points: points + left_top)

    height, width = picture_uint8.shape[:2]
    people = estimator.estimate(picture_uint8)
    if not _is_long(height, width):
        return people
    people = [*people, *_look(picture_uint8, estimator.estimate, moved)]
    people.sort(key=lambda person: -float(person.keypoint_confidence.sum()))
    return sorted(_distinct(people, _person_box), key=lambda person: -_area(_person_box(person)))


def find_faces(
    picture_uint8: UInt8[np.ndarray, "height width 3"], detector: FaceDetector
) -> list[FaceDetection]:
    """Return the faces of a reduced picture, largest box first."""

    def moved(face: FaceDetection, left_top: Float[np.ndarray, " 2"]) -> FaceDetection:
        return replace(
            face,
            box=(face.box + np.tile(left_top, 2)).astype(np.float32),
            landmarks=(face.landmarks + left_top).astype(np.float32),
        )

    height, width = picture_uint8.shape[:2]
    faces = detector.detect(picture_uint8)
    if not _is_long(height, width):
        return faces
    faces = [*faces, *_look(picture_uint8, detector.detect, moved)]
    faces.sort(key=lambda face: -face.score)
    return sorted(_distinct(faces, lambda face: face.box), key=lambda face: -_area(face.box))


def _is_long(height: int, width: int) -> bool:
    return max(height, width) > LONG_ASPECT * min(height, width)


def _look(
    picture: UInt8[np.ndarray, "height width 3"],
    look: Callable[[UInt8[np.ndarray, "_ _ 3"]], list[T]],
    moved: Callable[[T, Float[np.ndarray, " 2"]], T],
) -> list[T]:
    """Return what is seen in the windows of a long picture, in pixels of the whole."""
    height, width = picture.shape[:2]
    short, longest = min(height, width), max(height, width)
    window = min(longest, round(WINDOW_ASPECT * short))
    starts = sorted({*range(0, longest - window, max(1, window // 2)), longest - window})
    found: list[T] = []
    for start in starts:
        part = np.s_[:, start : start + window] if width > height else np.s_[start : start + window]
        left_top = np.array([start, 0] if width > height else [0, start], np.float32)
        found += [moved(each, left_top) for each in look(np.ascontiguousarray(picture[part]))]
    return found


def _distinct(found: Sequence[T], box_of: Callable[[T], Float[np.ndarray, " 4"]]) -> list[T]:
    """Drop what an earlier one of the list shows already: neighbouring windows see it twice."""
    kept: list[T] = []
    for each in found:
        if all(_shared(box_of(each), box_of(other)) < _SAME_SHARE for other in kept):
            kept.append(each)
    return kept


def _person_box(person: PersonPose) -> Float[np.ndarray, " 4"]:
    seen = person.keypoint_confidence >= VISIBLE_CONFIDENCE
    points = person.keypoints[seen] if seen.any() else person.keypoints
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def _shared(box: Float[np.ndarray, " 4"], other: Float[np.ndarray, " 4"]) -> float:
    """Return what share of the smaller box lies in both."""
    sides = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])
    return float(np.prod(sides.clip(0))) / max(min(_area(box), _area(other)), 1e-6)


def _area(box: Float[np.ndarray, " 4"]) -> float:
    return float(np.prod(box[2:] - box[:2]))
