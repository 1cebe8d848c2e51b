"""Settings of the sampler, and where it is in its loop. Loads nothing heavy."""

import math
from dataclasses import dataclass
from typing import Literal

from animaray.platform.errors import ConfigError

SamplerMethod = Literal["euler", "heun"]
WindowRule = Literal["published", "sliding"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplerConfig:
    """Schedule, guidance and windows; the defaults are the published ones."""

    num_inference_steps: int = 25
    """Denoising steps."""
    sigma_min: float = 0.002
    """Noise level of the last step."""
    sigma_max: float = 700.0
    """Noise level of the first step; trained-here models use 80."""
    rho: float = 7.0
    """Curvature of the schedule."""
    guidance_scale: float = 3.0
    """unconditional + scale * (conditional - unconditional); 1 means off. Of frame 0."""
    guidance_max: float | None = None
    """Scale of the last frame; frames between get scales between. None: the same for all."""
    sampler: SamplerMethod = "euler"
    """`euler` as released; `heun` is Algorithm 1: each step is corrected with the slope at its
    end, twice the work."""
    s_churn: float = 0.0
    """Amount of noise added in each step, shared among the steps; 0 means none."""
    s_churn_min: float = 0.0
    """Churn only at noise levels from here on ..."""
    s_churn_max: float = math.inf
    """... up to here."""
    s_noise: float = 1.0
    """Standard deviation of the noise added by churn."""
    window_frames: int = 16
    """Frames denoised together."""
    window_overlap: int = 4
    """Frames that neighbouring windows share."""
    window_rule: WindowRule = "published"
    """Rule of the windows."""
    repeat_noise: bool = True
    """Repeat the first window's noise over the clip, as published; else all noise is new."""
    use_bfloat16: bool = False
    """Run the networks in bfloat16; latents stay float32."""

    def __post_init__(self) -> None:
        """Refuse impossible schedules.

        Raises:
            ConfigError: A value is out of range.
        """
        if self.num_inference_steps < 1:
            raise ConfigError(
                f"`num_inference_steps` must be at least 1, got {self.num_inference_steps}."
            )
        if not 0 < self.sigma_min < self.sigma_max:
            raise ConfigError(
                "Expected 0 < `sigma_min` < `sigma_max`, got "
                f"{self.sigma_min} and {self.sigma_max}."
            )
        check_windows(self.window_frames, self.window_overlap, self.window_rule)


@dataclass(frozen=True, kw_only=True, slots=True)
class StepInfo:
    """Where the sampler is."""

    step_index: int
    """From 0."""
    num_inference_steps: int
    """Of this run."""
    sigma: float
    """Noise level that is being removed (after churn)."""
    next_sigma: float
    """Noise level after this step; 0 in the last one."""


def check_windows(window_frames: int, window_overlap: int, window_rule: WindowRule) -> None:
    """Refuse windows that cannot lie so.

    Raises:
        ConfigError: Neighbours share too few or too many frames.
    """
    minimum = 1 if window_rule == "published" else 0
    if not minimum <= window_overlap < window_frames:
        raise ConfigError(
            f"`window_overlap` must be within [{minimum}, {window_frames - 1}] for {window_rule}"
            f" windows, got {window_overlap}."
        )
