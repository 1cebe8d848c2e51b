"""The parts engine: a photo that moves by its own pixels, without a generative network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from animaray.models.parts.body_mode import BodyPuppet
from animaray.models.parts.captions import captions_over
from animaray.models.parts.head_mode import HeadPuppet
from animaray.models.parts.landmarks import PersonLandmarks, TargetPose
from animaray.models.parts.matte import cut_out
from animaray.models.parts.options import MIN_LONG_SIDE_PX, Mode, PartsOptions
from animaray.models.parts.perception import PROFILE, PartsPerception, SeenClip
from animaray.models.parts.retarget import Retargeter
from animaray.models.parts.rules import (
    ReferenceVerdict,
    judge_driving,
    judge_reference,
    motion_warnings,
)
from animaray.models.parts.smoothing import smooth_people
from animaray.models.subjects.choice import PersonChoice
from animaray.platform.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class PartsReference:
    """A photo that is ready to be moved."""

    picture_uint8: UInt8[np.ndarray, "height width 3"]
    """At the working size; sides are even."""
    person: PersonLandmarks
    alpha: Float32[np.ndarray, "height width"]
    """The person's opacity."""
    captions: Bool[np.ndarray, "height width"]
    """Letters that lie over the person; they stay."""
    verdict: ReferenceVerdict
    num_people: int
    """People who could have been chosen."""


class PartsAnimation:
    """A photo and a motion, brought together; frames are made one by one.

    Args:
        people: The driver's landmarks, frame by frame.
        fps: Frames per second of the driver, and of the result.
    """

    def __init__(
        self,
        reference: PartsReference,
        people: Sequence[PersonLandmarks | None],
        fps: float,
    ) -> None:
        driving = judge_driving(reference.person, reference.verdict, people)
        self.mode: Mode = driving.mode
        self.fps = fps
        self.num_frames = len(people)
        self.height_px, self.width_px = reference.alpha.shape
        self._people = smooth_people(people, fps, driving.mode)
        self.retargeter = Retargeter(
            reference.person, self._people, uses_hips=driving.mode == "body"
        )
        photo = (reference.picture_uint8, reference.person, reference.alpha)
        moves_face = reference.verdict.moves_face
        self._puppet: BodyPuppet | HeadPuppet
        if driving.mode == "body":
            self._puppet = BodyPuppet(*photo, captions=reference.captions, moves_face=moves_face)
        else:
            self._puppet = HeadPuppet(*photo, moves_face=moves_face)
        warnings = list(reference.verdict.warnings)
        if driving.why_head is not None:
            warnings.append(f"Only head and shoulders move: {driving.why_head}.")
        self.warnings = (*warnings, *motion_warnings(self.retargeter, fps))
        """What the user should know."""

    def driver_poses(self) -> Iterator[PersonLandmarks]:
        """Yield the driver's smoothed landmarks; where nobody is seen, the last ones are held."""
        last = next(person for person in self._people if person is not None)
        for person in self._people:
            last = last if person is None else person
            yield last

    def render(self, target: TargetPose) -> UInt8[np.ndarray, "height width 3"]:
        """Return the photo in a pose.

        Args:
            target: Where the person shall be, pixels of the result.
        """
        return self._puppet.render(target)

    def frames(self) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        """Yield the frames one by one."""
        for driver in self.driver_poses():
            yield self.render(self.retargeter.target(driver))


class PartsPipeline:
    """Animate photos by parts; the counterpart of `AnimationPipeline`, on any CPU."""

    name = "parts"

    def __init__(self, perception: PartsPerception) -> None:
        self.perception = perception

    @classmethod
    def load(cls, profile: str = PROFILE, *, num_threads: int = 1) -> PartsPipeline:
        """Open the networks that see people; WeightsError names what is missing.

        Args:
            profile: Perception profile; only `permissive` gives what this engine needs.
            num_threads: CPU threads of each network.

        Raises:
            ConfigError: It is another profile.
        """
        if profile != PROFILE:
            raise ConfigError(
                f"The engine `parts` needs the profile {PROFILE} (33 body points, the face mesh and"
                f" the person's mask), got `{profile}`.",
                fix=f"Use --profile {PROFILE}, or --engine diffusion.",
            )
        return cls(PartsPerception.load(num_threads=num_threads))

    def prepare_reference(
        self,
        picture_uint8: UInt8[np.ndarray, "height width 3"],
        choices: Sequence[PersonChoice] = (),
        options: PartsOptions | None = None,
        *,
        option: str | None = None,
    ) -> PartsReference:
        """Find and cut out the person of a photo; the errors of `rules` say what does not work.

        Args:
            picture_uint8: RGB, upright, any size.
            choices: Whom to take; points in pixels of this picture.
            options: Size and mode; None takes the defaults.
            option: Option to ask for where several people are seen; None takes the largest.
        """
        options = options or PartsOptions()
        scale = working_scale(max(picture_uint8.shape[:2]), options.long_side_px)
        picture = scaled_picture(picture_uint8, scale)
        moved = [choice.scaled(scale) for choice in choices]
        seen = self.perception.see_reference(picture, moved, option=option)
        height, width = picture.shape[:2]
        verdict = judge_reference(seen.person, width, height, wants=options.mode)
        alpha = cut_out(picture, seen.person, seen.mask, self.perception.mask_person)
        lines = self.perception.read(picture) if verdict.mode == "body" else []
        captions = captions_over(lines, picture, alpha)
        return PartsReference(
            picture_uint8=picture,
            person=seen.person,
            alpha=alpha,
            captions=captions,
            verdict=verdict,
            num_people=seen.num_people,
        )

    def follow(
        self,
        frames_uint8: Iterable[UInt8[np.ndarray, "height width 3"]],
        choices: Sequence[PersonChoice] = (),
        *,
        option: str | None = None,
        on_frame: Callable[[int], None] | None = None,
    ) -> SeenClip:
        """Follow the driver through a video; see `PartsPerception.follow`."""
        return self.perception.follow(frames_uint8, choices, option=option, on_frame=on_frame)

    def animate(self, reference: PartsReference, driving: SeenClip, fps: float) -> PartsAnimation:
        """Bring photo and motion together; frames are made as `PartsAnimation.frames` is read.

        Args:
            fps: Of the driving frames.
        """
        return PartsAnimation(reference, driving.people, fps)


def working_scale(longest_px: int, wanted_px: int) -> float:
    """Return how much a photo is enlarged or reduced.

    Args:
        longest_px: Long side of the photo.
        wanted_px: Long side of the result; small photos are not enlarged beyond 512.
    """
    return min(wanted_px, max(longest_px, MIN_LONG_SIDE_PX)) / longest_px


def scaled_picture(
    picture: UInt8[np.ndarray, "height width 3"], scale: float
) -> UInt8[np.ndarray, "even_height even_width 3"]:
    """Return a picture at another size, with even sides."""
    height, width = (max(2, 2 * round(side * scale / 2)) for side in picture.shape[:2])
    if (height, width) == picture.shape[:2]:
        return np.ascontiguousarray(picture)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    scaled: UInt8[np.ndarray, "_ _ 3"] = cv2.resize(picture, (width, height), interpolation=method)
    return scaled
