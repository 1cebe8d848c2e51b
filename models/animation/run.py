"""One animation in progress: align, draw, condition, sample with face optimization, decode.

Several people may be animated in one picture: each has a reference pose, an identity and a motion
of their own. All poses are drawn; the network is told the first person's identity, since the model
has one face embedding per picture; face optimization works on each face towards its own identity.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from animaray.models.alignment.aligner import PoseAligner
from animaray.models.alignment.alignment import AlignedPose, align_clip
from animaray.models.alignment.methods import AlignmentMethod
from animaray.models.animation.conditioning import (
    PosedPerson,
    ReferenceInputs,
    assemble_conditioning,
)
from animaray.models.animation.options import AnimationOptions
from animaray.models.animation.result import (
    Animation,
    AnimationPreview,
    AnimationProgress,
    OnPreview,
    OnProgress,
    PersonResult,
)
from animaray.models.animation.settings import face_settings, sampler_settings
from animaray.models.diffusion.sampler import sample
from animaray.models.diffusion.sampler_config import StepInfo
from animaray.models.diffusion.windows import Seam
from animaray.models.face.identity import measure_identity
from animaray.models.face.landmarks import landmarks_from_keypoints
from animaray.models.face.optimization import FaceOptimizer, FaceTarget
from animaray.models.frames import to_uint8
from animaray.models.networks.animator import Animator
from animaray.models.networks.conditioning import Conditioning
from animaray.models.perception.protocols import ImageEncoder, LatentCodec, Perception
from animaray.models.subjects.encoding import device_of
from animaray.models.subjects.pairing import Subject
from animaray.models.subjects.reference import reference_latents
from animaray.platform.errors import ConfigError

DECODE_FRAMES = 8
"""Frames decoded at once, unless the codec says otherwise (`decode_frames`)."""
PREVIEW_FRAMES = 4
"""Frames of a preview, evenly over the clip."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnimationParts:
    """The networks that an animation needs."""

    animator: Animator
    """In evaluation mode."""
    aligner: PoseAligner | None
    """For alignment method `learned`."""
    codec: LatentCodec
    """Frames to latents and back."""
    image_encoder: ImageEncoder
    """Sums up the picture."""
    perception: Perception
    """Sees people."""


def align_subjects(
    subjects: Sequence[Subject], options: AnimationOptions, aligner: PoseAligner | None
) -> list[AlignedPose]:
    """Move each person's driving poses into the picture; errors as in `align_clip`.

    Args:
        subjects: The people.
        options: Which method.
        aligner: For the learned one.
    """
    method = chosen_method(options, aligner)
    return [
        align_clip(
            method,
            reference.pose,
            motion.posed(),
            aligner=aligner,
            scope=options.alignment_scope,
        )
        for reference, motion in subjects
    ]


def chosen_method(options: AnimationOptions, aligner: PoseAligner | None) -> AlignmentMethod:
    """Return the alignment method: the chosen one, or the best that the weights allow."""
    return options.alignment or ("learned" if aligner is not None else "procrustes")


