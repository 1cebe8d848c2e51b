"""What a user may choose of an animation, written once.

The HTTP request, the options of `animaray animate` and `animaray jobs submit` and the table in
docs/cli.md derive from these fields. Loads nothing heavy.
"""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from animaray.models.alignment.methods import AlignmentMethod, TransformScope
from animaray.models.diffusion.sampler_config import SamplerMethod, WindowRule
from animaray.models.face.optimization_config import FaceOptimizationConfig, FaceOptimizationMode
from animaray.models.parts.options import PartsOptions
from animaray.models.subjects.choice import Pairing
from animaray.platform.errors import ConfigError, UsageError
from animaray.platform.options import STRICT, Options, fields_of

EngineName = Literal["parts", "diffusion"]
EngineChoice = Literal["auto", "parts", "diffusion"]
MADE_BY: dict[EngineName, str] = {
    "parts": "moved by parts, no generative network",
    "diffusion": "made by a diffusion model",
}
"""For pages and messages."""
PHOTO_PROFILE = "permissive"
"""The profile whose networks the engine `parts` uses."""
MAX_SEED = 2**31 - 1
PYTHON_ONLY = frozenset({"alignment_scope", "face_optimization_config"})
"""Fields that no command and no request offers."""
NOT_SERVED = PYTHON_ONLY | {"long_side_px", "preview_every"}
"""Fields that a server does not take."""

