"""Smooth landmarks over time without delay: still points become steady, fast ones stay fast."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float64

from animaray.models.parts.landmarks import PersonLandmarks, face_size_px
from animaray.models.parts.options import Mode

MIN_FPS = 12.0
"""Below, neighbouring frames are too far apart to be averaged."""
_FRAMES_AT_25_FPS: dict[Mode, dict[str, float]] = {
    "body": {"body": 1.0, "face": 3.0},
    "head": {"body": 2.0, "face": 3.0},
}
"""Standard deviation of the window by mode: shoulders that only carry a head move slowly."""
_STILL = {"body": 0.02, "face": 0.03}
"""Up to this way from the mean, in units or face sizes, a point counts as still."""
_FADE = 0.06
_REACH = 8
"""Frames on each side that are looked at."""

People = Sequence[PersonLandmarks | None]


def smooth_people(people: People, fps: float, mode: Mode) -> list[PersonLandmarks | None]:
    """Return the landmarks of a clip, smoothed; frames without a person stay so.

    Args:
        people: One entry for each frame.
        fps: Frames per second.
        mode: What is moved by them.
    """
    if fps < MIN_FPS:
        return list(people)
    deviations = {part: fps / 25.0 * frames for part, frames in _FRAMES_AT_25_FPS[mode].items()}
    return [
        None if person is None else _smoothed(people, index, person, deviations)
        for index, person in enumerate(people)
    ]


def _smoothed(
    people: People, index: int, own: PersonLandmarks, deviations: Mapping[str, float]
) -> PersonLandmarks:
    around = range(max(0, index - _REACH), min(len(people), index + _REACH + 1))
    seen = [(frame - index, person) for frame in around if (person := people[frame]) is not None]
    bodies = [(step, person.body) for step, person in seen]
    body = _mean(bodies, own.body, own.unit_px, "body", deviations)
    if own.face is None:
        return replace(own, body=body)
    faces = [(step, person.face) for step, person in seen if person.face is not None]
    face = _mean(faces, own.face, face_size_px(own.face), "face", deviations)
    return replace(own, body=body, face=face)


def _mean(
    seen: Sequence[tuple[int, Float64[np.ndarray, "points 3"]]],
    own: Float64[np.ndarray, "points 3"],
    size_px: float,
    part: str,
    deviations: Mapping[str, float],
) -> Float64[np.ndarray, "points 3"]:
    """Return the Gaussian mean for still points, the point itself for fast ones."""
    steps = np.array([step for step, _ in seen])
    weights = np.exp(-(steps**2) / (2 * deviations[part] ** 2))
    mean = np.tensordot(weights / weights.sum(), np.stack([points for _, points in seen]), 1)
    way = np.linalg.norm((own - mean)[:, :2], axis=1) / size_px
    fast = np.clip((way - _STILL[part]) / _FADE, 0.0, 1.0)[:, None]
    smooth: Float64[np.ndarray, "points 3"] = mean * (1 - fast) + own * fast
    return smooth
