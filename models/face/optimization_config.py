"""Settings of face optimization: four modes, and when each of them works."""

from dataclasses import dataclass
from typing import Literal

from animaray.models.diffusion.sampler_config import StepInfo
from animaray.platform.errors import ConfigError

FaceOptimizationMode = Literal["off", "fast", "published", "literal"]
"""off        sample without it
published  as the released code: whole frames in chunks of 4, box crops, falling learning rate
literal    Algorithm 1: ten Adam steps in each of the first ten denoising steps, whole frames
fast       ours: windows around the faces, the background untouched, early stop"""
MODES: tuple[FaceOptimizationMode, ...] = ("off", "published", "literal", "fast")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Schedule:
    start_step: int
    num_steps: int
    num_iterations: int
    use_decay: bool
    chunk_frames: int | None


_SCHEDULES: dict[FaceOptimizationMode, _Schedule] = {
    "off": _Schedule(
        start_step=0, num_steps=0, num_iterations=1, use_decay=False, chunk_frames=None
    ),
    # Steps 0 to 20 inclusive, three iterations: the released command line.
    "published": _Schedule(
        start_step=0, num_steps=21, num_iterations=3, use_decay=True, chunk_frames=4
    ),
    "literal": _Schedule(
        start_step=0, num_steps=10, num_iterations=10, use_decay=False, chunk_frames=None
    ),
    # Few gradients where they can be seen do more than many early ones: docs/decisions/0006.
    "fast": _Schedule(
        start_step=0, num_steps=10_000, num_iterations=3, use_decay=False, chunk_frames=None
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class FaceOptimizationConfig:
    """When and how hard to optimize. None takes the mode's own value."""

    mode: FaceOptimizationMode = "fast"
    """`off`, `published`, `literal` or `fast`."""
    start_step: int | None = None
    """First denoising step that is optimized; `fast` goes by noise level unless this is given."""
    num_steps: int | None = None
    """How many denoising steps are optimized, from `start_step` on."""
    num_iterations: int | None = None
    """Adam steps per denoising step; more over-sharpens."""
    learning_rate: float = 0.1
    """Adam's, in latent standard deviations; the paper does not give it, the released code does."""
    use_decay: bool | None = None
    """Lower the learning rate evenly to 0 at the last denoising step, as the released code."""
    chunk_frames: int | None = None
    """Frames decoded at once; limits memory. Decoders that join frames give other pixels then."""
    from_sigma: float = 1.0
    """`fast`: optimize at noise levels from here (steps 17 to 21 of 25 at sigma_max 80) ..."""
    to_sigma: float = 0.1
    """... down to here. Measured: docs/decisions/0006."""
    stop_below_gain: float = 0.02
    """`fast`: stop a denoising step's iterations when one lowers the loss by less than this share;
    0 runs all of them."""
    window_margin_latents: int = 4
    """`fast`: least room around the face in a decoded window, latent cells."""
    window_multiple_latents: int = 8
    """`fast`: sides of windows are multiples of this many latent cells (fixed shapes)."""
    update_margin_latents: int = 0
    """`fast`: only latents of the face's crop and this many cells around it change. One cell more
    moves six times as much of the background and lowers the loss no further (decisions/0006)."""
    record_all_frames: bool | None = None
    """`fast`: record every frame once per denoising step instead of one frame for all. More exact
    and dearer; None does so for clips of up to four frames."""
    detect_every: int = 3
    """Look for the faces in decoded estimates every so many optimized denoising steps; 0 never.
    `published` never does."""
    detect_below_sigma: float = 20.0
    """Only look where the estimate is sharp enough, that is below this noise level."""

    def __post_init__(self) -> None:
        """Refuse impossible settings.

        Raises:
            ConfigError: The mode is unknown, a count is negative, or a rate is not positive.
        """
        if self.mode not in MODES:
            raise ConfigError(
                f"Unknown face optimization mode `{self.mode}`; known are {', '.join(MODES)}."
            )
        for name in (
            "start_step",
            "num_steps",
            "window_margin_latents",
            "update_margin_latents",
            "detect_every",
            "stop_below_gain",
        ):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"`{name}` must not be negative, got {value}.")
        for name in ("num_iterations", "chunk_frames", "window_multiple_latents"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"`{name}` must be at least 1, got {value}.")
        if self.learning_rate <= 0:
            raise ConfigError(f"`learning_rate` must be above 0, got {self.learning_rate}.")
        if self.to_sigma > self.from_sigma:
            raise ConfigError(
                f"Expected `to_sigma` <= `from_sigma`, got {self.to_sigma} > {self.from_sigma}."
            )

    @property
    def iterations(self) -> int:
        """Most Adam steps of one denoising step."""
        own = _SCHEDULES[self.mode].num_iterations
        return own if self.num_iterations is None else self.num_iterations

    @property
    def frames_at_once(self) -> int | None:
        """Frames decoded at once; None decodes all."""
        own = _SCHEDULES[self.mode].chunk_frames
        return own if self.chunk_frames is None else self.chunk_frames

    def is_active(self, step: StepInfo) -> bool:
        """Return whether a denoising step is optimized."""
        own = _SCHEDULES[self.mode]
        start = own.start_step if self.start_step is None else self.start_step
        count = own.num_steps if self.num_steps is None else self.num_steps
        if self.mode == "off" or not start <= step.step_index < start + count:
            return False
        if self.mode != "fast" or self.start_step is not None:
            return True
        return self.to_sigma <= step.sigma <= self.from_sigma

    def rate(self, step: StepInfo) -> float:
        """Return the learning rate of a denoising step."""
        use_decay = _SCHEDULES[self.mode].use_decay if self.use_decay is None else self.use_decay
        if not use_decay:
            return self.learning_rate
        return self.learning_rate * (1 - step.step_index / step.num_inference_steps)
