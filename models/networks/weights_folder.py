"""One network on disk: config.json and diffusion_pytorch_model.safetensors (diffusers' habit)."""

import dataclasses
import json
import typing
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from animaray.platform.errors import WeightsError
from animaray.platform.storage import write_bytes_atomic, write_json_atomic
from animaray.platform.weights.whole_files import CONFIG_FILE, WEIGHTS_FILE, file_problem

Config = TypeVar("Config")


def save_config(file: Path, config: object) -> None:
    """Write a config dataclass as JSON, atomically."""
    write_json_atomic(file, dataclasses.asdict(config))  # type: ignore[call-overload]


def load_config(file: Path, kind: type[Config]) -> Config:
    """Read a config dataclass; its `OLD_NAMES`, if any, are names of older versions.

    Raises:
        WeightsError: The file is missing, not JSON, or holds unknown or wrong settings.
    """
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(
            f"Expected a weights folder with {file.name} at {file.parent}, but it cannot be read "
            f"({error.strerror}).",
            fix="Pass the folder that training wrote, or one of `animaray weights import`.",
        ) from error
    except json.JSONDecodeError as error:
        raise WeightsError(f"{file} is not valid JSON: {error}.") from error
    old_names: dict[str, str] = getattr(kind, "OLD_NAMES", {})
    data = {old_names.get(name, name): value for name, value in data.items()}
    try:
        config = TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        raise WeightsError(
            f"{file} is not a {kind.__name__}: {error.errors()[0]['msg']}."
        ) from error
    unknown = set(data) - {field.name for field in dataclasses.fields(typing.cast("type", kind))}
    if unknown:
        raise WeightsError(
            f"{file} has settings that this version does not know: {sorted(unknown)}.",
            fix="Update animaray, or retrain.",
        )
    return config


def save_network(folder: Path, config: object, network: nn.Module) -> None:
    """Write a network's config and weights, each file atomically."""
    save_config(folder / CONFIG_FILE, config)
    state = {
        name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()
    }
    write_bytes_atomic(folder / WEIGHTS_FILE, save(state, metadata={"format": "pt"}))


def load_weights(folder: Path, network: nn.Module) -> None:
    """Read a network's weights; every key must match.

    Raises:
        WeightsError: The file is missing or damaged, or is of another architecture.
    """
    file = folder / WEIGHTS_FILE
    try:
        state = load_file(file)
    except (OSError, SafetensorError) as error:
        problem = file_problem(file) if file.is_file() else None
        what = str(error) if problem is None else problem[1].rstrip(".")
        raise WeightsError(f"Cannot read the weights {file}: {what}.") from error
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise WeightsError(
            f"{file} does not fit {type(network).__name__}: {' '.join(lines[1:3]).strip()}",
            fix="Use the config.json that was saved with these weights.",
        ) from error
