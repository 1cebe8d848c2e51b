"""Carry out a job by parts: no animator, frames encoded one by one, the driving video's sound."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from animaray.models.engine_choice import MADE_BY, PartsOptions
from animaray.models.engines import AnimatedFrames, DrivingFrames, PartsEngine
from animaray.models.parts.pipeline import PartsPipeline
from animaray.platform.disk import disk_errors
from animaray.platform.video import Mp4Writer, add_sound_in_child, probe_in_child
from animaray.serving.job_options import JobOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class PartsResult:
    """A finished job by parts."""

    mp4: bytes
    frames: AnimatedFrames
    """Sizes, warnings and facts; its frames are used up."""


def animate_by_parts(
    picture: UInt8[np.ndarray, "height width 3"],
    video: Path,
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
    engine = PartsEngine(pipeline=PartsPipeline.load(), options=PartsOptions(mode=options.mode))
    made = engine.animate_frames(picture, driving, options.casting, check)
    with (
        tempfile.TemporaryDirectory(prefix="animaray-parts-") as name,
        disk_errors(Path(name)),
    ):
        folder = Path(name)
        silent, finished = _encode(folder, made), folder / "finished.mp4"
        seconds = made.num_frames / made.fps
        if not add_sound_in_child(
            silent, video, probe_in_child(video), finished, duration_s=seconds
        ):
            finished = silent
        return PartsResult(mp4=finished.read_bytes(), frames=made)


def _encode(folder: Path, made: AnimatedFrames) -> Path:
    path = folder / "silent.mp4"
    with Mp4Writer(path, made.fps) as writer:
        for number, frame in enumerate(made.frames):
            writer.add(frame, number / made.fps)
    return path


def parts_facts(made: AnimatedFrames) -> dict[str, object]:
    """Return what the statement of origin says about the engine."""
    return {"engine": made.engine, "made_by": MADE_BY[made.engine], **made.facts}
