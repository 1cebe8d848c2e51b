"""Find generated people and their 18 body keypoints, several at once.

A heat map of person centres says who is there; offsets from each centre say roughly where that
person's keypoints are, also hidden ones and those outside the picture; the keypoint's own heat map
near that place says it precisely. Trained by benchmarks.bundled_weights.people; the card is
generated/pose.md.

References:
    Zhou et al. 2019, Objects as Points, arXiv:1904.07850.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, UInt8

from animaray.models.perception.generated.files import resolve_generated
from animaray.models.perception.generated.heat_maps import (
    find_peaks,
    fit_to_input,
    refine_peak,
    to_picture,
)
from animaray.models.perception.onnx_session import open_onnx_session
from animaray.models.perception.protocols import PersonPose

_HEAT_STRIDE_PX = 4
_PERSON_STRIDE_PX = 8
_UNIT_PX = 64.0
_SEARCH_SHARE = 0.12
"""Standard deviation of the search around a predicted keypoint, shares of the person's size."""
_LIMBS = ((2, 3), (3, 4), (5, 6), (6, 7), (8, 9), (9, 10), (11, 12), (12, 13))
"""Parent and child; limbs are searched from their parent, for they stray from where expected."""
_LIMB_REACH = (0.85, 0.85, 0.85, 0.85, 1.1, 1.1, 1.1, 1.1)
"""How far a child may be from its parent, torso lengths."""
_PRIOR_SHARE = 0.6
"""Part of a limb end's score that its predicted place decides; the rest is its heat alone."""
_MIN_HEAT = 0.08
_MIN_VISIBLE = 3
_SAME_PERSON_SHARE = 0.12


class GeneratedPoseEstimator:
    """Estimate poses of the generated world; confidences above 0.3 are visible keypoints."""

    def __init__(
        self,
        path: Path | None = None,
        *,
        long_side_px: int = 192,
        min_score: float = 0.3,
        device: str = "cpu",
    ) -> None:
        """Open the network.

        Args:
            path: An ONNX file; None takes the shipped one.
            device: "cpu" or "cuda".
            long_side_px: Size at which the network looks.
            min_score: People whose centre scores below are not reported.

        Raises:
            WeightsError: The file is missing or damaged.
        """
        self.name = "generated/pose"
        self._session = open_onnx_session(path or resolve_generated("pose"), device=device)
        self._long_side_px = long_side_px
        self._min_score = min_score

    def estimate(self, frame: UInt8[np.ndarray, "height width 3"]) -> list[PersonPose]:
        """Return the people of one RGB picture, largest first; empty when there is nobody."""
        values, scale = fit_to_input(frame, self._long_side_px)
        heat, offsets, visible = (part[0] for part in self._session.run(None, {"frames": values}))
        people: list[tuple[float, PersonPose]] = []
        for row, column in find_peaks(heat[0], self._min_score):
            x, y = refine_peak(heat[0], int(row), int(column))
            centre = (np.array([x, y]) + 0.5) * _HEAT_STRIDE_PX - 0.5
            rough, chance = _predicted(offsets, visible, centre)
            size = max(float(np.ptp(rough, axis=0).max()), 8.0)
            points, confidence = _refined(heat[1:], rough, chance, size)
            if (confidence > 0.3).sum() < _MIN_VISIBLE:
                continue
            pose = PersonPose(keypoints=to_picture(points, scale), keypoint_confidence=confidence)
            if all(_distance(pose, other) > _SAME_PERSON_SHARE for _, other in people):
                people.append((size, pose))
        return [pose for _, pose in sorted(people, key=lambda item: -item[0])]


def _predicted(
    offsets: Float[np.ndarray, "36 rows columns"],
    visible: Float[np.ndarray, "18 rows columns"],
    centre: Float[np.ndarray, " 2"],
) -> tuple[Float[np.ndarray, "18 2"], Float[np.ndarray, " 18"]]:
    """Return the keypoints predicted from the cell of a centre, and how likely each is seen."""
    rows, columns = offsets.shape[1:]
    column = int(np.clip(round((centre[0] + 0.5) / _PERSON_STRIDE_PX - 0.5), 0, columns - 1))
    row = int(np.clip(round((centre[1] + 0.5) / _PERSON_STRIDE_PX - 0.5), 0, rows - 1))
    cell = (np.array([column, row]) + 0.5) * _PERSON_STRIDE_PX - 0.5
    return cell + offsets[:, row, column].reshape(18, 2) * _UNIT_PX, visible[:, row, column]


def _refined(
    heat: Float[np.ndarray, "18 rows columns"],
    rough: Float[np.ndarray, "18 2"],
    chance: Float[np.ndarray, " 18"],
    size: float,
) -> tuple[Float[np.ndarray, "18 2"], Float32[np.ndarray, " 18"]]:
    """Return the keypoints moved to their heat, and confidences."""
    points, peaks = rough.copy(), np.zeros(18)
    places = _cell_places(heat.shape[1:])
    narrow = max(_SEARCH_SHARE * size, 6.0)
    children = {child for _, child in _LIMBS}
    for index in range(18):
        if index not in children:
            near = np.exp(-((places - rough[index]) ** 2).sum(-1) / (2 * narrow**2))
            _move_to_peak(heat[index], near, index, points, peaks)
    torso = max(
        float(np.linalg.norm(points[1] - (points[8] + points[11]) / 2)),
        1.4 * float(np.linalg.norm(points[2] - points[5])),
    )
    for (parent, child), reach in zip(_LIMBS, _LIMB_REACH, strict=True):
        away = np.linalg.norm(places - points[parent], axis=-1) / (reach * torso + 1e-6)
        expected = np.exp(-((places - rough[child]) ** 2).sum(-1) / (2 * (2 * narrow) ** 2))
        near = np.exp(-8 * np.maximum(away - 1, 0) ** 2) * (
            1 - _PRIOR_SHARE + _PRIOR_SHARE * expected
        )
        _move_to_peak(heat[child], near, child, points, peaks)
    return points, np.sqrt(chance * np.clip(peaks / 0.7, 0, 1)).astype(np.float32)


def _cell_places(shape: tuple[int, ...]) -> Float[np.ndarray, "rows columns 2"]:
    """Return the pixel that each cell of a heat map stands for."""
    rows, columns = shape
    y, x = np.mgrid[0:rows, 0:columns]
    return (np.stack([x, y], axis=-1) + 0.5) * _HEAT_STRIDE_PX - 0.5


def _move_to_peak(
    heat: Float[np.ndarray, "rows columns"],
    near: Float[np.ndarray, "rows columns"],
    index: int,
    points: Float[np.ndarray, "18 2"],
    peaks: Float[np.ndarray, " 18"],
) -> None:
    """Move one keypoint to the best heat near it, in place; leave it where there is none."""
    row, column = divmod(int((heat * near).argmax()), heat.shape[1])
    peak = float(heat[row, column])
    if peak * near[row, column] >= _MIN_HEAT * 0.5 and peak >= _MIN_HEAT:
        place = np.array(refine_peak(heat, row, column))
        points[index] = (place + 0.5) * _HEAT_STRIDE_PX - 0.5
        peaks[index] = peak


def _distance(first: PersonPose, second: PersonPose) -> float:
    """Return the mean distance of two poses in shares of the larger person's size."""
    size = max(float(np.ptp(pose.keypoints, axis=0).max()) for pose in (first, second))
    return float(np.linalg.norm(first.keypoints - second.keypoints, axis=1).mean()) / max(size, 1.0)
