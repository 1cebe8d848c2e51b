"""One step of the samplers: churn, and the released code's Euler step around a raw output.

References:
    Karras et al. 2022, Algorithm 2; the released code's step is that of diffusers'
    EulerDiscreteScheduler (v-prediction, continuous noise levels).
"""

import math
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor


class EulerStep(NamedTuple):
    """Result of one Euler step."""

    latents: Float[Tensor, "*shape"]
    """At the next noise level."""
    denoised: Float[Tensor, "*shape"]
    """Estimate of the clean latents."""


def churned_sigma(
    sigma: float, num_steps: int, s_churn: float, sigma_range: tuple[float, float] = (0.0, math.inf)
) -> float:
    """Return the raised noise level sigma_hat = sigma + gamma * sigma.

    Args:
        sigma: Level of the step.
        num_steps: Denoising steps of the run; the churn is shared among them.
        s_churn: Amount of churn; 0 leaves the level alone.
        sigma_range: Only levels within it, limits included, are raised.
    """
    if not sigma_range[0] <= sigma <= sigma_range[1]:
        return sigma
    return sigma * (1 + min(s_churn / num_steps, math.sqrt(2) - 1))


def add_noise(
    latents: Float[Tensor, "*shape"],
    noise: Float[Tensor, "*shape"],
    sigma: float,
    sigma_hat: float,
) -> Float[Tensor, "*shape"]:
    """Raise the noise level of latents from `sigma` to `sigma_hat`.

    Args:
        latents: At `sigma`.
        noise: Independent noise, of deviation s_noise (1 keeps the statistics exact).
        sigma: Level now.
        sigma_hat: Level wanted, at least `sigma`.
    """
    return latents + math.sqrt(sigma_hat**2 - sigma**2) * noise


def published_euler_step(
    latents: Float[Tensor, "*shape"],
    raw_output: Float[Tensor, "*shape"],
    sigma: float,
    next_sigma: float,
    *,
    sigma_hat: float | None = None,
    noise: Float[Tensor, "*shape"] | None = None,
) -> EulerStep:
    """Step from a raw v-prediction as the released code does, for latents of deviation 1.

    With churn the released order differs from Karras et al.: the network has seen the latents
    before the noise, and the estimate mixes its output at `sigma` with the noised latents.

    Args:
        latents: At `sigma`.
        raw_output: Of the network at `sigma`, after guidance.
        sigma: Level of the step.
        next_sigma: Level after it.
        sigma_hat: Raised level; None means no churn.
        noise: For churn, of deviation s_noise.
    """
    if sigma_hat is None or noise is None:
        noised, sigma_hat = latents, sigma
    else:
        noised = add_noise(latents, noise, sigma, sigma_hat)
    denoised = raw_output * (-sigma / math.sqrt(sigma**2 + 1)) + noised / (sigma**2 + 1)
    return EulerStep(euler_update(noised, denoised, sigma_hat, next_sigma), denoised)


def euler_update(
    latents: Float[Tensor, "*shape"],
    denoised: Float[Tensor, "*shape"],
    sigma: float,
    next_sigma: float,
) -> Float[Tensor, "*shape"]:
    """Return latents at the next noise level: a straight step along (latents - denoised) / sigma.

    Args:
        latents: At `sigma`.
        denoised: Estimate of the clean latents, corrected or not.
        sigma: Level of the latents.
        next_sigma: Level wanted.
    """
    return latents + (latents - denoised) / sigma * (next_sigma - sigma)