Guidance = Annotated[float, Field(ge=1.0, le=20.0)]
People = str | Annotated[list[str], Field(min_length=1)]
Rate = Annotated[float, Field(gt=0, le=240)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AnimationOptions(Options):
    """What a user may choose for the engine `diffusion`; None takes the model's default."""

    seed: int = Field(
        default=0,
        ge=0,
        le=MAX_SEED,
        description="Start of the random numbers; equal requests with equal seeds give equal"
        " frames on one machine. Left out: 0; a server draws one and keeps it for retries.",
    )
    num_inference_steps: int | None = Field(
        default=None, ge=1, le=1000, description="Denoising steps. Left out: the model's."
    )
    sampler: SamplerMethod | None = Field(
        default=None,
        description="`heun` corrects every step, for twice the work. Left out: `euler`.",
    )
    guidance_scale: Guidance | None = Field(
        default=None,
        description="Guidance scale: 1 is off; higher follows the picture and the pose more"
        " strictly. Left out: the model's.",
    )
    guidance_min: Guidance | None = Field(
        default=None,
        description="Guidance scale of the first frame, rising evenly to `guidance_max`; instead of"
        " `guidance_scale`.",
    )
    guidance_max: Guidance | None = Field(
        default=None, description="Guidance scale of the last frame."
    )
    window_frames: int | None = Field(
        default=None, ge=1, le=256, description="Frames denoised together. Left out: as trained."
    )
    window_overlap: int | None = Field(
        default=None,
        ge=0,
        le=255,
        description="Frames that neighbouring windows share. Left out: as trained.",
    )
    window_rule: WindowRule | None = Field(
        default=None, description="How windows lie over a long video. Left out: as trained."
    )
    alignment: AlignmentMethod | None = Field(
        default=None,
        description="How the driving body is fitted to the body in the picture. Left out:"
        " `learned`, by the weights' aligner or else the bundled one.",
    )
    alignment_scope: TransformScope = "clip"
    """One transform for the whole clip, or one per frame."""
    face_optimization: bool | FaceOptimizationMode | None = Field(
        default=None,
        description="Steer steps towards the reference face, and which way; `published` and"
        " `literal` need much more time and memory. Left out: `fast`.",
    )
    face_optimization_config: FaceOptimizationConfig = Field(default_factory=FaceOptimizationConfig)
    """How, if it is on and no mode is named."""
    no_face: bool = Field(
        default=False,
        description="The picture shows no human face, as of a drawn animal: none is looked for,"
        " the model is told no identity, face optimization is off, and `identity_similarity` of"
        " the result is null. Left out: a picture without a face is refused.",
    )
    preview_every: int = Field(
        default=0,
        ge=0,
        description="Write decoded estimates as PNG every so many steps, into the report's folder"
        " or beside the result. Left out: never.",
    )

    def __post_init__(self) -> None:
        """Refuse options that contradict each other.

        Raises:
            ConfigError: Half a range of guidance is given, or a range beside one scale; faces are
                to be optimized where there are none; windows share all of their frames.
        """
        ends = {"guidance_min": self.guidance_min, "guidance_max": self.guidance_max}
        missing = [name for name, value in ends.items() if value is None]
        if len(missing) == 1:
            raise ConfigError(
                f"Option `{missing[0]}`: needed, since the other end of the range is given;"
                " `guidance_min` and `guidance_max` belong together."
            )
        if not missing and self.guidance_scale is not None:
            raise ConfigError(
                "Option `guidance_scale`: not together with `guidance_min` and `guidance_max`;"
                " give one scale or a range, not both."
            )
        if self.no_face and self.face_optimization not in (None, False, "off"):
            raise ConfigError(
                "Option `face_optimization`: not together with `no_face`, which leaves no identity"
                " that face optimization could work towards.",
                fix="Leave one of the two out.",
            )
        frames, overlap = self.window_frames, self.window_overlap
        if frames is not None and overlap is not None and overlap >= frames:
            raise ConfigError(
                f"Option `window_overlap`: must be below `window_frames` ({frames}), got {overlap}."
            )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AnimationRequest(AnimationOptions, PartsOptions):
    """What is asked of one animation, whichever engine makes it."""

    engine: EngineChoice = Field(
        default="auto",
        description="`parts` moves the photo's own pixels, without a generative network;"
        " `diffusion` takes an animator's weights. Left out: `auto`, which is diffusion where"
        " weights are given or poses drive; a server takes its weights.",
    )
    person: People | None = Field(
        default=None,
        description="Who of several drives: `left`, `right`, `largest`, `all`, a number from 1"
        " (counted from the left) or a point `x,y` in pixels; give several to pair several."
        " Left out: asks where several are seen; a server takes the largest, with a warning.",
    )
    reference_person: People | None = Field(
        default=None,
        description="Who of the picture is animated; the k-th follows the k-th `person`. Left out:"
        " as for `person`.",
    )
    audio: bool = Field(
        default=True,
        description="Keep the driving video's sound, unchanged and as long as the result. Left out:"
        " kept.",
    )
    fps: Literal["source", "model"] | Rate = Field(
        default="source",
        description="Frames per second that are animated: the driving video's, the model's or a"
        " number; also the result's rate. Left out: `source`; a server takes the model's, but for"
        " `parts`.",
    )

    def __post_init__(self) -> None:
        """Refuse people that cannot be paired, and what AnimationOptions refuses.

        Raises:
            PersonChoiceError: A choice is none, or the choices do not pair.
        """
        AnimationOptions.__post_init__(self)
        _ = self.pairing

    @property
    def pairing(self) -> Pairing:
        """Who is animated, and who drives."""
        return Pairing.parse(self.person, self.reference_person)

    def of_diffusion(self) -> AnimationOptions:
        """Return what the engine `diffusion` takes of it."""
        return AnimationOptions(
            **{name: getattr(self, name) for name in fields_of(AnimationOptions)}
        )

    def of_parts(self) -> PartsOptions:
        """Return what the engine `parts` takes of it."""
        return PartsOptions(long_side_px=self.long_side_px, mode=self.mode)

    def frame_rate(self, source_fps: float | None, model_fps: float) -> float | None:
        """Return the rate to read the driving video at; None where it is to tell and does not."""
        if self.fps == "model":
            return model_fps
        if self.fps == "source":
            return source_fps if source_fps is not None and source_fps > 0 else None
        return float(self.fps)


def choose_engine(wanted: str, *, has_weights: bool, profile: str = PHOTO_PROFILE) -> EngineName:
    """Return the engine that works.

    Args:
        wanted: `auto` or an engine's name.
        has_weights: Whether a weights folder of an animator is given.
        profile: Perception profile.

    Raises:
        ConfigError: The engine is unknown, or profile and engine do not go together.
        UsageError: Weights are given to the engine that has none.
    """
    if wanted == "auto":
        return "parts" if not has_weights and profile == PHOTO_PROFILE else "diffusion"
    if wanted == "diffusion":
        return "diffusion"
    if wanted != "parts":
        raise ConfigError(f"Unknown engine `{wanted}`; known are auto, parts, diffusion.")
    if has_weights:
        raise UsageError(
            "The engine `parts` has no animator; weights belong to `diffusion`.",
            fix="Leave out the weights, or use --engine diffusion.",
        )
    if profile != PHOTO_PROFILE:
        raise ConfigError(
            f"The engine `parts` works with the profile {PHOTO_PROFILE}, got `{profile}`.",
            fix=f"Use --profile {PHOTO_PROFILE}, or --engine diffusion.",
        )
    return "parts"
