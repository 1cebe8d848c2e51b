"""Find generated people and their 18 body keypoints, several at once.

A heat map of person centres says who is there; offsets from each centre say roughly where that
person's keypoints are, also hidden ones and those outside the picture; the keypoint's own heat map
near that place says it precisely. Trained by animaray.training.perception.people; the card is
generated/pose.md.

References:
    Zhou et al. 2019, Objects as Points, arXiv:1904.07850.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, UInt8

from animaray.models.frozen.generated_files import resolve_generated
from animaray.models.frozen.generated_heat_maps import (
    find_peaks,
    fit_to_input,
    refine_peak,
    to_picture,
)
from animaray.models.frozen.onnx_session import open_onnx_session
from animaray.models.frozen.protocols import PersonPose

_HEAT_STRIDE_PX = 4
_PERSON_STRIDE_PX = 8
_UNIT_PX = 64.0
_SEARCH_SHARE = np.full(18, 0.12)
_SEARCH_SHARE[[3, 4, 6, 7, 9, 10, 12, 13]] = (
    0.25  # limbs stray further from where they are expected
)
"""Standard deviation of the search around a predicted keypoint, shares of the person's size."""
_MIN_HEAT = 0.08
_MIN_VISIBLE = 3
_SAME_PERSON_SHARE = 0.12


class GeneratedPoseEstimator:
    """Estimate poses of the generated world; confidences above 0.3 are visible keypoints."""

    def __init__(
        self, path: Path | None = None, *, long_side_px: int = 192, min_score: float = 0.3
    ) -> None:
        """Open the network.

        Args:
            path: An ONNX file; None takes the shipped one.
            long_side_px: Size at which the network looks.
            min_score: People whose centre scores below are not reported.

        Raises:
            WeightsError: The file is missing or damaged.
        """
        self.name = "generated/pose"
        self._session = open_onnx_session(path or resolve_generated("pose"))
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
    rows, columns = heat.shape[1:]
    x = (np.arange(columns) + 0.5) * _HEAT_STRIDE_PX - 0.5
    y = (np.arange(rows) + 0.5) * _HEAT_STRIDE_PX - 0.5
    spread = 2 * np.maximum(_SEARCH_SHARE * size, 6.0)[:, None] ** 2
    near = (
        np.exp(-((y - rough[:, 1:]) ** 2) / spread)[:, :, None]
        * (np.exp(-((x - rough[:, :1]) ** 2) / spread)[:, None, :])
    )
    best = (heat * near).reshape(18, -1).argmax(1)
    points, peaks = rough.copy(), np.zeros(18)
    for index, (row, column) in enumerate(zip(*np.divmod(best, columns), strict=True)):
        peak = float(heat[index, row, column])
        if peak * near[index, row, column] >= _MIN_HEAT * 0.5 and peak >= _MIN_HEAT:
            place = np.array(refine_peak(heat[index], int(row), int(column)))
            points[index] = (place + 0.5) * _HEAT_STRIDE_PX - 0.5
            peaks[index] = peak
    return points, np.sqrt(chance * np.clip(peaks / 0.7, 0, 1)).astype(np.float32)


def _distance(first: PersonPose, second: PersonPose) -> float:
    """Return the mean distance of two poses in shares of the larger person's size."""
    size = max(float(np.ptp(pose.keypoints, axis=0).max()) for pose in (first, second))
    return float(np.linalg.norm(first.keypoints - second.keypoints, axis=1).mean()) / max(size, 1.0)
