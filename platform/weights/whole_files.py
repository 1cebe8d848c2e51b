"""Whether a weights file or folder is whole, told without torch, hashing or more than its head."""

import json
import struct
from pathlib import Path

from animaray.platform.errors import WeightsError

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
"""The two files of each network in a weights folder (diffusers' habit)."""
INDEX_FILE = "model_index.json"
PERCEPTION_FILE = "perception.json"
_NETWORKS = ("unet", "pose_net", "face_encoder")
_POINTER_PREFIXES = (b"version https://git-lfs.github.com/spec", b"/annex/objects/")
_LONGEST_POINTER_BYTES = 1024


def require_whole_folder(folder: Path) -> None:
    """Refuse a folder that does not hold a whole animator; else do nothing.

    Raises:
        WeightsError: Something is missing, not JSON, cut short or a Git-LFS pointer.
    """
    if not folder.is_dir():
        raise WeightsError(
            f"There is no weights folder {folder}.",
            fix="Pass the folder that training wrote, or pull one: animaray weights pull ID.",
        )
    configs = [f"{name}/{CONFIG_FILE}" for name in _NETWORKS]
    for file in [folder / name for name in (INDEX_FILE, PERCEPTION_FILE, *configs)]:
        try:
            json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise WeightsError(
                f"{file.parent} is not a whole weights folder: {file.name} is missing.",
                fix="Pass the folder that training wrote (with model_index.json in it).",
            ) from error
        except ValueError as error:
            raise WeightsError(
                f"{file} is not JSON: {error}.", fix="Copy the folder again."
            ) from error
    for file in [folder / name / WEIGHTS_FILE for name in _NETWORKS]:
        if not file.is_file():
            raise WeightsError(f"{file} is missing.", fix="Copy the weights folder again.")
        require_whole_file(file)


def require_whole_file(path: Path) -> None:
    """Refuse a file that is empty, cut off or only a pointer to the weights; else do nothing.

    Raises:
        WeightsError: It is; a file that is not there passes, and its reader says so.
    """
    problem = file_problem(path) if path.is_file() else None
    if problem is not None:
        reason, sentence = problem
        fixes = {"pointer": "Fetch the file itself: `git lfs pull` in its repository, or"}
        raise WeightsError(
            f"Expected a network's weights, and they cannot be read: {sentence}",
            fix=f"{fixes.get(reason, 'Copy it again, or fetch it:')} `animaray weights pull ID`"
            " (ids: `animaray weights list`).",
            reason=reason,
        )


def file_problem(path: Path, *, expected_bytes: int | None = None) -> tuple[str, str] | None:
    """Return (reason, sentence) for what a look without hashing finds wrong with a file, or None.

    Args:
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
