"""A job's stored options as the worker uses them, and what to warn the client of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from animaray.models.animation.engine_choice import EngineName
from animaray.models.animation.pipeline import Animation, AnimationOptions
from animaray.models.parts.options import Mode
from animaray.models.subjects.choice import Casting, choices_of
from animaray.models.subjects.pairing import CastMember
from animaray.models.subjects.reference import check_face_sizes

MAX_OUT_OF_FRAME_SHARE = 0.1
"""Above this share of keypoints outside the picture a result carries a warning."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobOptions:
    """Options of one job, sorted by who needs them."""

    animation: AnimationOptions
    """For the pipeline."""
    casting: Casting
    """Who is animated, and who drives."""
    fps: str | float
    """`model`, `source` or frames per second."""
    engine: EngineName = "diffusion"
    """What animates."""
    mode: Mode | None = None
    """What the engine `parts` moves; None chooses."""
    has_audio: bool = True
    """Whether the driving video's sound is kept."""

    def fps_of(self, source_fps: float, model_fps: float) -> float:
        """Return the frame rate to read the driving video at, and to play the result at."""
        if self.fps == "model" or (self.fps == "source" and source_fps <= 0):
            return model_fps
        return source_fps if isinstance(self.fps, str) else float(self.fps)


def read_job_options(options: Mapping[str, Any]) -> JobOptions:
    """Sort stored options; they were checked when the job was accepted.

    Args:
        options: What `parse_options` returned, and the seed.
    """
    rest = dict(options)
    casting = Casting.parse(
        choices_of(rest.pop("person", None)), choices_of(rest.pop("reference_person", None))
    )
    # a server has weights: without a wish they are what it serves
    engine: EngineName = "parts" if rest.pop("engine", "auto") == "parts" else "diffusion"
    mode = rest.pop("mode", None)
    has_audio = rest.pop("audio", True)
    fps = rest.pop("fps", "model")
    if engine == "parts" and fps == "model":  # there is no model
        fps = "source"
    return JobOptions(
        animation=AnimationOptions(**rest),
        casting=casting,
        fps=fps,
        engine=engine,
        mode=mode,
        has_audio=has_audio,
    )


def find_warnings(
    cast: Sequence[CastMember], animation: Animation, casting: Casting | None = None
) -> list[str]:
    """Return what the client should know about a job that succeeded all the same.

    Args:
        cast: Who was animated, and how they moved.
        animation: The result.
        casting: How they were chosen; None: not at all.
    """
    warnings = check_face_sizes([reference for reference, _ in cast])
    (reference, motion), choices = cast[0], casting or Casting()
    if reference.num_persons > len(cast) and not choices.reference:
        warnings.append(
            f"The picture shows {reference.num_persons} people; the largest one is animated"
            " (option `reference_person` chooses)."
        )
    if motion.num_persons > len(cast) and not choices.driving:
        warnings.append(
            f"The driving video shows {motion.num_persons} people; the largest one is followed"
            " (option `person` chooses)."
        )
    if len(cast) > 1:
        warnings.append(
            f"{len(cast)} people are animated: the network is told the first one's identity, the"
            " others keep theirs by face optimization only."
        )
    num_filled = int(motion.is_filled.sum())
    if num_filled:
        warnings.append(
            f"{num_filled} of {len(motion.is_filled)} frames of the driving video show nobody;"
            " their pose is interpolated."
        )
    outside = animation.alignment_report.out_of_frame_share
    if outside > MAX_OUT_OF_FRAME_SHARE:
        warnings.append(
            f"{outside:.0%} of the driving keypoints fall outside the picture: the two do not show"
            " the same part of the body."
        )
    return warnings
