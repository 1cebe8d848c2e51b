"""Animate a reference picture with the motion of a driving video: every step in one class."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import nn

from animaray.models.alignment.aligner import PoseAligner
from animaray.models.alignment.alignment import AlignedPose
from animaray.models.animation.memory import MemoryEstimate, estimate_memory
from animaray.models.animation.options import AnimationOptions
from animaray.models.animation.result import (
    Animation,
    AnimationPreview,
    AnimationProgress,
    OnPreview,
    OnProgress,
)
from animaray.models.animation.run import (
    AnimationParts,
    AnimationRun,
    align_subjects,
)
from animaray.models.animation.settings import default_sampler, face_settings, sampler_settings
from animaray.models.networks.animator import Animator
from animaray.models.networks.weights_folder import load_config, save_config
from animaray.models.perception.protocols import ImageEncoder, LatentCodec, Perception
from animaray.models.subjects.choice import PersonChoice
from animaray.models.subjects.motion import Motion, PeopleInVideo, follow_people
from animaray.models.subjects.pairing import Subject
from animaray.models.subjects.reference import (
    Reference,
    ReferenceWish,
    embed_identity,
    prepare_references,
)
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
        """Prepare chosen people of a picture; see `models.reference.prepare_references`.

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

    def embed_identity(
        self, picture_uint8: UInt8[np.ndarray, "height width 3"]
    ) -> Float32[np.ndarray, " identity_dim"]:
        """Return the identity of the one face of a picture; FaceError where there is none."""
        return embed_identity(picture_uint8, self.perception)

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

    def align(self, subjects: Sequence[Subject], options: AnimationOptions) -> list[AlignedPose]:
        """Only align, as `animate` would: to look at before any denoising."""
        return align_subjects(subjects, options, self.aligner)

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
            reference: Whom.
            motion: How.
            options: Seed and strength.
            on_progress: Told after each step and between Adam steps; raising ends the animation.
            companions: Other people of the same picture, with their motions.
            on_preview: Gets the previews that the options ask for.
        """
        parts = AnimationParts(
            animator=self.animator,
            aligner=self.aligner,
            codec=self.codec,
            image_encoder=self.image_encoder,
            perception=self.perception,
        )
        subjects = [(reference, motion), *companions]
        return AnimationRun(parts, subjects, options, on_progress, on_preview).animate()
