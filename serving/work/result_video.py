"""A job's result as mp4 bytes: an engine's pictures with the driving video's sound."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from animaray.platform.disk import disk_errors
from animaray.platform.media.video import DecodeLimits, VideoInfo, add_sound_in_child


@dataclass(frozen=True, kw_only=True, slots=True)
class JobVideo:
    """The driving video of a job, for its sound."""

    path: Path
    """The upload."""
    info: VideoInfo
    """What is known of it."""
    has_audio: bool
    """Whether the client wants its sound."""
    limits: DecodeLimits
    """What it may cost."""


def finish_video(
    write_silent: Callable[[Path], None], driving: JobVideo, *, duration_s: float
) -> tuple[bytes, list[str]]:
    """Return the whole mp4, and what to warn the client of.

    Args:
        write_silent: Writes the pictures to a new file.
        driving: Where the sound comes from.
        duration_s: Length of the pictures.
    """
    with (
        tempfile.TemporaryDirectory(prefix="animaray-result-") as name,
        disk_errors(Path(name)),
    ):
        silent, finished = Path(name) / "silent.mp4", Path(name) / "finished.mp4"
        write_silent(silent)
        if not driving.has_audio:
            return silent.read_bytes(), []
        report = add_sound_in_child(
            silent,
            driving.path,
            finished,
            info=driving.info,
            duration_s=duration_s,
            limits=driving.limits,
        )
        warnings = [] if report.warning is None else [report.warning]
        return (finished if report.is_kept else silent).read_bytes(), warnings
