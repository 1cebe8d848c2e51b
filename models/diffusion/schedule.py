"""Noise levels: the sampler's descending schedule and the distributions of training."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from animaray.platform.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class NoiseLevelConfig:
    """Distribution of sigma in training."""

    distribution: Literal["cosine_interpolated", "log_normal"] = "cosine_interpolated"
    """`cosine_interpolated` as published; `log_normal` as in Karras et al. 2022."""
    sigma_min: float = 0.002
    """Smallest sigma of `cosine_interpolated`; `log_normal` is clamped to it."""
    sigma_max: float = 700.0
    """Largest sigma, likewise."""
    log_mean: float = 0.0
    """Mean of ln sigma (`log_normal`)."""
    log_std: float = 1.4
    """Standard deviation of ln sigma (`log_normal`)."""
    sigma_data: float = 0.5
    """The published code's constant inside `cosine_interpolated` (not the latents' deviation)."""
    image_d: float = 64.0
    """Reference resolution of `cosine_interpolated`."""
    noise_d_low: float = 32.0
    """Resolution at which its schedule starts."""
    noise_d_high: float = 64.0
    """Resolution at which it ends."""

    def __post_init__(self) -> None:
        """Refuse an empty range.

        Raises:
            ConfigError: The limits are not 0 < sigma_min < sigma_max.
        """
        if not 0 < self.sigma_min < self.sigma_max:
            raise ConfigError(
                "Expected 0 < `sigma_min` < `sigma_max`, got "
                f"{self.sigma_min} and {self.sigma_max}."
            )


def karras_sigmas(
    num_inference_steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0
) -> Float[Tensor, " levels"]:
    """Return descending noise levels, one more than the steps, the last 0.

    References:
        Karras et al. 2022, eq. 5.
    """
    ramp = torch.linspace(0, 1, num_inference_steps, dtype=torch.float64)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    sigmas = (high + ramp * (low - high)) ** rho
    return torch.cat([sigmas, torch.zeros(1, dtype=torch.float64)]).float()


def sample_sigmas(
    batch_size: int, config: NoiseLevelConfig, generator: torch.Generator | None = None
) -> Float[Tensor, " batch"]:
    """Draw one noise level per clip, stratified over the batch.

    Args:
        batch_size: Number of levels; item i falls into the i-th of as many equal quantiles.
        config: The distribution.
        generator: Source of randomness (on the CPU).
    """
    uniform = torch.rand(batch_size, generator=generator)
    return sigmas_at(stratify(uniform), config)


def stratify(uniform: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Move the i-th of n uniform draws into the i-th of n equal parts of [0, 1]."""
    return (torch.arange(len(uniform)) + uniform) / len(uniform)


def sigmas_at(
    quantile: Float[Tensor, " batch"], config: NoiseLevelConfig
) -> Float[Tensor, " batch"]:
    """Map quantiles in [0, 1] to noise levels of the training distribution."""
    if config.distribution == "log_normal":
        normal = torch.special.ndtri(quantile.double().clamp(1e-6, 1 - 1e-6))
        sigma = (config.log_mean + config.log_std * normal).exp()
        return sigma.clamp(config.sigma_min, config.sigma_max).float()
    # In float32 like the released code: near quantile 0 rounding moves sigma by up to 4e-5 of it.
    low = _cosine_log_snr(quantile, config, config.noise_d_low)
    high = _cosine_log_snr(quantile, config, config.noise_d_high)
    log_snr = torch.lerp(low, high, quantile)
    return ((-log_snr / 2).exp() * config.sigma_data).float()


def _cosine_log_snr(
    quantile: Float[Tensor, " batch"], config: NoiseLevelConfig, noise_d: float
) -> Float[Tensor, " batch"]:
    """Return the shifted cosine schedule's log signal-to-noise ratio (simple diffusion)."""
    shift = 2 * math.log(noise_d / config.image_d)
    largest = -2 * math.log(config.sigma_min / config.sigma_data) - shift
    smallest = -2 * math.log(config.sigma_max / config.sigma_data) - shift
    start = math.atan(math.exp(-0.5 * largest))
    end = math.atan(math.exp(-0.5 * smallest))
    # Quantile 0 is the largest sigma.
    return -2 * (end + quantile * (start - end)).tan().log() + shift
