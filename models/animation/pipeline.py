"""Picture and motion to frames: align, draw, condition, sample with face optimization, decode.

Several people may be animated in one picture: each has a reference pose, an identity and a motion
of their own. All poses are drawn; the network is told the first person's identity, since the model
has one face embedding per picture; face optimization works on each face towards its own identity.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from animaray.models.alignment.aligner import PoseAligner
from animaray.models.alignment.alignment import AlignedPose, align_clip
from animaray.models.alignment.methods import AlignmentMethod
from animaray.models.animation.conditioning import (
    PosedPerson,
    ReferenceInputs,
    assemble_conditioning,
)
from animaray.models.animation.memory import MemoryEstimate, estimate_memory
from animaray.models.animation.options import AnimationOptions
from animaray.models.animation.result import (
    Animation,
    AnimationPreview,
    AnimationProgress,
    OnPreview,
    OnProgress,
    PersonResult,
)
from animaray.models.animation.settings import default_sampler, face_settings, sampler_settings
from animaray.models.diffusion.sampler import sample
from animaray.models.diffusion.sampler_config import StepInfo
from animaray.models.diffusion.windows import Seam
from animaray.models.face.identity import measure_identity
from animaray.models.face.landmarks import landmarks_from_keypoints
from animaray.models.face.optimization import FaceOptimizer, FaceTarget
from animaray.models.frames import to_uint8
from animaray.models.networks.animator import Animator
from animaray.models.networks.conditioning import Conditioning
from animaray.models.networks.weights_folder import load_config, save_config
from animaray.models.perception.protocols import ImageEncoder, LatentCodec, Perception
from animaray.models.subjects.choice import PersonChoice
from animaray.models.subjects.encoding import device_of
from animaray.models.subjects.motion import Motion, PeopleInVideo, follow_people
from animaray.models.subjects.pairing import Subject
from animaray.models.subjects.reference import (
    Reference,
    ReferenceWish,
    prepare_references,
    reference_latents,
)
from animaray.platform.errors import ConfigError
from animaray.platform.weights.store import resolve_weights
from animaray.platform.weights.whole_files import PERCEPTION_FILE

__all__ = [
    "Animation",
    "AnimationOptions",
    "AnimationPipeline",
    "AnimationPreview",
    "AnimationProgress",
    "OnPreview",
    "OnProgress",
    "default_sampler",
]

ALIGNER_FOLDER = "aligner"
BUNDLED_ALIGNER = "generated/aligner"
"""Registry id of the aligner of weights folders that have none."""
DECODE_FRAMES = 8
"""Frames decoded at once, unless the codec says otherwise (`decode_frames`)."""
PREVIEW_FRAMES = 4
"""Frames of a preview, evenly over the clip."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PerceptionChoice:
    """Content of perception.json."""

    profile: str
    """Perception profile the weights were trained with."""


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
    def from_pretrained(
        cls, folder: Path | str, perception: Perception | None = None
    ) -> "AnimationPipeline":
        """Load a weights folder: the animator, aligner/ and perception.json's profile.

        A folder without an aligner of its own gets the bundled one. Codec, image encoder and
        recogniser come from the folder where it has them (imported published weights), else from
        the profile. A missing or damaged file raises WeightsError, an unknown profile ConfigError.

        Args:
            folder: As `save_pretrained`, training or `animaray weights import` wrote it.
            perception: Sees people, instead of the profile's own.
        """
        from animaray.models.perception.profiles import (
            load_codec,
            load_image_encoder,
            load_perception,
        )

        folder = Path(folder)
        profile = load_config(folder / PERCEPTION_FILE, PerceptionChoice).profile
        own_aligner = folder / ALIGNER_FOLDER
        aligner = own_aligner if own_aligner.is_dir() else resolve_weights(BUNDLED_ALIGNER)
        animator = Animator.from_pretrained(folder)
        layout = animator.config.pose_layout
        return cls(
            animator,
            PoseAligner.from_pretrained(aligner),
            load_codec(profile, folder=folder),
            load_image_encoder(profile, folder=folder),
            perception or load_perception(profile, folder=folder, pose_layout=layout),
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

    def prepare_reference(
        self, picture_uint8: UInt8[np.ndarray, "height width 3"], *, no_face: bool = False
    ) -> Reference:
        """Prepare the largest person of a picture; FaceError or PoseError where there is none.

        Args:
            picture_uint8: RGB, upright, any size.
            no_face: Look for no face: the animator is told no identity.
        """
        return self.prepare_references(picture_uint8, no_face=no_face)[0]

    def prepare_references(
        self,
        picture_uint8: UInt8[np.ndarray, "height width 3"],
        choices: Sequence[PersonChoice] = (),
        *,
        option: str | None = None,
        no_face: bool = False,
    ) -> list[Reference]:
        """Prepare chosen people of a picture; see `subjects.reference`.

        Args:
            picture_uint8: RGB, upright, any size.
            choices: Whom to take; none takes the largest.
            option: Name of the option to ask for where several are seen; None never asks.
            no_face: Look for no face: the animator is told no identity.
        """
        return prepare_references(
            picture_uint8,
            self.animator.config,
            self.perception,
            self.image_encoder,
            ReferenceWish(choices=choices, option=option, no_face=no_face),
        )

    def estimate_motion(self, frames_uint8: UInt8[np.ndarray, "frames height width 3"]) -> Motion:
        """Follow the largest person through a driving video; PoseError where nobody is found.

        Args:
            frames_uint8: RGB frames at `fps`.
        """
        return self.follow_people(frames_uint8).motions()[0]

    def follow_people(
        self,
        frames_uint8: Iterable[UInt8[np.ndarray, "height width 3"]],
        on_frame: Callable[[int], None] | None = None,
    ) -> PeopleInVideo:
        """Follow everybody through a driving video; PoseError where nobody is found.

        Args:
            frames_uint8: RGB frames, as an array or one by one.
            on_frame: Told how many frames are done; raising ends it.
        """
        return follow_people(frames_uint8, self.perception.pose_estimator, on_frame)

    def alignment_method(self, options: AnimationOptions) -> AlignmentMethod:
        """Return the alignment method: the chosen one, or the best that the weights allow."""
        return options.alignment or ("learned" if self.aligner is not None else "procrustes")

    def align(self, subjects: Sequence[Subject], options: AnimationOptions) -> list[AlignedPose]:
        """Move each person's driving poses into the picture; errors as in `align_clip`."""
        return [
            align_clip(
                self.alignment_method(options),
                reference.pose,
                motion.posed(),
                aligner=self.aligner,
                scope=options.alignment_scope,
            )
            for reference, motion in subjects
        ]

    def estimate_memory(self, num_frames: int, options: AnimationOptions) -> MemoryEstimate:
        """Return what an animation of so many frames needs; the networks are counted too.

        Args:
            num_frames: Length of the driving motion.
            options: Windows and face optimization count.
        """
        config, faces = self.animator.config, face_settings(options)
        windows = replace(config, num_frames=sampler_settings(config, options).window_frames)
        mode = "off" if faces is None else faces.mode
        return estimate_memory(windows, num_frames, config.width_px, config.height_px, mode)

    def animate(
        self,
        reference: Reference,
        motion: Motion,
        options: AnimationOptions,
        on_progress: OnProgress | None = None,
        *,
        companions: Sequence[Subject] = (),
        on_preview: OnPreview | None = None,
    ) -> Animation:
        """Animate the reference.

        Args:
            options: Seed and strength.
            on_progress: Told after each step and between Adam steps; raising ends the animation.
            companions: Other people of the same picture, with their motions.
            on_preview: Gets the previews that the options ask for.

        Raises:
            ConfigError: The people's motions are not equally long.
        """
        subjects = [(reference, motion), *companions]
        lengths = {len(moving.keypoints) for _, moving in subjects}
        if len(lengths) != 1:
            raise ConfigError(
                f"Expected motions of one length for all people, got {sorted(lengths)} frames."
            )
        sampler = sampler_settings(self.animator.config, options)
        num_steps = sampler.num_inference_steps
        observer = _Observer(self.codec, num_steps, on_progress, on_preview, options.preview_every)

        # Move the driving poses into the picture.
        observer.tell("align", 0)
        poses = self.align(subjects, options)

        # Put together what the network is told: the picture, the identity, the drawn poses.
        generator = torch.Generator().manual_seed(options.seed)
        conditioning = self.conditioning(subjects, poses, generator)
        pose_images = to_uint8(conditioning.pose_images[0])

        # Denoise; face optimization corrects the estimate of each step.
        optimizer = self.face_optimizer(subjects, poses, options, observer.tell_again)
        observer.optimizer = optimizer
        randn = functools.partial(torch.randn, generator=generator)
        latents = sample(
            self.animator,
            conditioning,
            len(pose_images),
            sampler,
            randn,
            optimizer,
            observer.after_step,
        )

        # Decode, and compare each frame's face with the reference's.
        frames_uint8 = decode_frames(self.codec, latents[0])
        observer.tell("decode", num_steps + 1)
        main, *others = self._measure(subjects, poses, frames_uint8)
        observer.tell("measure", num_steps + 2)
        return Animation(
            frames_uint8=frames_uint8,
            pose_images=pose_images,
            keypoints=main.keypoints,
            keypoint_confidence=main.keypoint_confidence,
            alignment_report=main.alignment_report,
            identity_similarity=main.identity_similarity,
            face_optimization=tuple(optimizer.history) if optimizer else (),
            companions=tuple(others),
            seams=observer.seams,
        )

    def conditioning(
        self,
        subjects: Sequence[Subject],
        poses: Sequence[AlignedPose],
        generator: torch.Generator,
    ) -> Conditioning:
        """Return what the animator is told, where it works.

        Args:
            subjects: The people, the main one first.
            poses: Everybody's aligned poses.
            generator: Source of the reference's noise, on the CPU.
        """
        config, main = self.animator.config, subjects[0][0]
        latents = reference_latents(main, self.codec, config.noise_aug_strength, generator)
        inputs = ReferenceInputs(
            latents=latents, image_embedding=main.image_embedding, identity=main.identity
        )
        people = [
            PosedPerson(reference=reference.pose, driven=pose.within(reference.pose))
            for (reference, _), pose in zip(subjects, poses, strict=True)
        ]
        conditioning = assemble_conditioning(config, inputs, people, self.codec)
        return conditioning.to(device_of(self.animator))

    def face_optimizer(
        self,
        subjects: Sequence[Subject],
        poses: Sequence[AlignedPose],
        options: AnimationOptions,
        on_iteration: Callable[[], None] | None = None,
    ) -> FaceOptimizer | None:
        """Return what corrects the estimates; None where it is off or nobody's face is known.

        Args:
            subjects: The people.
            poses: Where their faces are to be.
            options: Whether and how.
            on_iteration: Called before each Adam step; raising ends the animation.
        """
        config, embedder = face_settings(options), self.perception.identity_embedder
        if config is None:
            return None
        targets = [
            FaceTarget(
                reference_embedding=reference.identity_embedding,
                landmarks=landmarks_from_keypoints(
                    pose.keypoints, pose.keypoint_confidence, embedder.template()
                )[0],
            )
            for (reference, _), pose in zip(subjects, poses, strict=True)
            if reference.identity.is_known
        ]
        if not targets:
            return None
        return FaceOptimizer(
            self.codec,
            embedder,
            targets,
            config,
            detector=self.perception.face_detector,
            on_iteration=on_iteration,
        )

    def _measure(
        self,
        subjects: Sequence[Subject],
        poses: Sequence[AlignedPose],
        frames_uint8: UInt8[np.ndarray, "frames height width 3"],
    ) -> list[PersonResult]:
        return [
            PersonResult(
                keypoints=pose.keypoints,
                keypoint_confidence=pose.keypoint_confidence,
                alignment_report=pose.report,
                identity_similarity=measure_identity(
                    frames_uint8, self.perception, reference.identity_embedding, pose.keypoints
                )
                if reference.identity.is_known
                else np.full(len(frames_uint8), np.nan, np.float32),
            )
            for (reference, _), pose in zip(subjects, poses, strict=True)
        ]


class _Observer:
    """Tells the caller how far an animation is, sends previews, and keeps the last seams."""

    def __init__(
        self,
        codec: LatentCodec,
        num_steps: int,
        on_progress: OnProgress | None,
        on_preview: OnPreview | None,
        preview_every: int,
    ) -> None:
        self._codec, self._num_steps = codec, num_steps
        self._on_progress, self._on_preview = on_progress, on_preview
        self._preview_every = preview_every
        self._done = 0
        self.optimizer: FaceOptimizer | None = None
        self.seams: tuple[Seam, ...] = ()

    def after_step(
        self,
        denoised: Float[Tensor, "1 frames channels h w"],
        step: StepInfo,
        seams: tuple[Seam, ...],
    ) -> None:
        """Send a preview where one is due; the last step's seams are the result's."""
        self.seams, done = seams, step.step_index + 1
        if self._on_preview is not None and self._preview_every and done % self._preview_every == 0:
            count = min(PREVIEW_FRAMES, denoised.shape[1])
            shown = np.linspace(0, denoised.shape[1] - 1, count).round().astype(int).tolist()
            self._on_preview(
                AnimationPreview(
                    step=done,
                    num_steps=self._num_steps,
                    frame_indices=tuple(shown),
                    frames_uint8=decode_frames(self._codec, denoised[0, shown]),
                )
            )
        self.tell("denoise", done)

    def tell_again(self) -> None:
        """Tell the step that is in progress, between Adam steps."""
        self.tell("denoise", self._done)

    def tell(self, phase: str, done: int) -> None:
        """Tell what is done, and how near face optimization came."""
        self._done = done
        if self._on_progress is None:
            return
        history = self.optimizer.history if self.optimizer is not None else []
        losses = history[-1].losses if history else ()
        self._on_progress(
            AnimationProgress(
                phase=phase,
                step=done,
                num_steps=self._num_steps + 2,
                identity_similarity=1 - losses[-1] if losses else None,
            )
        )


@torch.no_grad()
def decode_frames(
    codec: LatentCodec, latents: Float[Tensor, "frames channels h w"]
) -> UInt8[np.ndarray, "frames height width 3"]:
    """Decode a clip, a few frames at once."""
    chunks = torch.split(latents, getattr(codec, "decode_frames", DECODE_FRAMES))
    return np.concatenate([to_uint8(codec.decode(chunk)) for chunk in chunks])
