"""Put an animation's mp4 in its place: with the driving video's sound and a statement of origin."""

import importlib.metadata
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from animaray.cli.output import print_hint
from animaray.models.animation.options import MADE_BY, EngineName
from animaray.platform.disk import disk_errors
from animaray.platform.media.video import VideoInfo, add_sound_in_child
from animaray.platform.provenance import append_provenance
from animaray.platform.removal import remove
from animaray.platform.storage import sha256_file


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundSource:
    """Where a result's sound comes from."""

    video: Path
    """The driving video."""
    info: VideoInfo
    """What is known of it."""
    duration_s: float
    """Length of the result."""


def sound_words(*, has_sound: bool) -> str:
    """Return what a plan says of the result's sound."""
    return "the driving video's sound" if has_sound else "no sound"


def write_result(
    out: Path,
    write_silent: Callable[[Path], None],
    facts: Mapping[str, Any],
    sound: SoundSource | None,
) -> None:
    """Write the mp4, which is complete or absent.

    Args:
        out: The mp4 to write.
        write_silent: Writes the pictures to a new file.
        facts: JSON values of the statement of origin.
        sound: None leaves the result without sound.
    """
    out = out.absolute()
    with _replacing(out) as folder:
        finished, with_sound = folder / "silent.mp4", folder / "finished.mp4"
        write_silent(finished)
        if sound is not None:
            report = add_sound_in_child(
                finished, sound.video, with_sound, info=sound.info, duration_s=sound.duration_s
            )
            finished = with_sound if report.is_kept else finished
            if report.warning is not None:
                print_hint(f"note       {report.warning}")
        append_provenance(finished, str(facts["generator"]), facts)
        finished.replace(out)


def origin_facts(
    engine: EngineName, image: Path, driving: Path, details: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the statement that a result was made by a machine, and how.

    Args:
        engine: What animated.
        image: Reference picture.
        driving: Driving video or pose file; a folder of them has no digest.
        details: What else is to be told.
    """
    facts = {
        "generator": f"animaray {importlib.metadata.version('animaray')}",
        "is_generated": True,
        "engine": engine,
        "made_by": MADE_BY[engine],
        **details,
        "reference_image_sha256": sha256_file(image),
    }
    return {**facts, "driving_video_sha256": sha256_file(driving)} if driving.is_file() else facts


@contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """Yield a folder beside the result for files on the way to it; nothing of it stays."""
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    is_written = False
    try:
        with disk_errors(out.parent):
            yield folder
        is_written = True
    finally:
        remove(folder, "the result is in its place, or was given up")
        if not is_written:
            print_hint(f"{out.name} was not written.")
