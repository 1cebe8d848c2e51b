"""Options of a command from the fields of a class: one writing for all who offer them."""

import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Annotated, Any, Literal, Union

import typer
from pydantic.fields import FieldInfo

from animaray.platform.errors import UsageError
from animaray.platform.options import fields_of, meaning_of


def with_options(
    *kinds: type,
    without: Collection[str] = (),
    defaults: Mapping[str, Any] | None = None,
    flags: Mapping[str, str] | None = None,
    panels: Mapping[str, str | None] | None = None,
    envvars: Mapping[str, str] | None = None,
    is_served: bool = False,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one option for each field of some classes.

    The command's parameter `options` becomes a dictionary of the fields that the user typed.

    Args:
        kinds: Classes of options, as of `platform.options`.
        without: Fields that the command does not offer.
        defaults: Values that count as typed where the user types none.
        flags: Names of options that are not their field's; a short one follows a space.
        panels: The panel of the help page for each field, in their order.
        envvars: Environment variables that stand for an option.
        is_served: Whether a server carries it out, whose defaults differ.
    """
    known = {name: field for kind in kinds for name, field in fields_of(kind).items()}
    panels = panels or {}
    names = {name: f"--{name.replace('_', '-')}" for name in known} | dict(flags or {})
    ordered = [*(name for name in panels if name in known), *known]
    offered = [name for name in dict.fromkeys(ordered) if name not in without]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**given: Any) -> None:  # noqa: ANN401 - options of any type
            typed = {name: given.pop(name) for name in offered}
            command(**given, options={name: v for name, v in typed.items() if v not in (None, [])})

        own = dict(inspect.signature(command, eval_str=True).parameters)
        del own["options"]
        parameters = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own.values()
        ]
        for name in offered:
            default = (defaults or {}).get(name)
            meaning, left_out = meaning_of(known[name])
            here, _, there = left_out.partition("; a server ")
            shown = f"the server {there}" if is_served and there else here
            settings = {
                "help": _with_flags(meaning, names),
                "rich_help_panel": panels.get(name),
                "show_default": _with_flags(shown, names) or _shown(known[name].default),
            }
            if name in (envvars or {}):
                settings["envvar"] = (envvars or {})[name]
            if default is not None:
                settings["show_default"] = True
            annotation = _option(names[name], known[name], settings)
            parameters.append(
                inspect.Parameter(
                    name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
                )
            )
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return decorate


def _option(flag: str, field: FieldInfo, settings: dict[str, Any]) -> Any:  # noqa: ANN401 - a type
    """Return the annotation that makes typer offer a field."""
    arms = dict(_arms(field.annotation))
    limits = [limit for arm in arms.values() for limit in arm] + field.metadata
    choices = [arm for arm in arms if getattr(arm, "__origin__", None) is Literal]
    words = [word for arm in choices for word in typing.get_args(arm)]
    kind: Any = next((arm for arm in arms if getattr(arm, "__origin__", None) is list), None)
    if kind is not None:
        pass
    elif words and float in arms:
        kind = str
        settings |= {"parser": _word_or_number(flag, words), "metavar": "|".join([*words, "N"])}
    elif words:
        kind = Literal[tuple(words)]
    elif tuple[int, int] in arms:
        kind = str
        settings |= {"parser": functools.partial(read_size, option=flag), "metavar": "WxH"}
    else:
        (kind,) = arms
        if kind is bool and field.default is True:
            flag = f"{flag}/--no-{flag.removeprefix('--')}"
        elif kind in (int, float):
            for name, bound in (("min", "ge"), ("max", "le")):
                settings[name] = next(
                    (getattr(at, bound) for at in limits if hasattr(at, bound)), None
                )
    return Annotated[kind | None, typer.Option(*flag.split(), **settings)]


def _arms(hint: Any) -> Iterator[tuple[Any, list[Any]]]:  # noqa: ANN401 - a type
    """Yield the kinds of value that a field takes, each with its limits; None is none of them."""
    if typing.get_origin(hint) in (Union, types.UnionType):
        for arm in typing.get_args(hint):
            yield from _arms(arm)
    elif typing.get_origin(hint) is Annotated:
        inner, *limits = typing.get_args(hint)
        yield inner, [part for limit in limits for part in getattr(limit, "metadata", [limit])]
    elif hint is not type(None):
        yield hint, []


def _word_or_number(flag: str, words: list[str]) -> Callable[[str], str | float]:
    def read(text: str) -> str | float:
        if text in words:
            return text
        try:
            return float(text)
        except ValueError as error:
            known = ", ".join(f"`{word}`" for word in words)
            raise UsageError(f"{flag} takes {known} or a number, got `{text[:32]}`.") from error

    return read


def _with_flags(text: str, names: Mapping[str, str]) -> str:
    """Return a description that names options as they are typed."""
    return re.sub(r"`(\w+)`", lambda word: names.get(word[1], word[0]), text)


def _shown(default: Any) -> Any:  # noqa: ANN401 - a default of any type
    if default is None or isinstance(default, bool):
        return False
    return f"{default:g}" if isinstance(default, float) else str(default)


def read_size(text: str, option: str = "--size") -> tuple[int, int]:
    """Return width and height of a text like 576x1024.

    Args:
        text: What the user typed.
        option: Its option, for the error message.

    Raises:
        UsageError: It has another form, or a side of 0.
    """
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and min(int(width), int(height)) > 0):
        raise UsageError(
            f"{option} takes WIDTHxHEIGHT in pixels, as in 576x1024, got `{text[:32]}`."
        )
    return int(width), int(height)
