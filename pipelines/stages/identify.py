"""Give every input file an identity by its content.

Reads: path, root; uri where it is not the path below root, is_remote; file_bytes and modified_ns
where path is a copy of an object. Adds: uri, file_name,
file_bytes, modified_ns, sha256, source_id, input_id. Drops: nothing. A file that cannot be read
ends as unreadable.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from animaray.platform.errors import ConfigError
from animaray.platform.media.file_kind import VIDEO_SUFFIXES, is_video
from animaray.platform.storage import content_id, sha256_file

READS = ("path", "root")
ADDS = ("uri", "file_name", "file_bytes", "modified_ns", "sha256", "source_id", "input_id")
DROPS: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderContent:
    """The files of a folder."""

    videos: tuple[Path, ...]
    """What is to be curated, sorted by path."""
    others: tuple[Path, ...]
    """What is no video, neither by its name nor by its first bytes."""


def list_inputs(input_dir: Path, *, limit: int | None = None) -> list[Path]:
    """Return every video file below a folder, sorted by path; see `look_through`.

    Args:
        limit: Only the first so many; None for all.
    """
    return list(look_through(input_dir).videos[:limit])


def look_through(input_dir: Path) -> FolderContent:
    """Part the files below a folder into videos and others; hidden ones are left out.

    A video is known by its name or, under any other name, by its first bytes.

    Raises:
        ConfigError: The folder does not exist or holds no video.
    """
    if not input_dir.is_dir():
        raise ConfigError(f"Expected a folder of videos at {input_dir}; there is none.")
    paths = sorted(
        path
        for path in input_dir.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(input_dir).parts)
    )
    videos = [path for path in paths if is_video(path)]
    if not videos:
        found = f"none of its {len(paths)} files is one" if paths else "it is empty"
        raise ConfigError(
            f"Expected a folder with videos, got {input_dir}: {found}.",
            fix=f"Videos end in {' '.join(sorted(VIDEO_SUFFIXES))}, or start like one.",
        )
    known = set(videos)
    return FolderContent(
        videos=tuple(videos), others=tuple(path for path in paths if path not in known)
    )


def identify(row: dict[str, Any], max_bytes: int | None = None) -> dict[str, Any]:
    """Hash one file; its ids follow from its bytes (source) and its place (input).

    A file of more than max_bytes ends as unreadable without being read.
    """
    path, root = Path(row["path"]), Path(row["root"])
    uri = row.get("uri") or path.relative_to(root).as_posix()
    facts: dict[str, Any] = {
        "uri": uri, "file_name": _shown_name(uri), "file_bytes": None, "modified_ns": None,
        "sha256": None, "source_id": content_id("unread", uri),
        "input_id": content_id("input", uri),
    }  # fmt: skip
    try:
        size, modified_ns = row.get("file_bytes"), row.get("modified_ns")
        if size is None:
            status = path.stat()
            size, modified_ns = status.st_size, status.st_mtime_ns
        known = {"file_bytes": size, "modified_ns": modified_ns}
        if max_bytes is not None and size > max_bytes:
            detail = f"{facts['file_name']} is over the limit: {size} bytes."
            state = {"state": "unreadable", "reason": "too_large", "detail": detail}
            return {**row, **facts, **known, **state}
        digest = sha256_file(path)
    except OSError as error:
        detail = f"{uri} cannot be read: {error.strerror}"
        state = {"state": "unreadable", "reason": "missing", "detail": detail}
        return {**row, **facts, **state}
    facts |= {
        **known,
        "sha256": digest,
        "source_id": content_id("source", digest),
        # An address stays the same input whatever is found there.
        "input_id": content_id("input", uri, *(() if row.get("is_remote") else (digest,))),
    }
    return {**row, **facts}


def refuse_withdrawn(row: dict[str, Any], withdrawn: Collection[str]) -> dict[str, Any]:
    """End a source that was withdrawn from the dataset, so that nothing of it is stored again.

    The row that stays is that of the input, without what tells the footage.
    """
    if row["source_id"] not in withdrawn:
        return row
    told = ("sha256", "hashes", "motion_signature", "cut_times_s")
    return {
        **row,
        **dict.fromkeys(told),
        "source_id": content_id("unread", row["uri"]),
        "state": "unavailable",
        "reason": "withdrawn",
        "detail": f"{row['file_name']} was withdrawn from this dataset.",
    }


def _shown_name(uri: str) -> str:
    """Return what to call an input: `a.mp4` of a path, `table.parquet/3`, `site.com/watch?v=x`."""
    parts = uri.rsplit("/", 2)
    return parts[-1] if "." in parts[-1] else "/".join(parts[-2:])


def is_unchanged(path: Path, known: Mapping[tuple[int, int], str]) -> str | None:
    """Return the input id that a file has had, by its size and modification time, unread."""
    try:
        status = path.stat()
    except OSError:
        return None
    return known.get((status.st_size, status.st_mtime_ns))
