"""Denoise a whole clip: windows over time, guidance with a scale per frame, blend, seams."""

from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor

from animaray.models.diffusion.sampler_config import WindowRule
from animaray.models.diffusion.windows import (
    Seam,
    blend_weights,
    borders_of,
    jumps,
    window_indices,
)
from animaray.models.networks.animator import Animator
from animaray.models.networks.conditioning import Conditioning, EncodedConditioning


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
            window_frames: As for `window_indices`.
            window_overlap: Likewise.
            window_rule: Likewise.
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
