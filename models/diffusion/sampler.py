"""The sampler: from noise to latents along a falling schedule of noise levels.

`heun` is the paper's Algorithm 1: Karras et al. 2022, Algorithm 2 (churn, then a second-order
step), with face optimization of the first estimate of each step. `euler` is the released code's
loop. The letters are Karras et al.'s; their denoiser D(x; sigma) is a GuidedDenoiser, which sees a
clip in windows over time.
"""

import itertools
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor

from animaray.models.diffusion.sampler_config import SamplerConfig, StepInfo, WindowRule
from animaray.models.diffusion.schedule import karras_sigmas
from animaray.models.diffusion.windows import (
    Seam,
    blend_weights,
    borders_of,
    jumps,
    window_indices,
)
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


def frame_guidance(
    first_scale: float, last_scale: float | None, num_frames: int
) -> Float[Tensor, " frames"]:
    """Return one guidance scale per frame, rising evenly from the first frame to the last.

    Args:
        first_scale: Of frame 0 (the published pipeline's minimum).
        last_scale: Of the last frame (its maximum); None means the same for all.
        num_frames: Frames of the clip.
    """
    return torch.linspace(
        first_scale, first_scale if last_scale is None else last_scale, num_frames
    )


class GuidedDenoiser:
    """The denoiser D(x; sigma) of one clip: estimate every window, guide it, blend the windows."""

    def __init__(  # noqa: PLR0913 - what a clip needs, by keyword
        self,
        animator: Animator,
        conditioning: Conditioning | EncodedConditioning,
        guidance: Float[Tensor, " frames"],
        *,
        window_frames: int,
        window_overlap: int,
        window_rule: WindowRule,
        use_bfloat16: bool = False,
    ) -> None:
        """Encode the conditioning and cut it and the weights into windows, once per clip.

        Args:
            animator: In evaluation mode.
            conditioning: Of the whole clip.
            guidance: Scale of each frame; 1 everywhere skips the second branch.
            window_frames: This and the next two as for `window_indices`.
            use_bfloat16: Run the networks in bfloat16.
        """
        self._animator = animator
        self._use_bfloat16 = use_bfloat16
        device = conditioning.reference_latents.device
        if isinstance(conditioning, Conditioning):
            with self._precision(device):
                conditioning = animator.encode_conditioning(conditioning)
        self.encoded = conditioning
        windows = window_indices(len(guidance), window_frames, window_overlap, window_rule)
        weights = blend_weights(windows, window_rule)
        self._borders = borders_of(windows, weights, window_rule)
        self._windows = [window.to(device) for window in windows]
        self._weights = [weight.to(device)[:, None, None, None] for weight in weights]
        self._guidance = guidance.to(device)[:, None, None, None]
        self._is_guided = not bool((guidance == 1).all())
        unconditional = animator.unconditional(conditioning)
        self._conditional = [conditioning.window(window) for window in self._windows]
        self._unconditional = [unconditional.window(window) for window in self._windows]
        self.seams: tuple[Seam, ...] = ()
        """How well the windows fit together in the last estimate, one per border."""

    def __call__(
        self, latents: Float[Tensor, "batch frames channels h w"], sigma: float
    ) -> Float[Tensor, "batch frames channels h w"]:
        """Return the guided estimate of the clean clip.

        Args:
            latents: Of the whole clip.
            sigma: Their noise level.
        """
        total, weights = torch.zeros_like(latents), torch.zeros_like(latents[0, :, :1, :1, :1])
        disagreements: list[float] = []
        earlier: Tensor | None = None
        for index, window in enumerate(self._windows):
            estimate = self._estimate(latents[:, window], sigma, index)
            weight = self._weights[index].to(latents.dtype)
            total.index_add_(1, window, weight * estimate)
            weights.index_add_(0, window, weight)
            if earlier is not None:
                disagreements.append(self._borders[index - 1].disagreement(earlier, estimate))
            earlier = estimate
        blended = total / weights
        if self._borders:
            found = jumps(blended, [border.frame for border in self._borders])
            self.seams = tuple(
                Seam(frame=border.frame, num_shared=border.num_shared, disagreement=much, jump=jump)
                for border, much, jump in zip(self._borders, disagreements, found, strict=True)
            )
        return blended

    def _estimate(
        self, latents: Float[Tensor, "batch window channels h w"], sigma: float, index: int
    ) -> Float[Tensor, "batch window channels h w"]:
        conditional = self._denoise(latents, sigma, self._conditional[index])
        if not self._is_guided:
            return conditional
        unconditional = self._denoise(latents, sigma, self._unconditional[index])
        scale = self._guidance[self._windows[index]].to(latents.dtype)
        return unconditional + scale * (conditional - unconditional)

    def _denoise(
        self,
        latents: Float[Tensor, "batch window channels h w"],
        sigma: float,
        conditioning: EncodedConditioning,
    ) -> Float[Tensor, "batch window channels h w"]:
        levels = torch.full((len(latents),), sigma, device=latents.device)
        with self._precision(latents.device):
            denoised = self._animator.denoise(latents, levels, conditioning)
        return denoised.to(latents.dtype)

    def _precision(self, device: torch.device) -> AbstractContextManager[object]:
        return torch.autocast(device.type, torch.bfloat16) if self._use_bfloat16 else nullcontext()
