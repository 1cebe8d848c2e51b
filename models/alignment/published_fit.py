"""The released code's alignment: one scale for both axes and a shift, fitted to a whole clip.

Everything is in pictures' own normalised coordinates (x by width, y by height), so pictures of
different aspect distort; there is no rotation, and unseen points of the driving clip count.

References:
    The released inference script, which takes the formula from MimicMotion
    (arXiv 2406.19680); unlike the original it leaves the aspect ratio out.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64

from animaray.platform.errors import PoseError

FIT_POINTS = (0, 1, 2, 5, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17)
"""All keypoints but elbows and wrists, which move most."""


class AxisTransform(NamedTuple):
    """p' = scale * p + shift on each axis of normalised coordinates."""

    scale: Float64[np.ndarray, " 2"]
    """Of x and y; equal."""
    shift: Float64[np.ndarray, " 2"]
    """Shares of the picture's width and height."""

    def apply(self, points: Float[np.ndarray, "*items 2"]) -> Float64[np.ndarray, "*items 2"]:
        """Map normalised points of body, hands or face."""
        return np.asarray(points, np.float64) * self.scale + self.shift


def published_fit(
    reference: Float[np.ndarray, "18 2"],
    is_seen: Bool[np.ndarray, " 18"],
    driving: Float[np.ndarray, "frames 18 2"],
) -> AxisTransform:
    """Fit a clip's body keypoints to a reference's, by a line through their heights.

    Args:
        reference: Normalised keypoints of the reference's first person.
        is_seen: Which of them the detector is sure of (confidence above 0.3).
        driving: Normalised keypoints of the frames with exactly one person.

    Raises:
        PoseError: There is no such frame, or fewer than two points that the reference shows; the
            released code crashes there.
    """
    points = [index for index in FIT_POINTS if is_seen[index]]
    if len(driving) == 0 or len(points) < 2:
        raise PoseError(
            f"The fit needs a driving frame with one person and two seen reference keypoints, got "
            f"{len(driving)} frames and {len(points)} keypoints.",
            fix="Choose a reference and a video that show a person, or another alignment.",
            reason="too_few_keypoints",
        )
    target = np.repeat(reference[points][None], len(driving), axis=0).reshape(-1, 2)
    source = driving[:, points].reshape(-1, 2)
    target, source = target.astype(np.float64), source.astype(np.float64)
    slope, offset = np.polyfit(source[:, 1], target[:, 1], 1)
    shift_x = float((target[:, 0] - slope * source[:, 0]).mean())
    return AxisTransform(np.array([slope, slope]), np.array([shift_x, offset]))
