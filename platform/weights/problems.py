"""What can be wrong with a weights file, told without hashing it or reading more than its head."""

import json
import struct
from pathlib import Path

_POINTER_PREFIXES = (b"version https://git-lfs.github.com/spec", b"/annex/objects/")
_LONGEST_POINTER_BYTES = 1024


def file_problem(path: Path, *, expected_bytes: int | None = None) -> tuple[str, str] | None:
    """Return (reason, sentence) for what a look without hashing finds wrong with a file, or None.

    Args:
        path: Must exist.
        expected_bytes: Size that it must have; None takes any.
    """
    size = path.stat().st_size
    if size == 0:
        return "empty", f"{path} is empty (0 bytes)."
    if size <= _LONGEST_POINTER_BYTES:
        head = path.read_bytes()
        if any(head.startswith(prefix) for prefix in _POINTER_PREFIXES):
            return "pointer", f"{path} is a {size}-byte Git-LFS pointer, not the weights."
    if expected_bytes is not None and size != expected_bytes:
        return "size", f"{path} has {size:,} bytes, expected {expected_bytes:,}."
    if path.suffix == ".safetensors":
        return _safetensors_problem(path, size)
    return None


def _safetensors_problem(path: Path, size: int) -> tuple[str, str] | None:
    """Return why a safetensors file is not whole, from its header alone, or None."""
    broken = "damaged", f"{path} is not a readable safetensors file."
    if size < 8:
        return broken
    with path.open("rb") as file:
        (header_bytes,) = struct.unpack("<Q", file.read(8))
        if header_bytes > size - 8:
            return broken
        try:
            header = json.loads(file.read(header_bytes))
            rows = [row for name, row in header.items() if name != "__metadata__"]
            end = max((int(row["data_offsets"][1]) for row in rows), default=0)
        except (ValueError, TypeError, AttributeError, LookupError):
            return broken
    expected = 8 + header_bytes + end
    if size != expected:
        return "truncated", f"{path} has {size:,} bytes, its header says {expected:,}: cut off."
    return None
