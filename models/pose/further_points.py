"""The further points of a pose (feet, face, hands): moved, mirrored and filled in with its body.

They are one array beside the body's 18 keypoints: x and y in pixels, then the confidence, in the
order of `layouts`. None stands for a pose that was never looked at so closely; a part that was not
found has confidence 0, and its place means nothing.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, Int64

from animaray.models.pose.layouts import FURTHER_MIRROR, PoseLayout

PointMap = Callable[[Float[np.ndarray, "*items 2"]], Float[np.ndarray, "*items 2"]]
"""Brings points of one picture into another."""


@runtime_checkable
class HasPose(Protocol):
    """Whoever has keypoints: one pose, or one pose for each frame of a clip."""

    @property
    def keypoints(self) -> Float[np.ndarray, "*frames 18 2"]:
        """Pixels."""
        ...

    @property
    def keypoint_confidence(self) -> Float[np.ndarray, "*frames 18"]:
        """In [0, 1]."""
        ...

    @property
    def further_points(self) -> Float[np.ndarray, "*frames 116 3"] | None:
        """Pixels and confidence of feet, face and hands; None where nobody looked for them."""
        ...


def layout_of(further_points: Float[np.ndarray, "*frames 116 3"] | None) -> PoseLayout:
    """Return the layout of a pose by whether it has further points."""
    return "openpose_18" if further_points is None else "whole_body_134"


def map_further(
    further_points: Float[np.ndarray, "*frames 116 3"] | None, move: PointMap
) -> Float[np.ndarray, "*frames 116 3"] | None:
    """Bring further points into another picture, in the precision they have; None stays None.

    Args:
        further_points: In pixels of one picture.
        move: What the body's keypoints are moved by, too, so that hands stay at their wrists.
    """
    if further_points is None:
        return None
    moved = np.concatenate([move(further_points[..., :2]), further_points[..., 2:]], axis=-1)
    return moved.astype(further_points.dtype)


def mirror_further(
    further_points: Float32[np.ndarray, "*frames 116 3"] | None, width_px: int
) -> Float32[np.ndarray, "*frames 116 3"] | None:
    """Mirror further points left to right: left and right change their names, too.

    Args:
        further_points: In pixels.
        width_px: Width of their picture.
    """
    if further_points is None:
        return None
    mirrored = further_points[..., list(FURTHER_MIRROR), :].copy()
    mirrored[..., 0] = width_px - 1 - mirrored[..., 0]
    return mirrored


def fill_further(
    frames: Int64[np.ndarray, " frames"],
    known: Int64[np.ndarray, " known"],
    further_points: Float32[np.ndarray, "known 116 3"],
) -> Float32[np.ndarray, "frames 116 3"]:
    """Interpolate between the known frames; what one neighbour does not show stays unseen.

    Args:
        frames: Numbers of all frames.
        known: Numbers of the frames that show the person, rising.
        further_points: Those of the known frames.
    """
    after = np.searchsorted(known, frames).clip(0, len(known) - 1)
    before = (np.searchsorted(known, frames, side="right") - 1).clip(0, len(known) - 1)
    step = (known[after] - known[before]).clip(1)
    share = ((frames - known[before]) / step).clip(0, 1)[:, None, None]
    first, second = further_points[before], further_points[after]
    filled = first * (1 - share) + second * share
    filled[..., 2] *= np.minimum(first[..., 2], second[..., 2]) > 0
    return filled.astype(np.float32)
