"""Follow points by pyramidal Lucas-Kanade flow with a forward-backward check (OpenCV).

The permissive place of CoTracker: each step tracks from the frame before, tracks back, and keeps
a point only while the way back ends where it started. What is lost, behind an arm that passes, is
looked for again in every later frame, where the motion of the others puts it, by its looks in the
first frame.

References:
    Bouguet 2001, "Pyramidal Implementation of the Lucas Kanade Feature Tracker";
    Kalal, Mikolajczyk, Matas 2010, "Forward-Backward Error", ICPR.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

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
    max_return_px: float = 2.0
    """A lost point is found again at most so far from where the others' motion puts it."""
    max_unlike: float = 0.5
    """A point is found again only where its window differs from the one in the first frame by at
    most this share of that one's variance: a bare wall in its place differs by all of it."""
    min_guides: int = 8
    """With fewer followed points nothing says where a lost one should be."""

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
        if self.max_return_px <= 0 or self.max_unlike <= 0 or self.min_guides < 2:
            raise ConfigError(
                "Expected max_return_px > 0, max_unlike > 0 and min_guides >= 2; got "
                f"{self.max_return_px}, {self.max_unlike} and {self.min_guides}."
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
            Places in every frame (pixels) and visibility. A point that is lost (failed check or
            outside the frame) stays where it was, invisible, until it is found again.
        """
        num_frames, num_points = len(frames_uint8), len(points)
        tracks = np.repeat(points[None], num_frames, axis=0)
        visibility = np.zeros((num_frames, num_points), dtype=bool)
        if num_frames == 0 or num_points == 0:
            return tracks, visibility
        height, width = frames_uint8.shape[1:3]
        visibility[0] = _is_inside(points, width, height)
        first = before = cv2.cvtColor(frames_uint8[0], cv2.COLOR_RGB2GRAY)
        for index in range(1, num_frames):
            after = cv2.cvtColor(frames_uint8[index], cv2.COLOR_RGB2GRAY)
            tracks[index] = tracks[index - 1]
            alive = np.flatnonzero(visibility[index - 1])
            if len(alive):
                moved, is_kept = self._step(before, after, tracks[index - 1, alive])
                is_kept &= _is_inside(moved, width, height)
                tracks[index, alive[is_kept]] = moved[is_kept]
                visibility[index, alive[is_kept]] = True
            lost = np.flatnonzero(~visibility[index] & visibility[0])
            again, is_back = self._find_again(
                (first, after), points, tracks[index], visibility[index], lost
            )
            tracks[index, lost[is_back]] = again[is_back]
            visibility[index, lost[is_back]] = True
            before = after
        return tracks, visibility

    def _find_again(
        self,
        views: tuple[UInt8[np.ndarray, "height width"], UInt8[np.ndarray, "height width"]],
        points: Float32[np.ndarray, "points 2"],
        places: Float32[np.ndarray, "points 2"],
        is_followed: Bool[np.ndarray, " points"],
        lost: Int64[np.ndarray, " lost"],
    ) -> tuple[Float32[np.ndarray, "lost 2"], Bool[np.ndarray, " lost"]]:
        """Look for lost points in the later of two views; return places and which are found."""
        nowhere = places[lost], np.zeros(len(lost), dtype=bool)
        if len(lost) == 0 or is_followed.sum() < self.config.min_guides:
            return nowhere
        motion, _ = cv2.estimateAffinePartial2D(
            points[is_followed], places[is_followed], method=cv2.LMEDS
        )
        if motion is None:
            return nowhere
        height, width = views[0].shape
        expected = (points[lost] @ motion[:, :2].T + motion[:, 2]).astype(np.float32)
        is_there = _is_inside(expected, width, height)
        found, is_found = expected.copy(), is_there.copy()
        if is_there.any():
            found[is_there], is_found[is_there] = self._match(
                views, points[lost[is_there]], expected[is_there]
            )
        return found, is_found & _is_inside(found, width, height)

    def _match(
        self,
        views: tuple[UInt8[np.ndarray, "height width"], UInt8[np.ndarray, "height width"]],
        points: Float32[np.ndarray, "points 2"],
        expected: Float32[np.ndarray, "points 2"],
    ) -> tuple[Float32[np.ndarray, "points 2"], Bool[np.ndarray, " points"]]:
        """Match points of one view near expected places of another; return which are there."""
        # The finest level alone: a coarse one sees whoever stands beside the point, too.
        options = {**self._options(), "maxLevel": 0, "flags": cv2.OPTFLOW_USE_INITIAL_FLOW}
        start, guess = (at[:, None].copy() for at in (points, expected))
        moved, is_found, _ = cv2.calcOpticalFlowPyrLK(*views, start, guess, **options)
        found = moved[:, 0]
        unlike = [
            self._unlikeness(views, *pair) if is_close else np.inf
            for *pair, is_close in zip(points, found, self._is_close(found, expected), strict=True)
        ]
        return found, (is_found[:, 0] == 1) & (np.array(unlike) <= self.config.max_unlike)

    def _is_close(
        self, found: Float32[np.ndarray, "points 2"], expected: Float32[np.ndarray, "points 2"]
    ) -> Bool[np.ndarray, " points"]:
        return np.linalg.norm(found - expected, axis=1) <= self.config.max_return_px

    def _unlikeness(
        self,
        views: tuple[UInt8[np.ndarray, "height width"], UInt8[np.ndarray, "height width"]],
        before: Float32[np.ndarray, " 2"],
        after: Float32[np.ndarray, " 2"],
    ) -> float:
        """Return the variance of the difference of two windows over that of the first."""
        size = (self.config.window_px, self.config.window_px)
        one, two = (
            cv2.getRectSubPix(view, size, (float(x), float(y)), patchType=cv2.CV_32F)
            for view, (x, y) in zip(views, (before, after), strict=True)
        )
        return float((two - one).var() / max(float(one.var()), 1e-6))

    def _options(self) -> dict[str, Any]:
        config = self.config
        return {
            "winSize": (config.window_px, config.window_px),
            "maxLevel": config.pyramid_levels,
            "criteria": (
                cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, config.max_iterations, 0.01,
            ),
        }  # fmt: skip

    def _step(
        self,
        before: UInt8[np.ndarray, "height width"],
        after: UInt8[np.ndarray, "height width"],
        points: Float32[np.ndarray, "points 2"],
    ) -> tuple[Float32[np.ndarray, "points 2"], Bool[np.ndarray, " points"]]:
        """Track one frame on and back; return the new places and which of them to believe."""
        options = self._options()
        start = np.ascontiguousarray(points[:, None])
        moved, is_found, _ = cv2.calcOpticalFlowPyrLK(before, after, start, None, **options)
        back, is_back, _ = cv2.calcOpticalFlowPyrLK(after, before, moved, None, **options)
        round_trip = np.linalg.norm((back - start)[:, 0], axis=-1)
        is_kept = (is_found[:, 0] == 1) & (is_back[:, 0] == 1)
        is_kept &= round_trip <= self.config.max_round_trip_px
        return moved[:, 0], is_kept


def _is_inside(
    points: Float32[np.ndarray, "points 2"], width: int, height: int
) -> Bool[np.ndarray, " points"]:
    x, y = points[:, 0], points[:, 1]
    return (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
