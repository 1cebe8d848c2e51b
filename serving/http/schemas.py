"""The options of a request: what the form field `options` may hold."""

import secrets
from copy import copy
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, create_model
from pydantic_core import from_json

from animaray.models.animation.options import MAX_SEED, NOT_SERVED, AnimationRequest
from animaray.platform.errors import UsageError
from animaray.platform.options import STRICT, fields_of, wrong_option
from animaray.serving.jobs.limits import ServingLimits

MAX_PEOPLE = 3
"""People of one job."""
_People = str | Annotated[list[str], Field(min_length=1, max_length=MAX_PEOPLE)]
_NARROWER: dict[str, Any] = {
    "person": _People,
    "reference_person": _People,
    "fps": Literal["source", "model"] | Annotated[float, Field(gt=0, le=120)],
}
"""What a server takes less of."""


def _request_fields() -> dict[str, Any]:
    """Return the fields of an `AnimationRequest` that a server takes, all of them optional."""
    fields: dict[str, Any] = {}
    for name, field in fields_of(AnimationRequest).items():
        if name not in NOT_SERVED:
            optional = copy(field)
            optional.default = None
            kind: Any = _NARROWER.get(name, field.annotation)
            fields[name] = (kind | None, optional)
    return fields


OptionsDocument = create_model(
    "AnimationRequest",
    __config__=STRICT,
    __doc__="Options of an animation, all optional: the JSON document of the form field `options`.",
    **_request_fields(),
)


def parse_options(text: str | None, limits: ServingLimits) -> dict[str, Any]:
    """Read and check the form field `options`.

    Args:
        text: A JSON object, or None for all defaults.
        limits: Caps on what may be asked for.

    Returns:
        The options given.

    Raises:
        UsageError: The text is not a JSON object, an option is unknown or out of range.
    """
    try:
        # Refuses, unlike the standard library, half a surrogate pair and endless nesting.
        data = from_json(text or "{}", allow_inf_nan=False)
    except ValueError as error:
        raise UsageError(
            f"`options` must be a JSON object, and it is not JSON: {error}."
        ) from error
    if not isinstance(data, dict):
        raise UsageError(f"`options` must be a JSON object, got {type(data).__name__}.")
    try:
        given = OptionsDocument.model_validate(data).model_dump(exclude_none=True)
    except ValidationError as error:
        message, fix = wrong_option(error, OptionsDocument.model_fields)
        raise UsageError(message, fix=fix) from error
    asked = AnimationRequest(**given)
    if asked.mode is not None and asked.engine != "parts":
        raise UsageError("Option `mode`: only with `engine` set to `parts`.")
    if asked.no_face and asked.engine == "parts":
        raise UsageError("Option `no_face`: not with `engine` set to `parts`, which has no model.")
    steps = asked.num_inference_steps
    if steps is not None and steps > limits.max_inference_steps:
        raise UsageError(
            f"Option `num_inference_steps`: at most {limits.max_inference_steps} are accepted,"
            f" got {steps}."
        )
    return given


def with_seed(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options with a seed, drawn now if the client gave none; retries keep it."""
    return {"seed": secrets.randbelow(MAX_SEED), **options}
