"""Look at a weights folder without loading it, so that a wrong one is refused before any start."""

import json
from pathlib import Path

from animaray.platform.errors import WeightsError
from animaray.platform.weights.problems import file_problem

NETWORKS = ("unet", "pose_net", "face_encoder")
_CONFIG_FILE, _WEIGHTS_FILE = "config.json", "diffusion_pytorch_model.safetensors"


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
    problem = file_problem(file)
    if problem is not None:
        reason, sentence = problem
        way = "Fetch the real file with `git lfs pull`" if reason == "pointer" else "Copy it anew"
        raise WeightsError(sentence, fix=f"{way} or `animaray weights pull`.", reason=reason)
