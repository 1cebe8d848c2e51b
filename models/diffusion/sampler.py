"""The sampler: from noise to latents along a falling schedule of noise levels.

Karras et al. 2022, Algorithm 2, with classifier-free guidance and windows over time. Churn and the
second-order correction are off by default, as in the released code (plain Euler steps).
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from animaray.models.diffusion.noise_levels import karras_sigmas
from animaray.models.diffusion.tiles import Tiling, tile_indices, tile_weights
from animaray.models.networks.animator import Animator
from animaray.models.networks.conditioning import Conditioning, EncodedConditioning
from animaray.platform.errors import ConfigError


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
    """unconditional + scale * (conditional - unconditional); 1 means off."""
    last_guidance_scale: float | None = None
    """Scale of the last frame, rising evenly from the first; None means the same for all."""
    second_order: bool = False
    """Correct each Euler step with the slope at its end (Heun); twice the work."""
    s_churn: float = 0.0
    """Amount of noise added anew in each step; 0 means none."""
    s_churn_min: float = 0.0
    """Churn only at noise levels from here on ..."""
    s_churn_max: float = math.inf
    """... up to here."""
    s_noise: float = 1.0
    """Standard deviation of the noise added by churn."""
    tile_frames: int = 16
    """Frames denoised together."""
    tile_overlap: int = 4
    """Frames that neighbouring windows share."""
    tiling: Tiling = "published"
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
        tile_indices(self.tile_frames, self.tile_frames, self.tile_overlap, self.tiling)


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


CorrectDenoised = Callable[[Tensor, StepInfo], Tensor]
"""Replaces the denoised estimate of a step (face optimization)."""
OnStep = Callable[[StepInfo], None]
"""Called after every step; raising ends the sampling."""


def sample(  # noqa: PLR0913 - the one place where everything meets
    animator: Animator,
    conditioning: Conditioning | EncodedConditioning,
    num_frames: int,
    config: SamplerConfig,
    generator: torch.Generator,
    correct_denoised: CorrectDenoised | None = None,
    on_step: OnStep | None = None,
    *,
    initial_noise: Float[Tensor, "batch frames channels h w"] | None = None,
) -> Float[Tensor, "batch frames channels h w"]:
    """Return latents of a clip; equal arguments give equal latents.

    Args:
        animator: In evaluation mode.
        conditioning: Of the whole clip; encoded once.
        num_frames: Length of the clip.
        config: Schedule, guidance, windows.
        generator: Source of all noise, on the CPU.
        correct_denoised: Called with each step's guided estimate; gradients are its own matter.
        on_step: Called after each step.
        initial_noise: Unit noise to start from instead of drawing it.
    """
    with torch.no_grad():
        if isinstance(conditioning, Conditioning):
            with _precision(conditioning.reference_latents.device, config):
                conditioning = animator.encode_conditioning(conditioning)
        denoise = GuidedDenoiser(animator, conditioning, num_frames, config)
        sigmas = karras_sigmas(
            config.num_inference_steps, config.sigma_min, config.sigma_max, config.rho
        ).tolist()
        if initial_noise is None:
            initial_noise = _draw_noise(
                conditioning.reference_latents, num_frames, config, generator
            )
        latents = initial_noise * math.hypot(sigmas[0], animator.config.sigma_data)
        for index, (sigma, next_sigma) in enumerate(itertools.pairwise(sigmas)):
            latents, sigma_hat = _churn(latents, sigma, config, generator)
            step = StepInfo(
                step_index=index,
                num_inference_steps=config.num_inference_steps,
                sigma=sigma_hat,
                next_sigma=next_sigma,
            )
            denoised = denoise(latents, sigma_hat)
            if correct_denoised is not None:
                denoised = correct_denoised(denoised, step).detach()
            slope = (latents - denoised) / sigma_hat
            stepped = latents + (next_sigma - sigma_hat) * slope
            if config.second_order and next_sigma > 0:
                end_slope = (stepped - denoise(stepped, next_sigma)) / next_sigma
                stepped = latents + (next_sigma - sigma_hat) * (slope + end_slope) / 2
            latents = stepped
            if on_step is not None:
                on_step(step)
    return latents


class GuidedDenoiser:
    """Denoise a whole clip: windows blended over time, then guidance."""

    def __init__(
        self,
        animator: Animator,
        encoded: EncodedConditioning,
        num_frames: int,
        config: SamplerConfig,
    ) -> None:
        self._animator = animator
        self._config = config
        self._tiles = tile_indices(
            num_frames, config.tile_frames, config.tile_overlap, config.tiling
        )
        device = encoded.reference_latents.device
        last = config.last_guidance_scale
        self._guidance = torch.linspace(
            config.guidance_scale, config.guidance_scale if last is None else last, num_frames
        ).to(device)[:, None, None, None]
        unconditional = animator.unconditional(encoded)
        self._conditional = [encoded.window(tile) for tile in self._tiles]
        self._unconditional = [unconditional.window(tile) for tile in self._tiles]

    def __call__(
        self, latents: Float[Tensor, "batch frames channels h w"], sigma: float
    ) -> Float[Tensor, "batch frames channels h w"]:
        """Return the guided estimate of the clean clip at a noise level."""
        conditional = self._blend(latents, sigma, self._conditional)
        if bool((self._guidance == 1).all()):
            return conditional
        unconditional = self._blend(latents, sigma, self._unconditional)
        return unconditional + self._guidance * (conditional - unconditional)

    def _blend(
        self,
        latents: Float[Tensor, "batch frames channels h w"],
        sigma: float,
        conditionings: list[EncodedConditioning],
    ) -> Float[Tensor, "batch frames channels h w"]:
        """Denoise every window and average them with triangular weights."""
        total, weights = torch.zeros_like(latents), torch.zeros_like(latents[0, :, :1, :1, :1])
        levels = torch.full((len(latents),), sigma, device=latents.device)
        for tile, conditioning in zip(self._tiles, conditionings, strict=True):
            weight = tile_weights(len(tile)).to(latents)[:, None, None, None]
            with _precision(latents.device, self._config):
                denoised = self._animator.denoise(latents[:, tile], levels, conditioning)
            total.index_add_(1, tile.to(latents.device), weight * denoised.float())
            weights.index_add_(0, tile.to(latents.device), weight)
        return total / weights


def _precision(device: torch.device, config: SamplerConfig) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=config.use_bfloat16)


def _draw_noise(
    reference_latents: Float[Tensor, "batch channels h w"],
    num_frames: int,
    config: SamplerConfig,
    generator: torch.Generator,
) -> Float[Tensor, "batch frames channels h w"]:
    """Draw unit noise for the clip, or for one window and repeat it."""
    batch, *rest = reference_latents.shape
    drawn = min(num_frames, config.tile_frames) if config.repeat_noise else num_frames
    noise = torch.randn((batch, drawn, *rest), generator=generator).to(reference_latents)
    return noise[:, torch.arange(num_frames) % drawn]


def _churn(
    latents: Float[Tensor, "batch frames channels h w"],
    sigma: float,
    config: SamplerConfig,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "batch frames channels h w"], float]:
    """Add noise to reach a slightly higher noise level; return both."""
    if config.s_churn == 0 or not config.s_churn_min <= sigma <= config.s_churn_max:
        return latents, sigma
    gamma = min(config.s_churn / config.num_inference_steps, math.sqrt(2) - 1)
    sigma_hat = sigma * (1 + gamma)
    noise = torch.randn(latents.shape, generator=generator).to(latents) * config.s_noise
    return latents + math.sqrt(sigma_hat**2 - sigma**2) * noise, sigma_hat
