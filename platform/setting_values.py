"""Read one setting's value by its declared type, so that text stays text.

    --set policy=*            a str takes the text as it stands
    run_dir: 2024-11-30       so does an unquoted scalar of a YAML file
    --set optimizer.lr=1e-4   a number is read strictly, a list element by element

YAML alone would guess a type from the text: `2024-11-30` is a date to it, and `a #1` is `a`.
"""

import collections.abc
import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from animaray.platform.errors import ConfigError

SEE_SETTINGS = "See every setting with --print-config."

_NULLS = {"", "~", "null", "Null", "NULL"}
_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_LISTS = (tuple, list, collections.abc.Sequence)


class PlainText(str):
    """Text whose setting decides the type: after `--set key=`, or an unquoted YAML scalar."""

    __slots__ = ()


def read_value(hint: Any, value: object, key: str, origin: str) -> Any:  # noqa: ANN401 - a type
    """Return a value as its declared type wants it.

    Args:
        hint: The declared type: a number, text, path, Literal, list, dataclass or a union.
        value: Plain data, or `PlainText` to be read by the type.
        key: Dotted name of the setting, for the error message.
        origin: Where the value came from, for the error message.

    Raises:
        ConfigError: The value is of another type, or a key is unknown.
    """
    arms = _arms(hint)
    if type(None) in arms and (value is None or (_is_plain(value) and value == "null")):
        return None
    kinds = [arm for arm in arms if arm is not type(None)]
    failure: ConfigError | None = None
    # A str arm takes any text, so it comes last.
    for arm in sorted(kinds, key=lambda arm: arm is str):
        try:
            return _read_as(arm, value, key, origin)
        except ConfigError as error:
            inside = isinstance(value, (Mapping, list)) or typing.get_origin(arm) in _LISTS
            failure = error if inside or len(arms) == 1 else failure
    if failure is None:
        failure = _wrong(key, " or ".join(_spell(arm) for arm in arms), value, origin)
    raise failure


