"""What both engines ask of the files and the frame rate that `animaray animate` is given."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from animaray.platform.disk import check_folder
from animaray.platform.errors import UsageError
from animaray.platform.media.file_kind import is_pose_file

MIN_FRAMES = 2
"""A shorter driving motion is refused."""


def check_paths(
    pictures: Sequence[Path], driving: Path, out: Path, others: Sequence[Path | None]
) -> None:
    """Refuse what can be told from the paths alone.

    Args:
        pictures: Pictures to read.
        driving: Driving video or pose file.
        out: The mp4 to write.
        others: Other files or folders to write.

    Raises:
        UsageError: A file or folder is missing, or a name has another suffix.
    """
    for path in pictures:
        if not path.is_file():
            raise UsageError(f"There is no file {path}.")
    if not (driving.is_file() or is_pose_file(driving)):
        raise UsageError(f"There is no file {driving}.")
    if out.suffix.lower() != ".mp4":
        raise UsageError(f"The result is an mp4; --out must end in .mp4, got {out.name}.")
    for target in (out, *others):
        folder = None if target is None else target.absolute().parent
        if folder is None or target is None:
            continue
        if not folder.is_dir():
            raise UsageError(f"There is no folder {folder} for {target}.", fix="Make it first.")
        check_folder(target if target.is_dir() else folder, f"{target}")


def wanted_fps(wanted: str, source_fps: float | None, model_fps: float) -> float:
    """Return the frame rate that the user wants.

    Args:
        wanted: `source`, `model` or a number.
        source_fps: Of the driving motion, where it tells one.
        model_fps: What the animator was trained at.

    Raises:
        UsageError: It is not a rate, or the source's is not known.
    """
    if wanted == "model":
        return model_fps
    if wanted == "source":
        if source_fps is None or source_fps <= 0:
            raise UsageError(
                "The driving motion does not tell its frame rate.",
                fix="Add --fps with frames per second.",
            )
        return source_fps
    try:
        fps = float(wanted)
    except ValueError:
        fps = -1.0
    if not 0 < fps <= 240:
        raise UsageError(
            f"--fps takes `source`, `model` or a number up to 240, got `{wanted[:32]}`."
        )
    return fps


_DIFFUSION_OPTIONS = (
    "steps", "sampler", "guidance", "guidance_min", "guidance_max", "window_frames",
    "window_overlap", "window_rule", "alignment", "face_optimization", "identity", "no_face",
    "preview", "save_poses", "driving_size",
)  # fmt: skip


def refuse_diffusion_options(asked: Mapping[str, object], driving: Path) -> None:
    """Refuse options of the engine `diffusion` where a picture is moved by parts.

    Args:
        asked: All options by name.
        driving: The driving file.

    Raises:
        UsageError: One is given, or the motion comes without pictures.
    """
    if is_pose_file(driving):
        raise UsageError(
            "The engine `parts` needs a driving video: pose files hold no depth and no face.",
            fix="Give a video, or use --engine diffusion.",
        )
    given = [f"--{name.replace('_', '-')}" for name in _DIFFUSION_OPTIONS if asked[name]]
    given += ["--device cuda"] if asked["device"] == "cuda" else []
    if given:
        raise UsageError(
            f"{', '.join(given)}: of the engine `diffusion`, and this picture would be moved by"
            " parts.",
            fix="Leave it out, or add --engine diffusion.",
        )
