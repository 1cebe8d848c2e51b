"""The four coefficients between the raw network and the denoiser (v-prediction).

    denoised = c_skip(sigma) * noisy_latents + c_out(sigma) * raw_output(c_in * noisy_latents)

References:
    Karras et al. 2022, Table 1; with sigma_data = 1 and the sign of v-prediction these are the
    coefficients of Stable Video Diffusion.
"""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor


class Preconditioning(NamedTuple):
    """Coefficients of one batch of noise levels."""

    c_skip: Float[Tensor, " batch"]
    c_out: Float[Tensor, " batch"]
    c_in: Float[Tensor, " batch"]
    c_noise: Float[Tensor, " batch"]


def precondition(sigma: Float[Tensor, " batch"], sigma_data: float) -> Preconditioning:
    """Return the coefficients that give network input and target unit variance.

    Args:
        sigma: Noise levels, above 0.
        sigma_data: Standard deviation of the latents.
    """
    variance = sigma.square() + sigma_data**2
    return Preconditioning(
        c_skip=sigma_data**2 / variance,
        c_out=-sigma * sigma_data * variance.rsqrt(),
        c_in=variance.rsqrt(),
        c_noise=0.25 * sigma.log(),
    )


def loss_weight(sigma: Float[Tensor, " batch"], sigma_data: float) -> Float[Tensor, " batch"]:
    """Return 1 / c_out squared: the weight that makes every noise level count alike."""
    return (sigma.square() + sigma_data**2) / (sigma * sigma_data).square()
