"""The sampler: from noise to latents along a falling schedule of noise levels.

`euler` is the released code's loop. `heun` is the paper's Algorithm 1: Karras et al. 2022,
Algorithm 2 (churn, then a second-order step), with face optimization of the first estimate of
each step. Both know guidance per frame, windows over time and hooks.
"""

import functools
import itertools
import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from animaray.models.diffusion.guided_denoiser import GuidedDenoiser, frame_guidance
from animaray.models.diffusion.sampler_config import SamplerConfig, SamplerMethod, StepInfo
from animaray.models.diffusion.schedule import karras_sigmas
from animaray.models.diffusion.seams import Seam
from animaray.models.diffusion.steps import add_noise, churned_sigma
from animaray.models.networks.animator import Animator
from animaray.models.networks.conditioning import Conditioning, EncodedConditioning
from animaray.models.networks.preconditioning import precondition

CorrectDenoised = Callable[[Tensor, StepInfo], Tensor]
"""Replaces the denoised estimate of a step (face optimization)."""
OnStep = Callable[[StepInfo], None]
"""Called after every step; raising ends the sampling."""
OnPreview = Callable[[Tensor, StepInfo], None]
"""Sees the estimate of a step (batch, frames, channels, h, w); must not change it."""
OnSeams = Callable[[StepInfo, tuple[Seam, ...]], None]
"""Sees how well the windows of a step fit together."""


def sample(  # noqa: PLR0913 - the one place where everything meets
    animator: Animator,
    conditioning: Conditioning | EncodedConditioning,
    num_frames: int,
    config: SamplerConfig,
    generator: torch.Generator,
    correct_denoised: CorrectDenoised | None = None,
    on_step: OnStep | None = None,
    *,
    on_preview: OnPreview | None = None,
    on_seams: OnSeams | None = None,
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
        on_preview: Called with each step's (corrected) estimate of the clean clip.
        on_seams: Called in each step of a clip of several windows with one `Seam` per border;
            the last step's are those of the result.
        initial_noise: Unit noise to start from instead of drawing it.
    """
    with torch.no_grad():
        if isinstance(conditioning, Conditioning):
            with _precision(conditioning.reference_latents.device, config):
                conditioning = animator.encode_conditioning(conditioning)
        denoise = GuidedDenoiser(
            animator,
            conditioning,
            frame_guidance(config.guidance_scale, config.guidance_max, num_frames),
            window_frames=config.window_frames,
            window_overlap=config.window_overlap,
            window_rule=config.window_rule,
            use_bfloat16=config.use_bfloat16,
        )
        sigmas = karras_sigmas(
            config.num_inference_steps, config.sigma_min, config.sigma_max, config.rho
        ).tolist()
        if initial_noise is None:
            initial_noise = _draw_noise(
                conditioning.reference_latents, num_frames, config, generator
            )
        latents = initial_noise * math.hypot(sigmas[0], animator.config.residual_std)
        if conditioning.draft_latents is not None:
            latents = latents + conditioning.draft_latents
        for index, (sigma, next_sigma) in enumerate(itertools.pairwise(sigmas)):
            noised, sigma_hat = _churn(latents, sigma, config, generator)
            step = StepInfo(
                step_index=index,
                num_inference_steps=config.num_inference_steps,
                sigma=sigma_hat,
                next_sigma=next_sigma,
            )
            report = None if on_seams is None else functools.partial(on_seams, step)
            levels = (sigma, sigma_hat)
            denoised = _first_estimate(denoise, latents, noised, levels, config.sampler, report)
            if correct_denoised is not None:
                denoised = correct_denoised(denoised, step).detach()
            if on_preview is not None:
                on_preview(denoised, step)
            slope = (noised - denoised) / sigma_hat
            latents = noised + (next_sigma - sigma_hat) * slope
            if config.sampler == "heun" and next_sigma > 0:
                end_slope = (latents - denoise(latents, next_sigma)) / next_sigma
                latents = noised + (next_sigma - sigma_hat) * (slope + end_slope) / 2
            if on_step is not None:
                on_step(step)
    return latents


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
    drawn = min(num_frames, config.window_frames) if config.repeat_noise else num_frames
    noise = torch.randn((batch, drawn, *rest), generator=generator).to(reference_latents)
    return noise[:, torch.arange(num_frames) % drawn]


def _first_estimate(
    denoise: GuidedDenoiser,
    latents: Float[Tensor, "batch frames channels h w"],
    noised: Float[Tensor, "batch frames channels h w"],
    levels: tuple[float, float],
    sampler: SamplerMethod,
    on_seams: Callable[[tuple[Seam, ...]], None] | None,
) -> Float[Tensor, "batch frames channels h w"]:
    """Return the denoised estimate of churned latents.

    Algorithm 1 denoises the churned latents at their level. The released Euler step asks the
    network before the churn and mixes its output with the churned latents.
    """
    sigma, sigma_hat = levels
    if sampler == "heun" or noised is latents:
        return denoise(noised, sigma_hat, on_seams)
    c_skip = precondition(torch.tensor([sigma]), denoise.sigma_data).c_skip.to(latents)
    return denoise(latents, sigma, on_seams) + c_skip * (noised - latents)


def _churn(
    latents: Float[Tensor, "batch frames channels h w"],
    sigma: float,
    config: SamplerConfig,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "batch frames channels h w"], float]:
    """Add noise to reach a slightly higher noise level; return both."""
    limits = (config.s_churn_min, config.s_churn_max)
    sigma_hat = churned_sigma(sigma, config.num_inference_steps, config.s_churn, limits)
    if sigma_hat == sigma:
        return latents, sigma
    noise = torch.randn(latents.shape, generator=generator).to(latents) * config.s_noise
    return add_noise(latents, noise, sigma, sigma_hat), sigma_hat
