"""Denoise a whole clip: windows over time, guidance with a scale per frame, blend, seams."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from animaray.models.diffusion.sampler_config import WindowRule
from animaray.models.diffusion.seams import Seam, disagreement, jumps
from animaray.models.diffusion.tiles import blend_weights, num_shared, tile_indices
from animaray.models.networks.animator import Animator
from animaray.models.networks.conditioning import EncodedConditioning


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
    """The denoiser of one clip: estimate every window, guide it, blend the windows."""

    def __init__(  # noqa: PLR0913 - what a clip needs, by keyword
        self,
        animator: Animator,
        encoded: EncodedConditioning,
        guidance: Float[Tensor, " frames"],
        *,
        window_frames: int,
        window_overlap: int,
        window_rule: WindowRule,
        use_bfloat16: bool = False,
    ) -> None:
        """Cut conditioning and weights into windows, once per clip.

        Args:
            animator: In evaluation mode.
            encoded: Conditioning of the whole clip.
            guidance: Scale of each frame; 1 everywhere skips the second branch.
            window_frames: As for `tile_indices`.
            window_overlap: Likewise.
            window_rule: Likewise.
            use_bfloat16: Run the network in bfloat16.
        """
        self._animator = animator
        self._window_rule: WindowRule = window_rule
        self._use_bfloat16 = use_bfloat16
        device = encoded.reference_latents.device
        tiles = tile_indices(len(guidance), window_frames, window_overlap, window_rule)
        weights = blend_weights(tiles, window_rule)
        self._tiles = [tile.to(device) for tile in tiles]
        self._weights = [weight.to(device)[:, None, None, None] for weight in weights]
        self._guidance = guidance.to(device)[:, None, None, None]
        self._is_guided = not bool((guidance == 1).all())
        unconditional = animator.unconditional(encoded)
        self._conditional = [encoded.window(tile) for tile in self._tiles]
        self._unconditional = [unconditional.window(tile) for tile in self._tiles]
        self._borders = _borders(tiles, weights, window_rule)

    @property
    def sigma_data(self) -> float:
        """Standard deviation of the latents."""
        return self._animator.config.residual_std

    def __call__(
        self,
        latents: Float[Tensor, "batch frames channels h w"],
        sigma: float,
        on_seams: Callable[[tuple[Seam, ...]], None] | None = None,
    ) -> Float[Tensor, "batch frames channels h w"]:
        """Return the guided estimate of the clean clip at a noise level.

        Args:
            latents: Of the whole clip.
            sigma: Their noise level.
            on_seams: Told how well the windows fit together, when there are several.
        """
        total, weights = torch.zeros_like(latents), torch.zeros_like(latents[0, :, :1, :1, :1])
        differences: list[float] = []
        earlier: Tensor | None = None
        for index, tile in enumerate(self._tiles):
            estimate = self._estimate(latents[:, tile], sigma, index)
            weight = self._weights[index].to(latents.dtype)
            total.index_add_(1, tile, weight * estimate)
            weights.index_add_(0, tile, weight)
            if earlier is not None:
                differences.append(self._difference(earlier, estimate, index))
            earlier = estimate if on_seams is not None else None
        blended = total / weights
        if on_seams is not None and self._borders:
            on_seams(self._seams(blended, differences))
        return blended

    def _estimate(
        self, latents: Float[Tensor, "batch tile channels h w"], sigma: float, index: int
    ) -> Float[Tensor, "batch tile channels h w"]:
        conditional = self._denoise(latents, sigma, self._conditional[index])
        if not self._is_guided:
            return conditional
        unconditional = self._denoise(latents, sigma, self._unconditional[index])
        scale = self._guidance[self._tiles[index]].to(latents.dtype)
        return unconditional + scale * (conditional - unconditional)

    def _denoise(
        self,
        latents: Float[Tensor, "batch tile channels h w"],
        sigma: float,
        conditioning: EncodedConditioning,
    ) -> Float[Tensor, "batch tile channels h w"]:
        levels = torch.full((len(latents),), sigma, device=latents.device)
        precision: AbstractContextManager[object] = nullcontext()
        if self._use_bfloat16:
            precision = torch.autocast(latents.device.type, torch.bfloat16)
        with precision:
            denoised = self._animator.denoise(latents, levels, conditioning)
        return denoised.to(latents.dtype)

    def _difference(self, earlier: Tensor, later: Tensor, index: int) -> float:
        shared = num_shared(self._tiles[index - 1], self._tiles[index], self._window_rule)
        start = 1 if self._window_rule == "published" else 0
        return disagreement(
            earlier[:, earlier.shape[1] - shared :], later[:, start : start + shared]
        )

    def _seams(
        self, blended: Float[Tensor, "batch frames channels h w"], differences: list[float]
    ) -> tuple[Seam, ...]:
        frames = [frame for frame, _ in self._borders]
        return tuple(
            Seam(frame=frame, num_shared=shared, disagreement=difference, jump=jump)
            for (frame, shared), difference, jump in zip(
                self._borders, differences, jumps(blended, frames), strict=True
            )
        )


def _borders(
    tiles: list[Int64[Tensor, " _"]], weights: list[Float[Tensor, " _"]], window_rule: WindowRule
) -> list[tuple[int, int]]:
    """Return, per pair of neighbours, where the later one outweighs, and what they share."""
    borders = []
    for index in range(1, len(tiles)):
        left = dict(zip(tiles[index - 1].tolist(), weights[index - 1].tolist(), strict=True))
        start = 1 if window_rule == "published" else 0
        right = list(zip(tiles[index].tolist(), weights[index].tolist(), strict=True))[start:]
        frame = next(frame for frame, weight in right if weight > left.get(frame, 0.0))
        borders.append((frame, num_shared(tiles[index - 1], tiles[index], window_rule)))
    return borders
