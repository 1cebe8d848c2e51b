"""One person's 18 keypoints in one picture, and the body's size in them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from animaray.models.pose.layouts import VISIBLE_CONFIDENCE

_SIZES = ((2, 5, 1.0), (1, 8, 0.7), (1, 11, 0.7), (0, 1, 1.3), (16, 17, 1.5))
"""From, to, and the width of the shoulders in such distances."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BodyPose:
    """One person's keypoints in one picture."""

    keypoints: Float[np.ndarray, "18 2"]
    """Pixels."""
    confidence: Float[np.ndarray, " 18"]
    """In [0, 1]."""

    @property
    def visible(self) -> Bool[np.ndarray, " 18"]:
        """Which keypoints are there."""
        return self.confidence >= VISIBLE_CONFIDENCE

    def unit(self) -> float:
        """Return the body's size: about the width of its shoulders, however it is turned."""
        points, seen = self.keypoints, self.visible
        lengths = [
            float(np.linalg.norm(points[first] - points[last])) * factor
            for first, last, factor in _SIZES
            if seen[first] and seen[last]
        ]
        return max(lengths, default=0.0)
