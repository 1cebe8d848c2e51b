"""Carry out a job by parts: no animator, frames encoded one by one, the driving video's sound."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from animaray.models.animation.engine_choice import MADE_BY
from animaray.models.animation.engines import AnimatedFrames, DrivingFrames, PartsEngine
from animaray.models.parts.options import PartsOptions
from animaray.models.parts.pipeline import PartsPipeline
from animaray.platform.media.video import Mp4Writer
from animaray.serving.jobs.options import JobOptions
from animaray.serving.work.result_video import JobVideo, finish_video


@dataclass(frozen=True, kw_only=True, slots=True)
class PartsResult:
    """A finished job by parts."""

    mp4: bytes
    frames: AnimatedFrames
    """Sizes and facts; its frames are used up."""
    warnings: tuple[str, ...]


def animate_by_parts(
    picture: UInt8[np.ndarray, "height width 3"],
    video: JobVideo,
    driving: DrivingFrames,
    options: JobOptions,
    check: Callable[[str, int], None],
) -> PartsResult:
    """Move the photo; refusals are those of `animaray.models.parts.rules`.

    Args:
        picture: RGB.
        video: The driving video, for its sound.
        driving: Its frames.
        options: Of the job.
        check: Told the phase and the frames done; raising ends the job.
    """
    engine = PartsEngine(pipeline=_pipeline(), options=PartsOptions(mode=options.mode))
    made = engine.animate_frames(picture, driving, options.casting, check)

    def encode(path: Path) -> None:
        with Mp4Writer(path, made.fps) as writer:
            for number, frame in enumerate(made.frames):
                writer.add(frame, number / made.fps)

    mp4, warnings = finish_video(encode, video, duration_s=made.num_frames / made.fps)
    return PartsResult(mp4=mp4, frames=made, warnings=(*made.warnings, *warnings))


@cache
def _pipeline() -> PartsPipeline:
    """Open the networks at the first job by parts; later ones of this process find them open."""
    return PartsPipeline.load()


def parts_facts(made: AnimatedFrames) -> dict[str, object]:
    """Return what the statement of origin says about the engine."""
    return {"engine": made.engine, "made_by": MADE_BY[made.engine], **made.facts}
