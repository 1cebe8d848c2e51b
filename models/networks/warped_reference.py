"""Tell the U-Net of a warped reference per frame: its body parts moved by the pose.

Not part of the published model (docs/decisions/0002-reference-attention.md). It is made of pixels
(`models.parts.keypoint_puppet`) and encoded by the codec; a few convolutions turn it into features
that are added to the U-Net's first activations. It does not depend on the noise. What is denoised
is the difference between the frame and its warped reference.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

NUM_MASKS = 2
"""Beside the warped reference's latents: where a part came to, and where a part left."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WarpedReferenceConfig:
    """Sizes of the warped reference's encoder."""

    width: int = 64
    """Channels between its convolutions."""
    residual_std: float = 0.45
    """Standard deviation of the difference between frames and it, in latents: `sigma_data` of
    models that denoise this difference. Measured on generated clips: 0.48."""
    start_sigma: float = 2.0
    """Noise level at which sampling starts by default: it lies under this much noise (SDEdit,
    Meng et al. 2021, https://arxiv.org/abs/2108.01073)."""


class WarpedReference(nn.Module):
    """Encode the warped reference; adds nothing before it was trained."""

    def __init__(
        self, config: WarpedReferenceConfig, *, latent_channels: int, out_channels: int
    ) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.Sequential(
            nn.Conv2d(latent_channels + NUM_MASKS, config.width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(config.width, config.width, 3, padding=1),
            nn.SiLU(),
        )
        self.to_out = nn.Conv2d(config.width, out_channels, 1)
        for weight in self.to_out.parameters():
            nn.init.zeros_(weight)

    def forward(
        self, warped: Float[Tensor, "batch frames planes h w"]
    ) -> Float[Tensor, "batch frames out_channels h w"]:
        """Return features for the U-Net's first activations.

        Args:
            warped: Latents of the warped frames, then the two masks in [0, 1].
        """
        features: Tensor = self.to_out(self.layers(warped.flatten(0, 1)))
        return torch.unflatten(features, 0, warped.shape[:2])
