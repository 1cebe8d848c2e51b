"""Look at a weights folder without loading it, so that a wrong one is refused before any start."""

import json
from pathlib import Path

from animaray.platform.errors import WeightsError

NETWORKS = ("unet", "pose_net", "face_encoder")
_CONFIG_FILE, _WEIGHTS_FILE = "config.json", "diffusion_pytorch_model.safetensors"
_POINTER = b"version https://git-lfs"


def check_weights_folder(folder: Path) -> None:
    """Check that a folder holds an animator: index, profile and all networks, none a pointer.

    Args:
        folder: What training wrote.

    Raises:
        WeightsError: Something is missing, not JSON, cut short or a Git-LFS pointer.
    """
    if not folder.is_dir():
        raise WeightsError(
            f"There is no weights folder {folder}.",
            fix="Pass the folder that training wrote, or pull one: animaray weights pull ID.",
        )
    names = ["model_index.json", "perception.json", *(f"{n}/{_CONFIG_FILE}" for n in NETWORKS)]
    for name in names:
        _check_json(folder / name)
    for name in NETWORKS:
        _check_safetensors(folder / name / _WEIGHTS_FILE)


def _check_json(file: Path) -> None:
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(
            f"{file.parent} is not a whole weights folder: {file.name} is missing.",
            fix="Pass the folder that training wrote (with model_index.json in it).",
        ) from error
    except ValueError as error:
        raise WeightsError(f"{file} is not JSON: {error}.", fix="Copy the folder anew.") from error


def _check_safetensors(file: Path) -> None:
    if not file.is_file():
        raise WeightsError(f"{file} is missing.", fix="Copy the weights folder anew.")
    num_bytes = file.stat().st_size
    with file.open("rb") as opened:
        head = opened.read(64)
        if head.startswith(_POINTER):
            raise WeightsError(
                f"{file} is a {num_bytes}-byte Git-LFS pointer, not the weights.",
                fix="Fetch the real file with `git lfs pull` or `animaray weights pull`.",
            )
        header_bytes = int.from_bytes(head[:8], "little")
        if num_bytes < 10 or header_bytes > num_bytes - 8 or head[8:9] != b"{":
            raise WeightsError(
                f"{file} is not a safetensors file.", fix="Copy the weights folder anew."
            )
        opened.seek(8)
        try:
            header = json.loads(opened.read(header_bytes))
            ends = [entry["data_offsets"][1] for key, entry in header.items() if key[:2] != "__"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise WeightsError(
                f"{file} has a damaged header.", fix="Copy the weights folder anew."
            ) from error
    if 8 + header_bytes + max(ends, default=0) != num_bytes:
        raise WeightsError(
            f"{file} is cut short: {8 + header_bytes + max(ends, default=0):,} bytes are"
            f" expected, {num_bytes:,} are there.",
            fix="Copy or download it anew.",
        )
