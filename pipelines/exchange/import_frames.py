"""Turn folders of pictures into videos that curation reads, such as those of the TikTok dataset.

    00001/images/0001.png ...    the TikTok dataset; masks/ and densepose/ beside are left alone
    00001/0001.png ...           or pictures directly in the folder

Each folder of pictures becomes one mp4 named after it. What happened to each is in import.json.

References:
    Jafarian and Park 2021, "Learning High Fidelity Depths of Dressed Humans by Watching Social
    Media Dance Videos" (the TikTok dataset: 30 frames a second).
"""

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from animaray.platform.errors import DatasetError, MediaError, RefusedError
from animaray.platform.media.video import Mp4Writer, read_picture
from animaray.platform.storage import write_json_atomic

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
_SIDE_FOLDERS = {"masks", "mask", "densepose", "poses", "faces", "depth"}
"""Folders beside the pictures that hold something else."""
MIN_FRAMES = 2


def find_sequences(root: Path) -> dict[str, list[Path]]:
    """Return the pictures of every sequence below a folder, in the order of their numbers.

    Raises:
        DatasetError: There is no such folder.
    """
    if not root.is_dir():
        raise DatasetError(f"There is no folder {root}.", reason="missing")
    found: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if path.suffix.lower() in _SUFFIXES and not _SIDE_FOLDERS & {p.lower() for p in parts}:
            folder = [part for part in parts[:-1] if part.lower() != "images"]
            found.setdefault("_".join(folder) or root.name, []).append(path)
    return {name: sorted(paths, key=_number) for name, paths in sorted(found.items())}


def import_frames(
    root: Path,
    out: Path,
    *,
    fps: float = 30.0,
    crf: int = 10,
    advance: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Write each sequence as an mp4; a bad one is reported and does not stop the others.

    Files that exist are kept, so the same call goes on where it stopped.

    Args:
        out: Folder of videos to write, for `animaray curate`.
        fps: Frame rate of the sequences.
        crf: Quality of x264; 10 hides no detail.
        advance: Told each sequence that is done.

    Raises:
        DatasetError: There is no picture below the folder.
    """
    sequences = find_sequences(root)
    if not sequences:
        raise DatasetError(
            f"There is no picture below {root}.",
            fix=f"Expected {', '.join(sorted(_SUFFIXES))} in one folder per sequence.",
            reason="empty",
        )
    out.mkdir(parents=True, exist_ok=True)
    results = []
    for name, paths in sequences.items():
        target = out / f"{name}.mp4"
        result: dict[str, Any] = {"sequence": name, "num_frames": len(paths), "file": target.name}
        try:
            if not target.is_file():
                _write(paths, target, fps, crf)
            result |= {"state": "written", "reason": None, "detail": None}
        except RefusedError as error:
            result |= {"file": None, "state": "failed", "reason": error.reason}
            result["detail"] = error.message
        results.append(result)
        advance(name)
    write_json_atomic(
        out / "import.json", {"source": str(root.resolve()), "fps": fps, "sequences": results}
    )
    return results


def _write(paths: list[Path], target: Path, fps: float, crf: int) -> None:
    if len(paths) < MIN_FRAMES:
        raise MediaError(f"It holds {len(paths)} picture.", reason="too_short")
    numbers = [_number(path)[0] for path in paths]
    gaps = [n for n, after in itertools.pairwise(numbers) if after != n + 1]
    if gaps and min(numbers) >= 0:
        raise MediaError(f"The picture after number {gaps[0]} is missing.", reason="gap")
    partial = target.with_suffix(".part.mp4")
    size: tuple[int, ...] | None = None
    try:
        with Mp4Writer(partial, fps, crf=crf) as writer:
            for index, path in enumerate(paths):
                frame = read_picture(path)
                size = size or frame.shape
                if frame.shape != size:
                    raise MediaError(
                        f"{path.name} has {frame.shape[1]}x{frame.shape[0]} pixels, the first "
                        f"one {size[1]}x{size[0]}.",
                        reason="sizes_differ",
                    )
                writer.add(frame, index / fps)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _number(path: Path) -> tuple[int, str]:
    """Return the last number of a file's name (-1 without one), and the name."""
    digits = re.findall(r"\d+", path.stem)
    return (int(digits[-1]) if digits else -1, path.name)