class AnimationRun:
    """One animation in progress."""

    def __init__(
        self,
        parts: AnimationParts,
        subjects: Sequence[Subject],
        options: AnimationOptions,
        on_progress: OnProgress | None,
        on_preview: OnPreview | None = None,
    ) -> None:
        """Prepare a run.

        Args:
            parts: The networks.
            subjects: The people, the main one first; their references share one picture.
            options: Seed and strength.
            on_progress: Told after each step and between Adam steps; raising ends the animation.
            on_preview: Gets the previews that the options ask for.

        Raises:
            ConfigError: The people's motions are not equally long.
        """
        lengths = {len(motion.keypoints) for _, motion in subjects}
        if len(lengths) != 1:
            raise ConfigError(
                f"Expected motions of one length for all people, got {sorted(lengths)} frames."
            )
        self._parts = parts
        self._subjects = subjects
        self._options = options
        self._on_progress = on_progress
        self._on_preview = on_preview
        self._sampler = sampler_settings(parts.animator.config, options)
        self._optimizer: FaceOptimizer | None = None
        self._seams: tuple[Seam, ...] = ()
        self._step = 0

    def animate(self) -> Animation:
        """Do it."""
        self._tell("align", 0)
        poses = align_subjects(self._subjects, self._options, self._parts.aligner)
        generator = torch.Generator().manual_seed(self._options.seed)
        conditioning = self.conditioning(poses, generator)
        pose_images = to_uint8(conditioning.pose_images[0])
        self._optimizer = self._make_optimizer(poses)
        latents = sample(
            self._parts.animator,
            conditioning,
            len(pose_images),
            self._sampler,
            functools.partial(torch.randn, generator=generator),
            self._optimizer,
            self._after_step,
        )
        frames_uint8 = self._decode(latents[0])
        self._tell("decode", self._sampler.num_inference_steps + 1)
        main, *others = self._measure(frames_uint8, poses)
        self._tell("measure", self._sampler.num_inference_steps + 2)
        return Animation(
            frames_uint8=frames_uint8,
            pose_images=pose_images,
            keypoints=main.keypoints,
            keypoint_confidence=main.keypoint_confidence,
            alignment_report=main.alignment_report,
            identity_similarity=main.identity_similarity,
            face_optimization=tuple(self._optimizer.history) if self._optimizer else (),
            companions=tuple(others),
            seams=self._seams,
        )

    def _measure(
        self,
        frames_uint8: UInt8[np.ndarray, "frames height width 3"],
        poses: Sequence[AlignedPose],
    ) -> list[PersonResult]:
        return [
            PersonResult(
                keypoints=pose.keypoints,
                keypoint_confidence=pose.keypoint_confidence,
                alignment_report=pose.report,
                identity_similarity=measure_identity(
                    frames_uint8,
                    self._parts.perception,
                    reference.identity_embedding,
                    pose.keypoints,
                )
                if reference.identity.is_known
                else np.full(len(frames_uint8), np.nan, np.float32),
            )
            for (reference, _), pose in zip(self._subjects, poses, strict=True)
        ]

    def conditioning(
        self, poses: Sequence[AlignedPose], generator: torch.Generator
    ) -> Conditioning:
        """Return what the animator is told, where it works.

        Args:
            poses: Everybody's aligned poses.
            generator: Source of the reference's noise, on the CPU.
        """
        parts, main = self._parts, self._subjects[0][0]
        config = parts.animator.config
        latents = reference_latents(main, parts.codec, config.noise_aug_strength, generator)
        inputs = ReferenceInputs(
            latents=latents, image_embedding=main.image_embedding, identity=main.identity
        )
        people = [
            PosedPerson(reference=reference.pose, driven=pose.within(reference.pose))
            for (reference, _), pose in zip(self._subjects, poses, strict=True)
        ]
        conditioning = assemble_conditioning(config, inputs, people, parts.codec)
        return conditioning.to(device_of(parts.animator))

    def _make_optimizer(self, poses: Sequence[AlignedPose]) -> FaceOptimizer | None:
        config = face_settings(self._options)
        if config is None:
            return None
        perception = self._parts.perception
        embedder = perception.identity_embedder
        targets = []
        for (reference, _), pose in zip(self._subjects, poses, strict=True):
            if not reference.identity.is_known:
                continue
            landmarks, _ = landmarks_from_keypoints(
                pose.keypoints, pose.keypoint_confidence, embedder.template()
            )
            targets.append(
                FaceTarget(reference_embedding=reference.identity_embedding, landmarks=landmarks)
            )
        if not targets:
            return None
        return FaceOptimizer(
            self._parts.codec,
            embedder,
            targets,
            config,
            detector=perception.face_detector,
            on_iteration=lambda: self._tell("denoise", self._step),
        )

    def _after_step(
        self,
        denoised: Float[Tensor, "1 frames channels h w"],
        step: StepInfo,
        seams: tuple[Seam, ...],
    ) -> None:
        """Send a preview where one is due; the last step's seams are the result's."""
        self._seams = seams
        every, done = self._options.preview_every, step.step_index + 1
        if self._on_preview is not None and every and done % every == 0:
            self._on_preview(self._preview(denoised[0], done))
        self._tell("denoise", done)

    def _preview(
        self, latents: Float[Tensor, "frames channels h w"], step: int
    ) -> AnimationPreview:
        count = min(PREVIEW_FRAMES, len(latents))
        shown = np.linspace(0, len(latents) - 1, count).round().astype(int).tolist()
        return AnimationPreview(
            step=step,
            num_steps=self._sampler.num_inference_steps,
            frame_indices=tuple(shown),
            frames_uint8=self._decode(latents[shown]),
        )

    @torch.no_grad()
    def _decode(
        self, latents: Float[Tensor, "frames channels h w"]
    ) -> UInt8[np.ndarray, "frames height width 3"]:
        chunks = torch.split(latents, getattr(self._parts.codec, "decode_frames", DECODE_FRAMES))
        return np.concatenate([to_uint8(self._parts.codec.decode(chunk)) for chunk in chunks])

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
