"""Judge an alignment before anything costly starts: does the driving body fit the picture?

Two things speak against a fit: keypoints that the picture shows and that the aligned motion carries
out of it, and a large distance between the two poses. Keypoints of parts that the picture does not
show at all (legs of a portrait) may lie outside without harm.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from animaray.models.alignment.alignment import AlignedPose, PosedPicture
from animaray.models.alignment.methods import AlignmentMethod
from animaray.models.pose.layouts import VISIBLE_CONFIDENCE

MAX_SHOWN_OUT_OF_FRAME_SHARE = 0.1
"""Above this share of the shown keypoints outside the picture, the two do not fit."""
MAX_GOOD_RESIDUAL = 0.12
"""Mean distance, in picture heights, up to which a fit is good: arms and legs may differ."""
MAX_USABLE_RESIDUAL = 0.3
"""Mean distance above which the two do not fit."""

Verdict = Literal["good", "usable", "poor"]
BODY_PARTS = {
    "head": (0, 14, 15, 16, 17),
    "shoulders": (1, 2, 5),
    "arms": (3, 4, 6, 7),
    "hips": (8, 11),
    "legs": (9, 10, 12, 13),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignmentQuality:
    """How well a driving clip fits the picture, in numbers and words."""

    method: AlignmentMethod
    """How it was aligned."""
    verdict: Verdict
    """`good`, `usable` (look at the overlay) or `poor`."""
    residual: float
    """Mean distance to the reference's keypoints, in picture heights."""
    out_of_frame_share: float
    """Share of the driving keypoints that land outside the picture."""
    shown_out_of_frame_share: float
    """The same among keypoints that the picture shows."""
    visible_share: float
    """Share of all driving keypoints that are seen."""
    scale: float
    """Driving heights to reference heights."""
    rotation_deg: float
    """Clockwise on the screen."""
    parts_not_shown: tuple[str, ...]
    """Parts of the body that move in the driving clip and that the picture does not show."""

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        numbers = {
            name: round(getattr(self, name), 4)
            for name in (
                "residual",
                "out_of_frame_share",
                "shown_out_of_frame_share",
                "visible_share",
                "scale",
                "rotation_deg",
            )
        }
        return {
            "method": self.method,
            "verdict": self.verdict,
            **numbers,
            "parts_not_shown": list(self.parts_not_shown),
        }

    def describe(self) -> str:
        """Return the figures in one line."""
        parts = f", picture shows no {' and no '.join(self.parts_not_shown)}"
        return (
            f"{self.method}: {self.verdict}; {self.residual:.3f} heights apart, "
            f"{self.shown_out_of_frame_share:.0%} of the shown keypoints outside, scale "
            f"{self.scale:.2f}, turned {self.rotation_deg:+.0f} deg"
            + (parts if self.parts_not_shown else "")
        )


def judge_alignment(
    method: AlignmentMethod, reference: PosedPicture, aligned: AlignedPose
) -> AlignmentQuality:
    """Return how well an aligned clip fits.

    Args:
        method: How it was aligned.
        reference: The person in the picture.
        aligned: The driving clip in that picture.
    """
    report = aligned.report
    driven = aligned.keypoint_confidence >= VISIBLE_CONFIDENCE
    shown = np.asarray(reference.keypoint_confidence) >= VISIBLE_CONFIDENCE
    limit = np.array([reference.width_px, reference.height_px])
    outside = ((aligned.keypoints < 0) | (aligned.keypoints > limit)).any(axis=-1)
    both = driven & shown
    share = float((outside & both).sum() / max(1, both.sum()))
    verdict: Verdict = "good"
    if share > MAX_SHOWN_OUT_OF_FRAME_SHARE or report.residual > MAX_USABLE_RESIDUAL:
        verdict = "poor"
    elif report.residual > MAX_GOOD_RESIDUAL:
        verdict = "usable"
    missing = [
        name
        for name, points in BODY_PARTS.items()
        if not shown[list(points)].any() and driven[:, list(points)].mean() > 0.5
    ]
    return AlignmentQuality(
        method=method,
        verdict=verdict,
        residual=report.residual,
        out_of_frame_share=report.out_of_frame_share,
        shown_out_of_frame_share=share,
        visible_share=report.visible_share,
        scale=report.scale,
        rotation_deg=math.degrees(report.rotation_rad),
        parts_not_shown=tuple(missing),
    )
