"""Files that are either complete or absent: temporary name, sync, rename, sync the folder."""

import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

from animaray.platform.disk import disk_errors, refuse_address
from animaray.platform.errors import DatasetError
from animaray.platform.json_text import json_text


def content_id(*parts: object) -> str:
    """Return 20 hexadecimal digits derived from the parts; equal parts give equal ids."""
    text = "\x1f".join(str(part) for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder, with its parents, that survives a power cut; nothing happens if it exists."""
    refuse_address(folder, "What is written")
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for path in reversed(missing):
            sync_folder(path.parent)


def write_bytes_atomic(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write a file so that readers and crashes see the old content or all of the new.

    A full or read-only disk raises DiskError.

    Args:
        path: The file; its folder is made.
        mode: Permissions, less the process' umask.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with disk_errors(path.parent):
        try:
            with open(
                temporary, "wb", opener=lambda name, flags: os.open(name, flags, mode)
            ) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


def write_json_atomic(path: Path, data: Any, *, mode: int = 0o666) -> None:  # noqa: ANN401 - any JSON value
    """Write indented JSON atomically, keys in insertion order; `mode` as in write_bytes_atomic."""
    write_bytes_atomic(path, (json_text(data, indent=2) + "\n").encode(), mode=mode)


def read_json(path: Path) -> Any:  # noqa: ANN401 - any JSON value
    """Read a JSON file.

    Raises:
        DatasetError: The file is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DatasetError(f"Cannot read {path}: {error.strerror}.") from error
    except json.JSONDecodeError as error:
        raise DatasetError(f"{path} is not valid JSON: {error}.") from error
