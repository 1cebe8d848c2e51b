"""What comes out of an animation: progress, previews, frames and figures."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from animaray.models.alignment.alignment import AlignmentReport
from animaray.models.diffusion.windows import Seam
from animaray.models.face.identity import mean_similarity
from animaray.models.face.optimization import FaceOptimizationStep


@dataclass(frozen=True, kw_only=True, slots=True)
class AnimationProgress:
    """How far an animation is; sent after each step and between Adam steps."""

    phase: str
    """`align`, `denoise`, `decode` or `measure`."""
    step: int
    """Steps done."""
    num_steps: int
    """Steps in all: the denoising steps and two."""
    identity_similarity: float | None = None
    """Cosine to the reference identity as face optimization saw it last, or None."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnimationPreview:
    """Some frames of what is expected to come out, decoded in the middle of the work."""

    step: int
    """Denoising steps done."""
    num_steps: int
    """Denoising steps in all."""
    frame_indices: tuple[int, ...]
    """Which frames of the clip."""
    frames_uint8: UInt8[np.ndarray, "shown height width 3"]
    """RGB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PersonResult:
    """What is known about one person of an animation."""

    keypoints: Float32[np.ndarray, "frames 18 2"]
    """Aligned driving keypoints, pixels of the result."""
    keypoint_confidence: Float32[np.ndarray, "frames 18"]
    """In [0, 1]."""
    alignment_report: AlignmentReport
    """How well the driving clip fits the reference."""
    identity_similarity: Float32[np.ndarray, " frames"]
    """Cosine of each frame's face to the reference's; NaN where no face is found."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Animation:
    """A finished animation and what is known about it; figures are the main person's."""

    frames_uint8: UInt8[np.ndarray, "frames height width 3"]
    """RGB."""
    pose_images: UInt8[np.ndarray, "frames height width 3"]
    """The poses that were followed."""
    keypoints: Float32[np.ndarray, "frames 18 2"]
    """Aligned driving keypoints, pixels of the result."""
    keypoint_confidence: Float32[np.ndarray, "frames 18"]
    """In [0, 1]."""
    alignment_report: AlignmentReport
    """How well the driving clip fits the reference."""
    identity_similarity: Float32[np.ndarray, " frames"]
    """Cosine of each frame's face to the reference's; NaN where no face is found."""
    face_optimization: tuple[FaceOptimizationStep, ...]
    """What face optimization did in each denoising step, to all faces together."""
    companions: tuple[PersonResult, ...] = ()
    """The other people, where several are animated."""
    seams: tuple[Seam, ...] = ()
    """How well neighbouring windows of a long clip fit together, border by border."""

    def summary(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        mean, without = mean_similarity(self.identity_similarity)
        report = self.alignment_report
        summary = {
            "num_frames": len(self.frames_uint8),
            "width_px": self.frames_uint8.shape[2],
            "height_px": self.frames_uint8.shape[1],
            "identity_similarity": mean,
            "num_frames_without_face": without,
            "alignment_residual": report.residual,
            "out_of_frame_share": report.out_of_frame_share,
        }
        if self.companions:
            summary["companions"] = [
                dict(
                    zip(
                        ("identity_similarity", "num_frames_without_face"),
                        mean_similarity(person.identity_similarity),
                        strict=True,
                    )
                )
                for person in self.companions
            ]
        return summary

    def describe(self) -> str:
        """Return the figures in one line."""
        figures = self.summary()
        means = [figures["identity_similarity"]]
        means += [person["identity_similarity"] for person in figures.get("companions", [])]
        shown = " and ".join("no face found" if mean is None else f"{mean:.3f}" for mean in means)
        identity = shown if means == [None] else f"identity similarity {shown}"
        size = f"{figures['width_px']}x{figures['height_px']}"
        return f"{figures['num_frames']} frames, {size}, {identity}"


OnProgress = Callable[[AnimationProgress], None]
"""Raising ends the animation."""
OnPreview = Callable[[AnimationPreview], None]
"""Gets each preview."""
