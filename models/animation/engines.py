"""The two ways to animate a picture behind one interface: by parts, and by diffusion.

`parts` moves the photo's own pixels and needs no trained animator; `diffusion` is the published
method and needs weights. What made a result stands in its metadata.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from animaray.models.animation.options import PHOTO_PROFILE, EngineName, choose_engine
from animaray.models.parts.options import PartsOptions
from animaray.models.parts.pipeline import PartsPipeline
from animaray.models.subjects.choice import Pairing
from animaray.platform.errors import ConfigError, UsageError

if TYPE_CHECKING:  # torch is loaded only where diffusion is chosen
    from animaray.models.animation.pipeline import AnimationOptions, AnimationPipeline

OnDone = Callable[[str, int], None]
"""Told the phase and how many frames or steps of it are done; raising ends the work."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnimatedFrames:
    """A result that is made while its frames are read, once."""

    engine: EngineName
    width_px: int
    height_px: int
    num_frames: int
    fps: float
    frames: Iterator[UInt8[np.ndarray, "height width 3"]]
    """RGB, one by one."""
    warnings: tuple[str, ...]
    """What the user should know."""
    facts: dict[str, Any]
    """JSON values about how it was made."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DrivingFrames:
    """The driving video as an engine takes it."""

    frames_uint8: Iterable[UInt8[np.ndarray, "height width 3"]]
    """RGB at `fps`; read once."""
    fps: float
    scale: float = 1.0
    """Their size in sizes of the original, in whose pixels people are chosen."""


@runtime_checkable
class AnimationEngine(Protocol):
    """Animates the person of a picture with the motion of a video."""

    @property
    def name(self) -> EngineName:
        """Which engine it is."""
        ...

    def animate_frames(
        self,
        picture_uint8: UInt8[np.ndarray, "height width 3"],
        driving: DrivingFrames,
        pairing: Pairing | None = None,
        on_done: OnDone | None = None,
    ) -> AnimatedFrames:
        """Look at both, refuse what does not work, and return the frames to come."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class PartsEngine:
    """The engine `parts`: frames are made one by one, in memory that does not grow."""

    pipeline: PartsPipeline
    options: PartsOptions = field(default_factory=PartsOptions)
    asks: tuple[str, str] | None = None
    """Options to name where a choice among several people is missing, for picture and video; None
    takes the largest silently."""

    @property
    def name(self) -> EngineName:
        """Which engine it is."""
        return "parts"

    def animate_frames(
        self,
        picture_uint8: UInt8[np.ndarray, "height width 3"],
        driving: DrivingFrames,
        pairing: Pairing | None = None,
        on_done: OnDone | None = None,
    ) -> AnimatedFrames:
        """Prepare the photo, follow the driver, and return the frames to come."""
        pairing = pairing or Pairing()
        one_person_only(pairing)
        of_picture, of_video = self.asks or (None, None)
        reference = self.pipeline.prepare_reference(
            picture_uint8,
            pairing.reference,
            self.options,
            option=of_picture,
        )
        clip = self.pipeline.follow(
            driving.frames_uint8,
            [choice.scaled(driving.scale) for choice in pairing.driving],
            option=of_video,
            on_frame=None if on_done is None else (lambda done: on_done("follow", done)),
        )
        animation = self.pipeline.animate(reference, clip, driving.fps)

        def frames() -> Iterator[UInt8[np.ndarray, "height width 3"]]:
            for number, frame in enumerate(animation.frames(), start=1):
                yield frame
                if on_done is not None:
                    on_done("render", number)

        return AnimatedFrames(
            engine="parts",
            width_px=animation.width_px,
            height_px=animation.height_px,
            num_frames=animation.num_frames,
            fps=driving.fps,
            frames=frames(),
            warnings=(*_crowd_warnings(reference.num_people, clip.num_people, pairing),
                      *_missing_warnings(clip.num_missing, animation.num_frames),
                      *animation.warnings),
            facts={
                "mode": animation.mode,
                "match": round(animation.retargeter.match, 3),
                "num_frames_without_driver": clip.num_missing,
            },
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class DiffusionEngine:
    """The engine `diffusion`: all frames are denoised together before the first one comes out."""

    pipeline: AnimationPipeline
    options: AnimationOptions

    @property
    def name(self) -> EngineName:
        """Which engine it is."""
        return "diffusion"

    def animate_frames(
        self,
        picture_uint8: UInt8[np.ndarray, "height width 3"],
        driving: DrivingFrames,
        pairing: Pairing | None = None,
        on_done: OnDone | None = None,
    ) -> AnimatedFrames:
        """Prepare the people, follow the drivers, denoise, and return the frames."""
        from animaray.models.subjects.pairing import pair_people

        pairing = pairing or Pairing()
        references = self.pipeline.prepare_references(
            picture_uint8, pairing.reference, no_face=self.options.no_face
        )
        people = self.pipeline.follow_people(
            driving.frames_uint8,
            None if on_done is None else (lambda done: on_done("follow", done)),
        )
        choices = [choice.scaled(driving.scale) for choice in pairing.driving]
        subjects = pair_people(references, people.motions(choices), pairing)
        animation = self.pipeline.animate(
            *subjects[0],
            self.options,
            on_progress=None
            if on_done is None
            else (lambda progress: on_done(progress.phase, progress.step)),
            companions=subjects[1:],
        )
        num_frames, height, width = animation.frames_uint8.shape[:3]
        return AnimatedFrames(
            engine="diffusion",
            width_px=width,
            height_px=height,
            num_frames=num_frames,
            fps=driving.fps,
            frames=iter(animation.frames_uint8),
            warnings=(),
            facts=animation.summary(),
        )


def load_engine(
    engine: str = "auto",
    *,
    weights: Path | str | None = None,
    profile: str = PHOTO_PROFILE,
    options: AnimationOptions | PartsOptions | None = None,
) -> AnimationEngine:
    """Load an engine; WeightsError names files that are missing and the command that gets them.

    Args:
        engine: `parts`, `diffusion`, or `auto`: diffusion where weights are given.
        weights: Weights folder of the animator; for diffusion, None takes the small bundled one.
        profile: Perception profile of photos.
        options: Of the chosen engine.

    Raises:
        ConfigError: The options are the other engine's.
    """
    name = choose_engine(engine, has_weights=weights is not None, profile=profile)
    if name == "parts":
        if not isinstance(options, PartsOptions | None):
            raise ConfigError("The engine `parts` takes PartsOptions, got AnimationOptions.")
        return PartsEngine(pipeline=PartsPipeline.load(profile), options=options or PartsOptions())
    from animaray.models.animation.pipeline import AnimationOptions, AnimationPipeline
    from animaray.platform.weights.store import BUNDLED_ANIMATOR, resolve_weights

    if not isinstance(options, AnimationOptions | None):
        raise ConfigError("The engine `diffusion` takes AnimationOptions, got PartsOptions.")
    pipeline = AnimationPipeline.from_pretrained(weights or resolve_weights(BUNDLED_ANIMATOR))
    return DiffusionEngine(pipeline=pipeline, options=options or AnimationOptions())


def one_person_only(pairing: Pairing) -> None:
    """Refuse people whom the engine `parts` cannot play.

    Raises:
        UsageError: Several people are chosen.
    """
    if pairing.is_all or max(len(pairing.driving), len(pairing.reference)) > 1:
        raise UsageError(
            "The engine `parts` moves one person of a picture.",
            fix="Choose one person, or use --engine diffusion.",
        )


def _crowd_warnings(of_picture: int, of_video: int, pairing: Pairing) -> list[str]:
    warnings = []
    if of_picture > 1 and not pairing.reference:
        warnings.append(f"The picture shows {of_picture} people; the largest one is moved.")
    if of_video > 1 and not pairing.driving:
        warnings.append(f"The driving video shows {of_video} people; the largest one is followed.")
    return warnings


def _missing_warnings(num_missing: int, num_frames: int) -> list[str]:
    if not num_missing:
        return []
    return [
        f"{num_missing} of {num_frames} frames of the driving video show nobody; the pose before"
        " is held."
    ]
