"""Options that people choose: fields of a pydantic dataclass, each with description and bounds.

Request schemas, command lines and tables of docs derive from the fields; what is wrong with a value
is told in one way, whoever gave it. A description may end in `Left out: WHAT HAPPENS.`
"""

import difflib
from collections.abc import Iterable

from pydantic import ConfigDict, ModelWrapValidatorHandler, ValidationError
from pydantic import model_validator as _model_validator
from pydantic.dataclasses import dataclass as _dataclass
from pydantic.fields import FieldInfo

from animaray.platform.errors import ConfigError

STRICT = ConfigDict(extra="forbid", strict=True, defer_build=True)
"""Text is no number and a number no switch; validators are built at the first use."""


@_dataclass(frozen=True, kw_only=True, config=STRICT)
class Options:
    """What all options have: values are checked, and what is wrong is a ConfigError."""

    @_model_validator(mode="wrap")
    @classmethod
    def _check(cls, given: object, check: ModelWrapValidatorHandler["Options"]) -> "Options":
        try:
            return check(given)
        except ValidationError as error:
            message, fix = wrong_option(error, fields_of(cls))
            raise ConfigError(message, fix=fix) from error


def fields_of(kind: type) -> dict[str, FieldInfo]:
    """Return the fields of a class of options by name."""
    fields: dict[str, FieldInfo] = kind.__pydantic_fields__  # type: ignore[attr-defined]
    return fields


def wrong_option(error: ValidationError, known: Iterable[str]) -> tuple[str, str | None]:
    """Return what to say of the first option that pydantic refuses, and what to do.

    Args:
        error: With one entry for each kind of value that an option takes.
        known: Names of all options.
    """
    first = error.errors()[0]
    name = str(first["loc"][0])
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean `{near[0]}`?" if near else f"Known are {', '.join(known)}."
        return f"Unknown option `{name[:64]}`.", hint
    reasons = [entry["msg"] for entry in error.errors() if entry["loc"][0] == name]
    return f"Option `{name}`: {'; or: '.join(reasons)}.", None


def meaning_of(field: FieldInfo) -> tuple[str, str]:
    """Return what an option means, and what happens where it is left out ("" if unsaid)."""
    meaning, _, default = (field.description or "").partition(" Left out: ")
    return meaning.rstrip("."), default.rstrip(".")
