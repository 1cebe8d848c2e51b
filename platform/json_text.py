"""The one place that writes JSON: what comes out is JSON for every reader.

Python writes NaN and Infinity by default, which browsers, jq, databases and most other parsers
refuse. Here such a number becomes null and a document says which ones it were:

    {"loss": NaN, "step": 7}  ->  {"loss": null, "step": 7, "not_finite": {"loss": "nan"}}
"""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

NOT_FINITE = "not_finite"
"""Key of a document's list of the numbers that are null because they were none."""


def json_text(
    data: Any,  # noqa: ANN401 - any JSON value
    *,
    indent: int | None = None,
    sort_keys: bool = False,
    compact: bool = False,
    default: Callable[[Any], Any] | None = None,
) -> str:
    """Return a value as JSON without NaN and Infinity.

    Args:
        data: Any JSON value; only a mapping has room to say what was not finite.
        indent: Spaces of each level; None writes one line.
        sort_keys: Whether keys are sorted; else they keep their order.
        compact: Without spaces after commas and colons.
        default: Turns values that JSON does not know into ones that it does.

    Raises:
        ValueError: A number that is not finite stands in something else than a mapping.
    """

    def dumps(value: Any) -> str:  # noqa: ANN401 - any JSON value
        return json.dumps(
            value,
            indent=indent,
            sort_keys=sort_keys,
            separators=(",", ":") if compact else None,
            default=default,
            allow_nan=False,
        )

    try:
        return dumps(data)
    except ValueError:
        found: dict[str, str] = {}
        finite = _without(data, "", found)
        if not found or not isinstance(finite, dict):
            raise
    return dumps({**finite, NOT_FINITE: {**finite.get(NOT_FINITE, {}), **found}})


def _without(value: Any, place: str, found: dict[str, str]) -> Any:  # noqa: ANN401 - as above
    """Return a value with null for what is not finite; note it in `found` by its place."""
    if isinstance(value, float) and not math.isfinite(value):
        found[place] = str(float(value))
        return None
    if isinstance(value, Mapping):
        return {key: _without(item, _below(place, key), found) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without(item, _below(place, at), found) for at, item in enumerate(value)]
    return value


def _below(place: str, key: object) -> str:
    return f"{place}.{key}" if place else str(key)
