"""Typed configurations: frozen dataclasses, files and dotted overrides, one fingerprint.

Precedence: option that the user typed > `--set` > `--config` file > recipe. An unknown key is an
error that names the nearest one.
"""

import dataclasses
import functools
import hashlib
import json
import os
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from animaray.platform.errors import ConfigError
from animaray.platform.json_text import json_text
from animaray.platform.setting_values import SEE_SETTINGS, PlainText, load_plain, read_value

Config = TypeVar("Config")

_adapter: Callable[[Any], Any] = functools.cache(TypeAdapter)  # building one takes 40 ms

SCHEMA_VERSION = 1
"""Form of what `--print-config` prints; it stands first in every JSON document of a command."""


def config_to_dict(config: Any) -> dict[str, Any]:  # noqa: ANN401 - any frozen dataclass
    """Return a configuration as plain nested data that JSON and YAML can hold.

    Raises:
        ConfigError: The value is not a dataclass.
    """
    if not dataclasses.is_dataclass(config):
        raise ConfigError(f"Expected a configuration dataclass, got {type(config).__name__}.")
    data: dict[str, Any] = _adapter(type(config)).dump_python(config, mode="json")
    return data


def config_from_dict(kind: type[Config], data: Mapping[str, Any], origin: str = "data") -> Config:
    """Build a configuration from nested data; unknown keys and wrong types are refused.

    Args:
        kind: The dataclass to build.
        data: Nested mappings as `config_to_dict` or `read_settings_file` returns them.
        origin: Where the data came from, for the error message.

    Raises:
        ConfigError: A key is unknown or missing, or a value has the wrong type or range.
    """
    settings = read_value(kind, data, "", origin)
    try:
        built: Config = _adapter(kind).validate_python(settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or kind.__name__
        if first["type"] == "missing":
            raise ConfigError(f"Setting `{where}` is needed; {origin} lacks it.") from error
        raise ConfigError(
            f"Setting `{where}` in {origin} is wrong: {first['msg']} (got {first['input']!r}).",
            fix=SEE_SETTINGS,
        ) from error
    except OSError as error:
        raise ConfigError(f"A path in {origin} cannot be looked up: {error.strerror}.") from error
    return built


@overload
def resolve_config(
    recipe: type[Config],
    *,
    file: Path | None = ...,
    overrides: Sequence[str] = ...,
    typed: Mapping[str, object] | None = ...,
) -> Config: ...
@overload
def resolve_config(
    recipe: Config,
    *,
    file: Path | None = ...,
    overrides: Sequence[str] = ...,
    typed: Mapping[str, object] | None = ...,
) -> Config: ...
def resolve_config(
    recipe: Any,
    *,
    file: Path | None = None,
    overrides: Sequence[str] = (),
    typed: Mapping[str, object] | None = None,
) -> Any:
    """Return the recipe with a file, `key.sub=value` overrides and typed options on top.

    Args:
        recipe: The full default configuration; or its class, where some settings have no default
            and must come from the user.
        file: YAML or JSON file holding any subset of the settings, as `--print-config` prints
            them, or None.
        overrides: Assignments with dotted keys; the text is read by the setting's type.
        typed: Values of the options that the user typed, by dotted key; they are never parsed.
            None means that the option was not typed.

    Raises:
        ConfigError: The file is not readable, an override is malformed, a key is unknown, or a
            value is of the wrong type or out of range.
    """
    kind = recipe if isinstance(recipe, type) else type(recipe)
    data = _defaults(kind) if isinstance(recipe, type) else config_to_dict(recipe)
    if file is not None:
        settings = _without_version(kind, read_settings_file(file), file)
        _merge(data, read_value(kind, settings, "", str(file)))
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise ConfigError(f"Expected `key=value`, got `{override}`.")
        change = _nested(key, PlainText(text))
        _merge(data, read_value(kind, change, "", f"--set {key}"))
    for key, value in (typed or {}).items():
        if value is not None:
            _merge(data, read_value(kind, _nested(key, _plain(value)), "", "the command line"))
    return config_from_dict(kind, data, "the configuration" if file is None else str(file))


def read_settings_file(file: Path) -> dict[str, Any]:
    """Return the settings of a YAML or JSON file; unquoted YAML scalars as `PlainText`.

    Raises:
        ConfigError: The file cannot be read, or holds no mapping.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
        loaded = _load(text)
    except OSError as error:
        raise ConfigError(f"Cannot read the config file {file}: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid YAML: {str(error).splitlines()[0]}.") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError(f"{file} must hold a mapping of settings, got {type(loaded).__name__}.")
    return loaded


def fingerprint(config: Any) -> str:  # noqa: ANN401 - any frozen dataclass
    """Return 16 hexadecimal digits that change when any setting changes."""
    return fingerprint_of_dict(config_to_dict(config))


def fingerprint_of_dict(data: Mapping[str, Any]) -> str:
    """Return the fingerprint of a configuration that is plain data."""
    text = json_text(data, sort_keys=True, compact=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _load(text: str) -> object:
    # What we print is JSON, and JSON is YAML only nearly: tabs and surrogate pairs differ.
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return load_plain(text)


def _without_version(kind: type, settings: dict[str, Any], file: Path) -> dict[str, Any]:
    if "schema_version" not in settings or "schema_version" in typing.get_type_hints(kind):
        return settings
    version = settings["schema_version"]
    if str(version) != str(SCHEMA_VERSION):
        raise ConfigError(
            f"{file} has schema_version {version}; this version reads {SCHEMA_VERSION}.",
            fix="Take that line out to have each setting checked.",
        )
    return {key: value for key, value in settings.items() if key != "schema_version"}


def _defaults(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    data = {}
    for field in dataclasses.fields(kind):
        # what pydantic's Field says stands in the default
        said: Any = field.default if isinstance(field.default, FieldInfo) else field
        if callable(said.default_factory):
            value = said.default_factory()
        elif said.default is dataclasses.MISSING or said.default is PydanticUndefined:
            continue
        else:
            value = said.default
        data[field.name] = _adapter(hints[field.name]).dump_python(value, mode="json")
    return data


def _nested(key: str, value: object) -> dict[str, Any]:
    *parents, leaf = key.split(".")
    nested: dict[str, Any] = {leaf: value}
    for parent in reversed(parents):
        nested = {parent: nested}
    return nested


def _plain(value: object) -> object:
    """Return an option's value as the plain data that settings are merged as."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _merge(target: dict[str, Any], change: Mapping[str, Any]) -> None:
    for key, value in change.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = value
