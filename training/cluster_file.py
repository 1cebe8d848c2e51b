"""Check a Ray cluster file: Ray's own schema, then what this project expects of it."""

import copy
from pathlib import Path
from typing import Any

import yaml

from animaray.platform.errors import ConfigError


def lint_cluster_file(path: Path) -> list[str]:
    """Return warnings about a cluster file that Ray accepts.

    Args:
        path: YAML file for `ray up`.

    Raises:
        ConfigError: The file is missing, is not YAML, or Ray's schema refuses it.
    """
    config = _read(path)
    _validate_with_ray(path, config)
    warnings = []
    head = str(config.get("head_node_type", ""))
    node_types: dict[str, dict[str, Any]] = config.get("available_node_types", {})
    resources: dict[str, Any] = node_types.get(head, {}).get("resources", {})
    if resources.get("CPU") != 0:
        warnings.append(
            f"the head type `{head}` should have resources CPU: 0, so no work runs there"
        )
    if resources.get("GPU", 0):
        warnings.append(f"the head type `{head}` has GPUs; they would cost money without work")
    warnings += [
        f"node type `{name}` has no max_workers: its number is not limited"
        for name, kind in node_types.items()
        if name != head and "max_workers" not in kind
    ]
    if not config.get("idle_timeout_minutes"):
        warnings.append("idle_timeout_minutes is missing: idle machines would stay")
    warnings += _image_warnings(config)
    text = path.read_text(encoding="utf-8")
    if "--dashboard-host=0.0.0.0" in text or "--dashboard-host 0.0.0.0" in text:
        warnings.append("the dashboard is open to every address: it can run any code")
    return warnings


def _read(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"Cannot read the cluster file {path}: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {str(error).splitlines()[0]}.") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{path} must hold a mapping, got {type(config).__name__}.")
    return config


def _validate_with_ray(path: Path, config: dict[str, Any]) -> None:
    import jsonschema  # type: ignore[import-untyped]
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        validate_config(prepare_config(copy.deepcopy(config)))
    except jsonschema.ValidationError as error:
        where = ".".join(str(part) for part in error.absolute_path) or "the top level"
        raise ConfigError(f"Ray refuses {path} at {where}: {error.message}") from error
    except (ValueError, KeyError, RuntimeError) as error:
        raise ConfigError(f"Ray refuses {path}: {error}") from error


def _image_warnings(config: dict[str, Any]) -> list[str]:
    image = str(config.get("docker", {}).get("image", ""))
    if image and ":" not in image.rsplit("/", 1)[-1]:
        return [f"the image {image} has no tag: machines may start with different versions"]
    if image.endswith(":latest"):
        return [f"the image {image} is not pinned: machines may start with different versions"]
    return []
