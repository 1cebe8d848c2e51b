"""Animate a reference picture with the motion of a driving video: every step in one class."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn

from animaray.models.diffusion.face_landmarks import landmarks_from_keypoints
from animaray.models.diffusion.face_optimization import (
    FaceOptimizationConfig,
    FaceOptimizationStep,
    FaceOptimizer,
    to_uint8,
)
from animaray.models.diffusion.sampler import SamplerConfig, sample
from animaray.models.frozen.protocols import ImageEncoder, LatentCodec, Perception
from animaray.models.identity import measure_identity
from animaray.models.motion import Motion, estimate_motion
from animaray.models.networks.animator import Animator
from animaray.models.networks.animator_config import AnimatorConfig
from animaray.models.networks.conditioning import Conditioning
from animaray.models.networks.weights_folder import load_config, save_config
from animaray.models.pose.aligner import PoseAligner
from animaray.models.pose.alignment import (
    AlignedPose,
    AlignmentMethod,
    AlignmentReport,
    TransformScope,
    align_clip,
)
from animaray.models.pose.drawing import draw_pose, draw_pose_clip, pose_images_to_tensor
from animaray.models.reference import Reference, prepare_reference, reference_latents

PERCEPTION_FILE = "perception.json"
ALIGNER_FOLDER = "aligner"
DECODE_FRAMES = 8
"""Frames decoded at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PerceptionChoice:
    """Content of perception.json."""

    profile: str
    """Perception profile the weights were trained with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnimationOptions:
    """What a user may choose; None takes the model's default."""

    seed: int = 0
    """Equal seeds and options give equal frames on one machine."""
    num_inference_steps: int | None = None
    """Denoising steps."""
    guidance_scale: float | None = None
    """1 is off; higher follows picture and pose more strictly."""
    alignment: AlignmentMethod | None = None
    """None: `learned` where the weights have an aligner, else `procrustes`."""
    alignment_scope: TransformScope = "clip"
    """One transform for the whole clip, or one per frame."""
    face_optimization: bool | None = None
    """Steer the early denoising steps towards the reference's identity; None means True."""
    face_optimization_config: FaceOptimizationConfig = field(default_factory=FaceOptimizationConfig)
    """How, if it is on."""
    sampler: SamplerConfig | None = None
    """All sampler settings; the two above still override theirs."""


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
class Animation:
    """A finished animation and what is known about it."""

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
    """What face optimization did in each denoising step."""

    def summary(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        has_face = np.isfinite(self.identity_similarity)
        mean = float(self.identity_similarity[has_face].mean()) if has_face.any() else None
        report = self.alignment_report
        return {
            "num_frames": len(self.frames_uint8),
            "width_px": self.frames_uint8.shape[2],
            "height_px": self.frames_uint8.shape[1],
            "identity_similarity": mean,
            "num_frames_without_face": int((~has_face).sum()),
            "alignment_residual": report.residual,
            "out_of_frame_share": report.out_of_frame_share,
        }

    def describe(self) -> str:
        """Return the figures in one line."""
        figures = self.summary()
        mean = figures["identity_similarity"]
        identity = "no face found" if mean is None else f"identity similarity {mean:.3f}"
        size = f"{figures['width_px']}x{figures['height_px']}"
        return f"{figures['num_frames']} frames, {size}, {identity}"


OnProgress = Callable[[AnimationProgress], None]
"""Raising ends the animation."""


def default_sampler(config: AnimatorConfig) -> SamplerConfig:
    """Return sampler settings that suit a model: published ones, or those of small models."""
    if config.unconditional == "published":
        return SamplerConfig(tile_frames=config.num_frames)
    return SamplerConfig(
        num_inference_steps=20,
        sigma_min=0.02,
        sigma_max=80.0,
        guidance_scale=1.5,
        tile_frames=config.num_frames,
        tile_overlap=config.num_frames // 2 - 1,
        tiling="sliding",
        repeat_noise=False,
        use_bfloat16=_has_fast_bfloat16(),
    )


class AnimationPipeline:
    """Animator, aligner, codec, image encoder and perception, ready to work."""

    def __init__(
        self,
        animator: Animator,
        aligner: PoseAligner | None,
        codec: LatentCodec,
        image_encoder: ImageEncoder,
        perception: Perception,
    ) -> None:
        self.animator = animator.eval()
        self.aligner = aligner
        self.codec = codec
        self.image_encoder = image_encoder
        self.perception = perception

    @property
    def fps(self) -> float:
        """Frame rate the driving video should be read at, and the result played at."""
        return self.animator.config.fps

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "AnimationPipeline":
        """Load a weights folder: the animator, aligner/ if there, and perception.json's profile.

        A missing or damaged file raises WeightsError, an unknown profile ConfigError.
        """
        from animaray.models.frozen.profiles import load_codec, load_image_encoder, load_perception

        folder = Path(folder)
        profile = load_config(folder / PERCEPTION_FILE, PerceptionChoice).profile
        has_aligner = (folder / ALIGNER_FOLDER).is_dir()
        return cls(
            Animator.from_pretrained(folder),
            PoseAligner.from_pretrained(folder / ALIGNER_FOLDER) if has_aligner else None,
            load_codec(profile),
            load_image_encoder(profile),
            load_perception(profile),
        )

    def save_pretrained(self, folder: Path | str) -> None:
        """Write a weights folder; the frozen networks come from the profile and are not in it."""
        folder = Path(folder)
        self.animator.save_pretrained(folder)
        if self.aligner is not None:
            self.aligner.save_pretrained(folder / ALIGNER_FOLDER)
        choice = PerceptionChoice(profile=self.perception.profile)
        save_config(folder / PERCEPTION_FILE, choice)

    def to(self, device: torch.device | str) -> "AnimationPipeline":
        """Move all networks that are torch modules; the aligner stays on the CPU."""
        for part in (self.animator, self.codec, self.image_encoder):
            if isinstance(part, nn.Module):
                part.to(device)
        embedder = self.perception.identity_embedder
        if isinstance(embedder, nn.Module):
            embedder.to(device)
        return self

    def prepare_reference(self, picture_uint8: UInt8[np.ndarray, "height width 3"]) -> Reference:
        """Find the person and their face; FaceError or PoseError where there is none.

        Args:
            picture_uint8: RGB, upright, any size.
        """
        config = self.animator.config
        return prepare_reference(picture_uint8, config, self.perception, self.image_encoder)

    def estimate_motion(self, frames_uint8: UInt8[np.ndarray, "frames height width 3"]) -> Motion:
        """Follow one person through a driving video; PoseError where nobody is found.

        Args:
            frames_uint8: RGB frames at `fps`.
        """
        return estimate_motion(frames_uint8, self.perception.pose_estimator)

    def animate(
        self,
        reference: Reference,
        motion: Motion,
        options: AnimationOptions,
        on_progress: OnProgress | None = None,
    ) -> Animation:
        """Animate the reference.

        Args:
            reference: Whom.
            motion: How.
            options: Seed and strength.
            on_progress: Told after each step and between Adam steps; raising ends the animation.
        """
        run = _Run(self, reference, motion, options, on_progress)
        return run.animate()


class _Run:
    """One animation in progress."""

    def __init__(
        self,
        pipeline: AnimationPipeline,
        reference: Reference,
        motion: Motion,
        options: AnimationOptions,
        on_progress: OnProgress | None,
    ) -> None:
        self._pipeline = pipeline
        self._reference = reference
        self._motion = motion
        self._options = options
        self._on_progress = on_progress
        self._sampler = _sampler_settings(pipeline.animator.config, options)
        self._optimizer: FaceOptimizer | None = None
        self._step = 0

    def animate(self) -> Animation:
        pipeline, reference, config = (
            self._pipeline,
            self._reference,
            self._pipeline.animator.config,
        )
        self._tell("align", 0)
        pose = self._align()
        width, height = config.width_px, config.height_px
        pose_images = draw_pose_clip(pose.keypoints, pose.keypoint_confidence, width, height)
        generator = torch.Generator().manual_seed(self._options.seed)
        conditioning = self._conditioning(pose_images, generator)
        self._optimizer = self._make_optimizer(pose)
        latents = sample(
            pipeline.animator,
            conditioning,
            len(pose_images),
            self._sampler,
            generator,
            self._optimizer,
            lambda step: self._tell("denoise", step.step_index + 1),
        )
        frames_uint8 = self._decode(latents[0])
        self._tell("decode", self._sampler.num_inference_steps + 1)
        similarity = measure_identity(
            frames_uint8, pipeline.perception, reference.identity_embedding, pose.keypoints
        )
        self._tell("measure", self._sampler.num_inference_steps + 2)
        return Animation(
            frames_uint8=frames_uint8,
            pose_images=pose_images,
            keypoints=pose.keypoints,
            keypoint_confidence=pose.keypoint_confidence,
            alignment_report=pose.report,
            identity_similarity=similarity,
            face_optimization=tuple(self._optimizer.history) if self._optimizer else (),
        )

    def _align(self) -> AlignedPose:
        aligner = self._pipeline.aligner
        method = self._options.alignment or ("learned" if aligner is not None else "procrustes")
        return align_clip(
            method,
            self._reference.pose,
            self._motion.posed(),
            aligner=aligner,
            scope=self._options.alignment_scope,
        )

    def _conditioning(
        self,
        pose_images: UInt8[np.ndarray, "frames height width 3"],
        generator: torch.Generator,
    ) -> Conditioning:
        pipeline, reference = self._pipeline, self._reference
        config, pose = pipeline.animator.config, reference.pose
        own_pose = draw_pose(
            pose.keypoints, pose.keypoint_confidence, config.width_px, config.height_px
        )
        device = next(pipeline.animator.parameters()).device
        return Conditioning(
            reference_latents=reference_latents(
                reference, pipeline.codec, config.noise_aug_strength, generator
            ),
            image_embedding=reference.image_embedding,
            identity_embedding=torch.from_numpy(reference.identity_embedding)[None],
            pose_images=pose_images_to_tensor(pose_images)[None],
            reference_pose_image=pose_images_to_tensor(own_pose[None]),
        ).to(device)

    def _make_optimizer(self, pose: AlignedPose) -> FaceOptimizer | None:
        options, perception = self._options, self._pipeline.perception
        config = options.face_optimization_config
        if options.face_optimization is False or not config.enabled:
            return None
        embedder = perception.identity_embedder
        landmarks, _ = landmarks_from_keypoints(
            pose.keypoints, pose.keypoint_confidence, embedder.template()
        )
        return FaceOptimizer(
            self._pipeline.codec,
            embedder,
            self._reference.identity_embedding,
            landmarks,
            config,
            detector=perception.face_detector,
            on_iteration=lambda: self._tell("denoise", self._step),
        )

    @torch.no_grad()
    def _decode(
        self, latents: Float[Tensor, "frames channels h w"]
    ) -> UInt8[np.ndarray, "frames height width 3"]:
        chunks = torch.split(latents, DECODE_FRAMES)
        return np.concatenate([to_uint8(self._pipeline.codec.decode(chunk)) for chunk in chunks])

    def _tell(self, phase: str, step: int) -> None:
        self._step = step
        if self._on_progress is None:
            return
        history = self._optimizer.history if self._optimizer is not None else []
        losses = history[-1].losses if history else ()
        self._on_progress(
            AnimationProgress(
                phase=phase,
                step=step,
                num_steps=self._sampler.num_inference_steps + 2,
                identity_similarity=1 - losses[-1] if losses else None,
            )
        )


def _sampler_settings(config: AnimatorConfig, options: AnimationOptions) -> SamplerConfig:
    sampler = options.sampler or default_sampler(config)
    if options.num_inference_steps is not None:
        sampler = replace(sampler, num_inference_steps=options.num_inference_steps)
    if options.guidance_scale is not None:
        sampler = replace(sampler, guidance_scale=options.guidance_scale)
    return sampler


def _has_fast_bfloat16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001