def load_plain(text: str) -> object:
    """Return a YAML document as mappings, lists, None, text and `PlainText`.

    Raises:
        yaml.YAMLError: The text is not YAML, or holds a key twice or an alias of itself.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        return None if node is None else _from_node(node, ())
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error


def dotted_keys(kind: object, prefix: str = "") -> Iterator[str]:
    """Yield the dotted name of every setting below a dataclass."""
    for name, hint in typing.get_type_hints(kind).items():
        group = _group_in(hint)
        if group is None:
            yield f"{prefix}{name}"
        else:
            yield from dotted_keys(group, f"{prefix}{name}.")


def _read_as(kind: Any, value: object, key: str, origin: str) -> Any:  # noqa: ANN401 - a type
    if dataclasses.is_dataclass(kind):
        return _read_group(kind, value, key, origin)
    if typing.get_origin(kind) in _LISTS:
        return _read_list(kind, value, key, origin)
    read = _read_choice if typing.get_origin(kind) is Literal else _READERS.get(kind)
    if read is None:
        raise ConfigError(f"Setting `{key}` cannot be given in {origin}.", fix=SEE_SETTINGS)
    found = read(kind, value)
    if found is None:
        raise _wrong(key, _spell(kind), value, origin)
    return found


def _read_group(kind: Any, value: object, key: str, origin: str) -> dict[str, Any]:  # noqa: ANN401
    hints = typing.get_type_hints(kind)
    prefix = f"{key}." if key else ""
    if not isinstance(value, Mapping):
        first = next(dotted_keys(kind, prefix))
        raise _wrong(key, f"a group of settings (such as `{first}`)", value, origin)
    for name in value:
        if name not in hints:
            raise ConfigError(
                f"Unknown setting `{prefix}{name}` in {origin}.{_nearest(kind, name, prefix)}",
                fix=SEE_SETTINGS,
            )
    return {
        name: read_value(hints[name], item, f"{prefix}{name}", origin)
        for name, item in value.items()
    }


def _read_list(kind: Any, value: object, key: str, origin: str) -> list[Any]:  # noqa: ANN401
    if _is_plain(value):
        try:
            value = load_plain(value) if value.startswith("[") else value
        except yaml.YAMLError:
            value = str(value)
    hints = typing.get_args(kind)
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise _wrong(key, _spell(kind), value, origin)
    if hints[-1] is Ellipsis or typing.get_origin(kind) is not tuple:
        hints = (hints[0],) * len(value)
    if len(hints) != len(value):
        raise _wrong(key, _spell(kind), list(value), origin)
    return [
        read_value(hint, item, f"{key}[{place}]", origin)
        for place, (hint, item) in enumerate(zip(hints, value, strict=True))
    ]


def _read_choice(kind: Any, value: object) -> object:  # noqa: ANN401 - a type
    for choice in typing.get_args(kind):
        if _is_plain(value) and str(choice) == value:
            return choice
        if type(choice) is type(value) and choice == value:
            return choice
    return None


def _read_text(kind: Any, value: object) -> str | None:  # noqa: ANN401 - a type
    # A null byte ends a path and is in no text that a user means.
    usable = isinstance(value, str) and "\0" not in value and (value != "" or kind is str)
    return str(value) if usable else None


def _read_bool(kind: Any, value: object) -> bool | None:  # noqa: ANN401 - a type
    del kind
    if _is_plain(value):
        return {"true": True, "false": False}.get(value.lower())
    return value if isinstance(value, bool) else None


def _read_number(kind: Any, value: object) -> int | float | None:  # noqa: ANN401 - a type
    if _is_plain(value):
        pattern = _INTEGER if kind is int else _NUMBER
        # Beyond 4300 digits Python refuses to read an integer, and no setting is so large.
        value = kind(value) if pattern.fullmatch(value) and len(value) < 400 else None
    if isinstance(value, bool) or not isinstance(value, (int, kind)):
        return None
    try:
        return kind(value) if math.isfinite(value) else None
    except OverflowError:
        return None


_READERS = {
    str: _read_text, Path: _read_text, bool: _read_bool, int: _read_number, float: _read_number,
}  # fmt: skip


def _from_node(node: yaml.Node, outside: tuple[int, ...]) -> Any:  # noqa: ANN401 - any data
    if id(node) in outside:
        raise yaml.YAMLError("an alias stands inside what it names")
    outside = (*outside, id(node))
    if isinstance(node, yaml.SequenceNode):
        return [_from_node(item, outside) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        names = [str(name.value) for name, _ in node.value]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise yaml.YAMLError(f"`{twice}` stands there twice")
        items = (_from_node(item, outside) for _, item in node.value)
        return dict(zip(names, items, strict=True))
    if not isinstance(node, yaml.ScalarNode) or node.style is not None:
        return str(node.value)
    return None if node.value in _NULLS else PlainText(node.value)


def _is_plain(value: object) -> typing.TypeGuard[PlainText]:
    return isinstance(value, PlainText)


def _arms(hint: Any) -> tuple[Any, ...]:  # noqa: ANN401 - a type
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return typing.get_args(hint)
    return (hint,)


def _group_in(hint: Any) -> Any:  # noqa: ANN401 - a type
    return next((arm for arm in _arms(hint) if dataclasses.is_dataclass(arm)), None)


def _nearest(kind: object, name: str, prefix: str) -> str:
    formerly: Mapping[str, str] = getattr(kind, "FORMERLY", {})
    if name in formerly:
        return f" It is called `{prefix}{formerly[name]}` now."
    keys = list(dotted_keys(kind, prefix))
    here = difflib.get_close_matches(name, typing.get_type_hints(kind), n=1)
    deeper = [key for key in keys if key.rpartition(".")[2] == name]
    near = [f"{prefix}{found}" for found in here] or deeper[:1]
    return f" Did you mean `{near[0]}`?" if near else ""


def _spell(kind: Any) -> str:  # noqa: ANN401 - a type
    words = {
        str: "text", Path: "a path", bool: "true or false", int: "a whole number",
        float: "a number", type(None): "null",
    }  # fmt: skip
    if kind in words:
        return words[kind]
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        return f"one of {', '.join(str(choice) for choice in arguments)}"
    if typing.get_origin(kind) in _LISTS:
        items = ", ".join(_spell(item) for item in arguments if item is not Ellipsis)
        return f"a list like [{items}{', ...' if Ellipsis in arguments else ''}]"
    return "a group of settings"


def _wrong(key: str, expected: str, value: object, origin: str) -> ConfigError:
    return ConfigError(
        f"Setting `{key}` must be {expected}, got {_quote(value)} ({origin}).", fix=SEE_SETTINGS
    )


def _quote(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
