"""What goes into an animation and what comes out of it: options, progress, previews, results."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from animaray.models.alignment.alignment import (
    AlignmentMethod,
    AlignmentReport,
    TransformScope,
)
from animaray.models.diffusion.sampler import SamplerConfig, SamplerMethod
from animaray.models.diffusion.seams import Seam
from animaray.models.diffusion.tiles import WindowRule
from animaray.models.face.optimization import (
    FaceOptimizationConfig,
    FaceOptimizationStep,
)
from animaray.models.face.optimization_config import FaceOptimizationMode
from animaray.models.networks.animator_config import AnimatorConfig
from animaray.platform.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class AnimationOptions:
    """What a user may choose; None takes the model's default."""

    seed: int = 0
    """Equal seeds and options give equal frames on one machine."""
    num_inference_steps: int | None = None
    """Denoising steps."""
    sampler: SamplerMethod | None = None
    """`euler` as published, or `heun`: corrected steps, twice the work."""
    guidance_scale: float | None = None
    """1 is off; higher follows picture and pose more strictly."""
    guidance_min: float | None = None
    """Guidance scale of the first frame, rising evenly to `guidance_max`; instead of
    `guidance_scale`."""
    guidance_max: float | None = None
    """Guidance scale of the last frame."""
    window_frames: int | None = None
    """Frames denoised together."""
    window_overlap: int | None = None
    """Frames that neighbouring windows share."""
    window_rule: WindowRule | None = None
    """How windows lie over a long video."""
    alignment: AlignmentMethod | None = None
    """None: `learned` where there is an aligner (the bundled one at least), else `procrustes`."""
    alignment_scope: TransformScope = "clip"
    """One transform for the whole clip, or one per frame."""
    face_optimization: bool | FaceOptimizationMode | None = None
    """Steer denoising steps towards the reference's identity, and which way; False is `off`, True
    and None mean `face_optimization_config` as it is."""
    face_optimization_config: FaceOptimizationConfig = field(default_factory=FaceOptimizationConfig)
    """How, if it is on and no mode is named."""
    no_face: bool = False
    """The picture shows no human face, as of a drawn animal: the animator is told no identity,
    and face optimization is off."""
    preview_every: int = 0
    """Decode some frames of the estimate every so many steps; 0 never."""
    sampler_config: SamplerConfig | None = None
    """All sampler settings; those above still override theirs."""

    def __post_init__(self) -> None:
        """Refuse options that contradict each other.

        Raises:
            ConfigError: Both one guidance scale and a range are given, or half a range; or faces
                are to be optimized where there are none.
        """
        if self.no_face and self.face_optimization not in (None, False, "off"):
            raise ConfigError(
                "`no_face` leaves no identity that face optimization could work towards.",
                fix="Leave one of the two out.",
            )
        given = [self.guidance_min is not None, self.guidance_max is not None]
        if any(given) and not all(given):
            raise ConfigError("`guidance_min` and `guidance_max` belong together; one is missing.")
        if any(given) and self.guidance_scale is not None:
            raise ConfigError(
                "Give either `guidance_scale` or `guidance_min` and `guidance_max`, not both."
            )
        if self.preview_every < 0:
            raise ConfigError(f"`preview_every` must not be negative, got {self.preview_every}.")


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
        mean, without = _mean_similarity(self.identity_similarity)
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
                        _mean_similarity(person.identity_similarity),
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


def default_sampler(config: AnimatorConfig) -> SamplerConfig:
    """Return sampler settings that suit a model: published ones, or those of small models."""
    if config.unconditional == "published":
        return SamplerConfig(window_frames=config.num_frames)
    drafts = config.moved_reference
    return SamplerConfig(
        num_inference_steps=20 if drafts is None else 12,
        sigma_min=0.02,
        sigma_max=80.0 if drafts is None else drafts.start_sigma,
        guidance_scale=1.5,
        window_frames=config.num_frames,
        window_overlap=config.num_frames // 2 - 1,
        window_rule="sliding",
        repeat_noise=False,
        use_bfloat16=_has_fast_bfloat16(),
    )


def sampler_settings(config: AnimatorConfig, options: AnimationOptions) -> SamplerConfig:
    """Return the sampler settings of one animation; ConfigError where they contradict.

    Args:
        config: The model, for the defaults.
        options: What the user chose.
    """
    sampler = options.sampler_config or default_sampler(config)
    names = ("num_inference_steps", "sampler", "guidance_scale", "guidance_max", "window_frames",
             "window_overlap", "window_rule")  # fmt: skip
    changes = {name: getattr(options, name) for name in names}
    if options.guidance_min is not None:
        changes["guidance_scale"] = options.guidance_min
    if options.window_frames is not None and options.window_overlap is None:
        # Keep the share that overlaps.
        share = sampler.window_overlap / sampler.window_frames
        changes["window_overlap"] = int(share * options.window_frames)
    return replace(sampler, **{name: v for name, v in changes.items() if v is not None})


def face_settings(options: AnimationOptions) -> FaceOptimizationConfig | None:
    """Return how faces are optimized, or None where they are not."""
    config, wanted = options.face_optimization_config, options.face_optimization
    if wanted is False or options.no_face:
        return None
    if isinstance(wanted, str):
        config = replace(config, mode=wanted)
    return None if config.mode == "off" else config


def _mean_similarity(similarity: Float32[np.ndarray, " frames"]) -> tuple[float | None, int]:
    """Return the mean over frames that show a face, and how many do not."""
    has_face = np.isfinite(similarity)
    mean = float(similarity[has_face].mean()) if has_face.any() else None
    return mean, int((~has_face).sum())


def _has_fast_bfloat16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001
