"""The sampler: from noise to latents along a falling schedule of noise levels.

`heun` is the paper's Algorithm 1: Karras et al. 2022, Algorithm 2 (churn, then a second-order
step), with face optimization of the first estimate of each step. `euler` is the released code's
loop. The letters are Karras et al.'s.
"""

import itertools
import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from animaray.models.diffusion.guided_denoiser import GuidedDenoiser, frame_guidance
from animaray.models.diffusion.sampler_config import SamplerConfig, StepInfo
from animaray.models.diffusion.schedule import karras_sigmas
from animaray.models.diffusion.windows import Seam
from animaray.models.networks.animator import Animator
from animaray.models.networks.conditioning import Conditioning, EncodedConditioning
from animaray.models.networks.preconditioning import precondition

Randn = Callable[[tuple[int, ...]], Tensor]
"""Draws unit noise of a shape; with a seed: `functools.partial(torch.randn, generator=g)`."""
CorrectDenoised = Callable[[Tensor, StepInfo], Tensor]
"""Replaces the denoised estimate of a step (face optimization)."""
OnStep = Callable[[Tensor, StepInfo, tuple[Seam, ...]], None]
"""Sees each step's (corrected) estimate of the clean clip, which it must not change, and how well
its windows fit together, one `Seam` per border; raising ends the sampling."""


@torch.no_grad()
def sample(  # noqa: PLR0913 - the one place where everything meets
    animator: Animator,
    conditioning: Conditioning | EncodedConditioning,
    num_frames: int,
    config: SamplerConfig,
    randn: Randn,
    correct_denoised: CorrectDenoised | None = None,
    on_step: OnStep | None = None,
) -> Float[Tensor, "batch frames channels h w"]:
    """Return latents of a clip; equal arguments and equal noise give equal latents.

    Args:
        animator: In evaluation mode.
        conditioning: Of the whole clip; encoded once.
        num_frames: Length of the clip.
        config: Schedule, guidance, windows.
        randn: Source of all noise: the first draw starts the clip, later ones are churn.
        correct_denoised: Called with each step's guided estimate; gradients are its own matter.
        on_step: Called after each step; the last step's estimate is the result.
    """
    guidance = frame_guidance(config.guidance_scale, config.guidance_max, num_frames)
    denoise = GuidedDenoiser(
        animator,
        conditioning,
        guidance,
        window_frames=config.window_frames,
        window_overlap=config.window_overlap,
        window_rule=config.window_rule,
        use_bfloat16=config.use_bfloat16,
    )
    num_steps, data_std = config.num_inference_steps, animator.config.residual_std
    sigmas = karras_sigmas(num_steps, config.sigma_min, config.sigma_max, config.rho).tolist()

    # Start from noise; models that correct a warped reference start around it.
    x_next = _unit_noise(denoise.encoded.reference_latents, num_frames, config, randn)
    x_next = x_next * math.hypot(sigmas[0], data_std)
    if denoise.encoded.warped_latents is not None:
        x_next = x_next + denoise.encoded.warped_latents

    for index, (sigma, sigma_next) in enumerate(itertools.pairwise(sigmas)):
        x = x_next

        # Churn: raise the noise level of this step.
        gamma = 0.0
        if config.s_churn_min <= sigma <= config.s_churn_max:
            gamma = min(config.s_churn / num_steps, math.sqrt(2) - 1)
        x_hat, sigma_hat = x, sigma * (1 + gamma)
        if sigma_hat > sigma:
            noise = randn(x.shape).to(x) * config.s_noise
            x_hat = x + math.sqrt(sigma_hat**2 - sigma**2) * noise

        # Estimate the clean clip. The released code asks the network before the churn and mixes
        # its answer with the churned latents.
        if config.sampler == "euler" and sigma_hat > sigma:
            c_skip = precondition(torch.tensor([sigma]), data_std).c_skip.to(x)
            denoised = denoise(x, sigma) + c_skip * (x_hat - x)
        else:
            denoised = denoise(x_hat, sigma_hat)
        seams = denoise.seams

        # Face optimization changes the estimate, not the latents.
        step = StepInfo(
            step_index=index,
            num_inference_steps=num_steps,
            sigma=sigma_hat,
            next_sigma=sigma_next,
        )
        if correct_denoised is not None:
            denoised = correct_denoised(denoised, step).detach()

        # Euler step along the slope d.
        d = (x_hat - denoised) / sigma_hat
        x_next = x_hat + (sigma_next - sigma_hat) * d

        # Second-order correction: the mean of the slopes at both ends.
        if config.sampler == "heun" and sigma_next > 0:
            d_next = (x_next - denoise(x_next, sigma_next)) / sigma_next
            x_next = x_hat + (sigma_next - sigma_hat) * (d + d_next) / 2

        if on_step is not None:
            on_step(denoised, step, seams)
    return x_next


def _unit_noise(
    reference_latents: Float[Tensor, "batch channels h w"],
    num_frames: int,
    config: SamplerConfig,
    randn: Randn,
) -> Float[Tensor, "batch frames channels h w"]:
    """Draw unit noise for the clip, or for one window and repeat it."""
    batch, *rest = reference_latents.shape
    drawn = min(num_frames, config.window_frames) if config.repeat_noise else num_frames
    noise = randn((batch, drawn, *rest)).to(reference_latents.device)
    return noise[:, torch.arange(num_frames) % drawn]
