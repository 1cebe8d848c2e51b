"""Typed configurations: frozen dataclasses, YAML files and dotted overrides, one fingerprint.

Precedence: dotted override > file > recipe. An unknown key is an error that names the nearest one.
"""

import dataclasses
import difflib
import hashlib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from animaray.platform.errors import ConfigError
from animaray.platform.json_text import json_text

Config = TypeVar("Config")


def config_to_dict(config: Any) -> dict[str, Any]:  # noqa: ANN401 - any frozen dataclass
    """Return a configuration as plain nested data that JSON and YAML can hold.

    Raises:
        ConfigError: The value is not a dataclass.
    """
    if not dataclasses.is_dataclass(config):
        raise ConfigError(f"Expected a configuration dataclass, got {type(config).__name__}.")
    return TypeAdapter(type(config)).dump_python(config, mode="json")


def config_from_dict(kind: type[Config], data: Mapping[str, Any], origin: str = "data") -> Config:
    """Build a configuration from nested data; unknown keys and wrong types are refused.

    Args:
        kind: The dataclass to build.
        data: Nested mappings as `config_to_dict` returns them.
        origin: Where the data came from, for the error message.

    Raises:
        ConfigError: A key is unknown, or a value has the wrong type or range.
    """
    _refuse_unknown_keys(kind, data, origin, prefix="")
    try:
        return TypeAdapter(kind).validate_python(dict(data))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or kind.__name__
        raise ConfigError(
            f"Setting `{where}` in {origin} is wrong: {first['msg']} (got {first['input']!r}).",
            fix="See every setting with --print-config.",
        ) from error


def resolve_config(
    recipe: Config, *, file: Path | None = None, overrides: Sequence[str] = ()
) -> Config:
    """Return the recipe with a YAML file and `key.sub=value` overrides applied on top.

    Args:
        recipe: The full default configuration.
        file: YAML file holding any subset of the settings, or None.
        overrides: Assignments with dotted keys; values are read as YAML scalars or lists.

    Raises:
        ConfigError: The file is not readable YAML, an override is malformed, or a key is unknown.
    """
    data = config_to_dict(recipe)
    if file is not None:
        _merge(data, _read_yaml(file))
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise ConfigError(f"Expected `key=value`, got `{override}`.")
        nested: dict[str, Any] = {}
        cursor = nested
        *parents, leaf = key.split(".")
        for parent in parents:
            cursor = cursor.setdefault(parent, {})
        cursor[leaf] = yaml.safe_load(text)
        _refuse_unknown_keys(type(recipe), nested, f"--set {override}", prefix="")
        _merge(data, nested)
    origin = str(file) if file is not None else "the recipe with its overrides"
    return config_from_dict(type(recipe), data, origin)


def fingerprint(config: Any) -> str:  # noqa: ANN401 - any frozen dataclass
    """Return 16 hexadecimal digits that change when any setting changes."""
    text = json_text(config_to_dict(config), sort_keys=True, compact=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"Cannot read the config file {file}: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not valid YAML: {str(error).splitlines()[0]}.") from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"{file} must hold a mapping of settings, got {type(loaded).__name__}.")
    return loaded


def _merge(target: dict[str, Any], change: Mapping[str, Any]) -> None:
    for key, value in change.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = value


def _refuse_unknown_keys(
    kind: object, data: Mapping[str, Any], origin: str, *, prefix: str
) -> None:
    if not dataclasses.is_dataclass(kind):
        return
    hints = typing.get_type_hints(kind)
    for key, value in data.items():
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=1)
            hint = f" Did you mean `{prefix}{near[0]}`?" if near else ""
            raise ConfigError(
                f"Unknown setting `{prefix}{key}` in {origin}.{hint}",
                fix="See every setting with --print-config.",
            )
        if isinstance(value, Mapping):
            _refuse_unknown_keys(_dataclass_in(hints[key]), value, origin, prefix=f"{prefix}{key}.")


def _dataclass_in(hint: object) -> object:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return next((arm for arm in typing.get_args(hint) if dataclasses.is_dataclass(arm)), None)
    return hint
