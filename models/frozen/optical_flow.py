"""Follow points by pyramidal Lucas-Kanade flow with a forward-backward check (OpenCV).

The permissive place of CoTracker: each step tracks from the frame before, tracks back, and keeps
a point only while the way back ends where it started.

References:
    Bouguet 2001, "Pyramidal Implementation of the Lucas Kanade Feature Tracker";
    Kalal, Mikolajczyk, Matas 2010, "Forward-Backward Error", ICPR.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from animaray.platform.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class OpticalFlowConfig:
    """Settings of the Lucas-Kanade tracker."""

    window_px: int = 21
    """Side of the square that is matched at every pyramid level."""
    pyramid_levels: int = 3
    """Halvings of the frame; a step of about window * 2**levels / 2 pixels can be followed."""
    max_iterations: int = 30
    """Newton steps per level."""
    max_round_trip_px: float = 1.0
    """A point whose way forward and back ends further from its start is lost."""

    def __post_init__(self) -> None:
        """Refuse settings out of range.

        Raises:
            ConfigError: A setting is out of range.
        """
        if self.window_px < 3 or self.pyramid_levels < 0 or self.max_round_trip_px <= 0:
            raise ConfigError(
                "Expected window_px >= 3, pyramid_levels >= 0 and max_round_trip_px > 0; got "
                f"{self.window_px}, {self.pyramid_levels} and {self.max_round_trip_px}."
            )


class OpticalFlowTracker:
    """Track points through the frames of one clip; a lost point stays where it was last seen."""

    def __init__(self, config: OpticalFlowConfig | None = None) -> None:
        self.name = "permissive/optical_flow"
        self.config = config or OpticalFlowConfig()

    def track(
        self,
        frames_uint8: UInt8[np.ndarray, "frames height width 3"],
        points: Float32[np.ndarray, "points 2"],
    ) -> tuple[Float32[np.ndarray, "frames points 2"], Bool[np.ndarray, "frames points"]]:
        """Follow points given in the first frame.

        Args:
            frames_uint8: RGB frames in order.
            points: Places in the first frame, pixels.

        Returns:
            Places in every frame (pixels) and visibility; once a point is lost (failed check or
            outside the frame) it stays invisible.
        """
        num_frames, num_points = len(frames_uint8), len(points)
        tracks = np.repeat(points[None], num_frames, axis=0)
        visibility = np.zeros((num_frames, num_points), dtype=bool)
        if num_frames == 0 or num_points == 0:
            return tracks, visibility
        height, width = frames_uint8.shape[1:3]
        visibility[0] = _is_inside(points, width, height)
        before = cv2.cvtColor(frames_uint8[0], cv2.COLOR_RGB2GRAY)
        for index in range(1, num_frames):
            after = cv2.cvtColor(frames_uint8[index], cv2.COLOR_RGB2GRAY)
            tracks[index] = tracks[index - 1]
            alive = np.flatnonzero(visibility[index - 1])
            if len(alive):
                moved, is_kept = self._step(before, after, tracks[index - 1, alive])
                is_kept &= _is_inside(moved, width, height)
                tracks[index, alive[is_kept]] = moved[is_kept]
                visibility[index, alive[is_kept]] = True
            before = after
        return tracks, visibility

    def _step(
        self,
        before: UInt8[np.ndarray, "height width"],
        after: UInt8[np.ndarray, "height width"],
        points: Float32[np.ndarray, "points 2"],
    ) -> tuple[Float32[np.ndarray, "points 2"], Bool[np.ndarray, " points"]]:
        """Track one frame on and back; return the new places and which of them to believe."""
        config = self.config
        criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, config.max_iterations, 0.01)
        window = (config.window_px, config.window_px)
        options: dict[str, Any] = {
            "winSize": window,
            "maxLevel": config.pyramid_levels,
            "criteria": criteria,
        }
        start = np.ascontiguousarray(points[:, None])
        moved, is_found, _ = cv2.calcOpticalFlowPyrLK(before, after, start, None, **options)
        back, is_back, _ = cv2.calcOpticalFlowPyrLK(after, before, moved, None, **options)
        round_trip = np.linalg.norm((back - start)[:, 0], axis=-1)
        is_kept = (is_found[:, 0] == 1) & (is_back[:, 0] == 1)
        is_kept &= round_trip <= config.max_round_trip_px
        return moved[:, 0], is_kept


def _is_inside(
    points: Float32[np.ndarray, "points 2"], width: int, height: int
) -> Bool[np.ndarray, " points"]:
    x, y = points[:, 0], points[:, 1]
    return (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
