"""The options of a request: what the form field `options` may hold."""

import difflib
import secrets
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from animaray.models.subjects.choice import Casting, choices_of, parse_choices
from animaray.platform.errors import PersonChoiceError, UsageError
from animaray.serving.jobs.limits import ServingLimits

MAX_SEED = 2**31 - 1
MAX_PEOPLE = 3
"""People of one job."""

PersonField = str | Annotated[list[str], Field(min_length=1, max_length=MAX_PEOPLE)] | None
RateField = Annotated[float, Field(gt=0, le=120)]


class AnimationRequest(BaseModel):
    """Options of an animation, all optional: the JSON document of the form field `options`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    seed: int | None = Field(
        None,
        ge=0,
        le=MAX_SEED,
        description="Start of the random numbers; equal requests with equal seeds give equal"
        " frames. Left out: drawn once by the server and kept for retries.",
    )
    num_inference_steps: int | None = Field(
        None, ge=1, le=1000, description="Denoising steps; left out: the model's default."
    )
    guidance_scale: float | None = Field(
        None,
        ge=1.0,
        le=20.0,
        description="1 is off; higher follows the picture and the pose more strictly.",
    )
    guidance_min: float | None = Field(
        None,
        ge=1.0,
        le=20.0,
        description="Guidance scale of the first frame, rising evenly to `guidance_max`; instead of"
        " `guidance_scale`.",
    )
    guidance_max: float | None = Field(
        None, ge=1.0, le=20.0, description="Guidance scale of the last frame."
    )
    sampler: Literal["euler", "heun"] | None = Field(
        None, description="`heun` corrects every step, for twice the work."
    )
    window_frames: int | None = Field(
        None, ge=1, le=256, description="Frames denoised together; left out: as trained."
    )
    window_overlap: int | None = Field(
        None, ge=0, le=255, description="Frames that neighbouring windows share."
    )
    window_rule: Literal["published", "sliding"] | None = Field(
        None, description="How windows lie over a long video."
    )
    face_optimization: bool | Literal["off", "fast", "published", "literal"] | None = Field(
        None,
        description="Steer steps towards the reference face, and which way; true is the default,"
        " `fast`. `published` and `literal` need much more time and memory.",
    )
    no_face: bool | None = Field(
        None,
        description="The picture shows no human face, as of a drawn animal: none is looked for,"
        " the model is told no identity, face optimization is off, and `identity_similarity` of"
        " the result is null.",
    )
    audio: bool | None = Field(
        None,
        description="Keep the driving video's sound, unchanged and as long as the result; the"
        " default.",
    )
    alignment: Literal["none", "fit", "procrustes", "learned"] | None = Field(
        None, description="How the driving body is fitted to the body in the picture."
    )
    person: PersonField = Field(
        None,
        description="Who of several drives: `left`, `right`, `largest`, `all`, a number from 1"
        " (counted from the left) or a point `x,y` in pixels; a list for several. Left out: the"
        " largest, with a warning.",
    )
    reference_person: PersonField = Field(
        None,
        description="Who of the picture is animated; the k-th follows the k-th `person`.",
    )
    engine: Literal["auto", "parts", "diffusion"] | None = Field(
        None,
        description="`parts` moves the photo's own pixels, without a generative network;"
        " `diffusion` takes the server's weights. `auto`, the default, is diffusion.",
    )
    mode: Literal["body", "head"] | None = Field(
        None,
        description="What `parts` moves; left out: what picture and video allow.",
    )
    fps: Literal["source", "model"] | RateField | None = Field(
        None,
        description="Frames per second that are animated: the upload's, the model's (the default)"
        " or a number; also the result's rate. `parts` takes the upload's.",
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
    for key in data:
        if key not in AnimationRequest.model_fields:
            near = difflib.get_close_matches(key, AnimationRequest.model_fields, n=1)
            raise UsageError(
                f"Unknown option `{str(key)[:64]}`.",
                fix=f"Did you mean `{near[0]}`?" if near else "See /openapi.json.",
            )
    try:
        request = AnimationRequest.model_validate(data)
    except ValidationError as error:
        name = error.errors()[0]["loc"][0]
        # One message for each kind of value that the option takes.
        reasons = [entry["msg"] for entry in error.errors() if entry["loc"][0] == name]
        raise UsageError(f"Option `{name}`: {'; or: '.join(reasons)}.") from error
    _check_together(request)
    steps = request.num_inference_steps
    if steps is not None and steps > limits.max_inference_steps:
        raise UsageError(
            f"Option `num_inference_steps`: at most {limits.max_inference_steps} are accepted,"
            f" got {steps}."
        )
    return request.model_dump(exclude_none=True)


def _check_together(request: AnimationRequest) -> None:
    """Refuse options that contradict each other.

    Raises:
        UsageError: They do; the message names the option.
    """
    low, high = request.guidance_min, request.guidance_max
    if (low is None) != (high is None):
        missing = "guidance_min" if low is None else "guidance_max"
        raise UsageError(f"Option `{missing}`: needed, since the other end of the range is given.")
    if low is not None and request.guidance_scale is not None:
        raise UsageError(
            "Option `guidance_scale`: not together with `guidance_min` and `guidance_max`."
        )
    if request.mode is not None and request.engine != "parts":
        raise UsageError("Option `mode`: only with `engine` set to `parts`.")
    if request.no_face and request.engine == "parts":
        raise UsageError("Option `no_face`: not with `engine` set to `parts`, which has no model.")
    if request.no_face and request.face_optimization not in (None, False, "off"):
        raise UsageError("Option `face_optimization`: not together with `no_face`.")
    frames, overlap = request.window_frames, request.window_overlap
    if frames is not None and overlap is not None and overlap >= frames:
        raise UsageError(
            f"Option `window_overlap`: must be below `window_frames` ({frames}), got {overlap}."
        )
    for name in ("person", "reference_person"):
        try:
            parse_choices(choices_of(getattr(request, name)))
        except PersonChoiceError as error:
            raise UsageError(f"Option `{name}`: {error.message}", fix=error.fix) from error
    try:
        Casting.parse(choices_of(request.person), choices_of(request.reference_person))
    except PersonChoiceError as error:
        raise UsageError(f"Option `reference_person`: {error.message}", fix=error.fix) from error


def with_seed(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options with a seed, drawn now if the client gave none; retries keep it."""
    return {"seed": secrets.randbelow(MAX_SEED), **options}
