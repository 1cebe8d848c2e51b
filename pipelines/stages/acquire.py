"""Give every input file an identity by its content.

Reads: path, root; uri where it is not the path below root, is_remote. Adds: uri, file_name,
file_bytes, modified_ns, sha256, source_id, input_id. Drops: nothing. A file that cannot be read
ends as unreadable.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from animaray.platform.errors import ConfigError
from animaray.platform.storage import content_id, sha256_file

READS = ("path", "root")
ADDS = ("uri", "file_name", "file_bytes", "modified_ns", "sha256", "source_id", "input_id")
DROPS: tuple[str, ...] = ()

VIDEO_SUFFIXES = frozenset({
    ".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".gif", ".mpg", ".mpeg", ".ts", ".flv",
    ".3gp", ".wmv", ".ogv",
})  # fmt: skip


def list_inputs(input_dir: Path, *, limit: int | None = None) -> list[Path]:
    """Return every file below a folder that has a video suffix, sorted by path.

    Args:
        input_dir: Folder of videos; hidden files and folders are left out.
        limit: Only the first so many; None for all.

    Raises:
        ConfigError: The folder does not exist or holds no such file.
    """
    if not input_dir.is_dir():
        raise ConfigError(f"Expected a folder of videos at {input_dir}; there is none.")
    paths = sorted(
        path
        for path in input_dir.rglob("*")
        if path.suffix.lower() in VIDEO_SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(input_dir).parts)
    )
    if not paths:
        raise ConfigError(
            f"{input_dir} holds no file with a video suffix ({' '.join(sorted(VIDEO_SUFFIXES))})."
        )
    return paths[:limit]


def acquire(row: dict[str, Any], max_bytes: int | None = None) -> dict[str, Any]:
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
        status = path.stat()
        if max_bytes is not None and status.st_size > max_bytes:
            detail = f"{path.name} is over the limit: {status.st_size} bytes."
            state = {"state": "unreadable", "reason": "too_large", "detail": detail}
            known = {"file_bytes": status.st_size, "modified_ns": status.st_mtime_ns}
            return {**row, **facts, **known, **state}
        digest = sha256_file(path)
    except OSError as error:
        detail = f"{uri} cannot be read: {error.strerror}"
        state = {"state": "unreadable", "reason": "missing", "detail": detail}
        return {**row, **facts, **state}
    facts |= {
        "file_bytes": status.st_size,
        "modified_ns": status.st_mtime_ns,
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
