"""Carry the reference's appearance to the driven pose by one attention over space.

Not part of the published model (docs/decisions/0002-reference-attention.md). Queries know the
driven pose and their place; keys know the reference's pose, place and latents; values are the
reference's latents. It does not depend on the noise, so a sampler computes it once per clip.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from animaray.models.networks.attention import attend_heads

START_GAIN = 2.0
"""A neighbouring latent of 24 then starts some two logits below the own place."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceAttentionConfig:
    """Sizes of the reference attention."""

    width: int = 96
    """Width of queries, keys and values."""
    num_heads: int = 3
    """Attention heads."""
    num_frequencies: int = 6
    """Octaves of the position encoding, per axis."""


class ReferenceAttention(nn.Module):
    """Gather, for each latent of each frame, what the reference shows of that body part."""

    def __init__(
        self,
        config: ReferenceAttentionConfig,
        *,
        latent_channels: int,
        pose_dim: int,
        out_channels: int,
    ) -> None:
        super().__init__()
        self.config = config
        width = config.width
        position_dim = 4 * config.num_frequencies
        self.appearance = nn.Sequential(
            nn.Conv2d(latent_channels, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
        )
        self.to_q = nn.Conv2d(pose_dim + position_dim, width, 1)
        self.to_k = nn.Conv2d(width + pose_dim + position_dim, width, 1)
        self.to_v = nn.Conv2d(width, width, 1)
        self.to_out = nn.Conv2d(width, out_channels, 1)
        self._start_at_equal_places(position_dim)

    @torch.no_grad()
    def _start_at_equal_places(self, position_dim: int) -> None:
        """Let the first head attend to its own place, so that a still background is there at once.

        Query and key see the same position encoding p; with weights g on it their product is
        g^2 (sum of cos(wave * dx) + cos(wave * dy)), largest where dx = dy = 0.
        """
        head_dim = self.config.width // self.config.num_heads
        used = min(position_dim, head_dim)
        for projection in (self.to_q, self.to_k):
            projection.weight[:used] = 0
            own_place = START_GAIN * torch.eye(used)[:, :, None, None]
            first = projection.in_channels - position_dim
            projection.weight[:used, first : first + used] = own_place

    def forward(
        self,
        reference_latents: Float[Tensor, "batch channels h w"],
        reference_pose: Float[Tensor, "batch pose_dim h w"],
        driven_pose: Float[Tensor, "batch frames pose_dim h w"],
    ) -> Float[Tensor, "batch frames out_channels h w"]:
        """Return features for the U-Net's first activations.

        Args:
            reference_latents: Clean latents of the reference image.
            reference_pose: PoseNet's trunk features of the reference's own pose picture.
            driven_pose: The same of each driven frame.
        """
        batch, frames, _, height, width = driven_pose.shape
        appearance = self.appearance(reference_latents)
        position = position_encoding(height, width, self.config.num_frequencies).to(appearance)
        key_input = [appearance, reference_pose, position.expand(batch, -1, -1, -1)]
        query_input = [driven_pose.flatten(0, 1), position.expand(batch * frames, -1, -1, -1)]
        key = self._heads(self.to_k(torch.cat(key_input, dim=1)))
        value = self._heads(self.to_v(appearance))
        query = self._heads(self.to_q(torch.cat(query_input, dim=1)))
        # The frames' queries of one clip share its keys: fold frames into the tokens.
        query = torch.unflatten(query, 0, (batch, frames)).transpose(1, 2).flatten(2, 3)
        gathered = attend_heads(query, key, value)
        gathered = torch.unflatten(gathered, 2, (frames, height, width)).permute(0, 2, 1, 5, 3, 4)
        features: Tensor = self.to_out(gathered.flatten(2, 3).flatten(0, 1))
        return torch.unflatten(features, 0, (batch, frames))

    def _heads(
        self, features: Float[Tensor, "batch channels h w"]
    ) -> Float[Tensor, "batch heads tokens head_dim"]:
        return torch.unflatten(features.flatten(2), 1, (self.config.num_heads, -1)).transpose(2, 3)


def position_encoding(
    height: int, width: int, num_frequencies: int
) -> Float[Tensor, "channels height width"]:
    """Return sines and cosines of x and y (picture height = 1), octaves from half a wave up."""
    y = (torch.arange(height) + 0.5) / height
    x = (torch.arange(width) + 0.5) / height
    waves = math.pi * 2.0 ** torch.arange(num_frequencies)
    rows = (waves[:, None] * y)[:, :, None].expand(-1, -1, width)
    columns = (waves[:, None] * x)[:, None, :].expand(-1, height, -1)
    return torch.cat([rows.sin(), rows.cos(), columns.sin(), columns.cos()])
