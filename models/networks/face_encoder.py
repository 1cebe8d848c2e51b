"""The Face Encoder: identity embedding to face tokens, refined against the image embedding."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from animaray.platform.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class FaceEncoderConfig:
    """Sizes of the Face Encoder; the defaults are the published ones."""

    identity_dim: int = 512
    """Length of the identity embedding."""
    image_embedding_dim: int = 1024
    """Length of the image embedding."""
    cross_attention_dim: int = 1024
    """Width of the face tokens: the U-Net's context width."""
    num_tokens: int = 4
    """Face tokens; the U-Net's `num_face_tokens`."""
    depth: int = 4
    """Blocks of attention and feed-forward."""
    head_dim: int = 64
    """Width of one attention head."""
    identity_scale: float = 1.0
    """Factor on the identity embedding. The published weights expect the recogniser's raw output,
    whose length is about 20; ours are unit vectors, so models trained here use sqrt(dimension)."""

    def __post_init__(self) -> None:
        """Refuse a width that does not split into heads.

        Raises:
            ConfigError: `cross_attention_dim` is no multiple of `head_dim`.
        """
        if self.cross_attention_dim % self.head_dim:
            raise ConfigError(
                f"`cross_attention_dim` ({self.cross_attention_dim}) must be a multiple of "
                f"`head_dim` ({self.head_dim})."
            )


class PerceiverAttention(nn.Module):
    """Let the latent tokens attend to the image tokens and to themselves."""

    def __init__(self, dim: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads = dim // head_dim
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(dim, 2 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim, bias=False)

    def forward(
        self,
        image: Float[Tensor, "batch image_tokens dim"],
        tokens: Float[Tensor, "batch tokens dim"],
    ) -> Float[Tensor, "batch tokens dim"]:
        """Return what is added to the tokens."""
        image, tokens = self.norm1(image), self.norm2(tokens)
        key, value = self.to_kv(torch.cat([image, tokens], dim=1)).chunk(2, dim=-1)
        query, key, value = (
            torch.unflatten(x, -1, (self.num_heads, -1)).transpose(1, 2)
            for x in (self.to_q(tokens), key, value)
        )
        attended = nn.functional.scaled_dot_product_attention(query, key, value)
        output: Tensor = self.to_out(attended.transpose(1, 2).flatten(2))
        return output


class FusionModel(nn.Module):
    """Blocks of perceiver attention and feed-forward; starts at zero output."""

    def __init__(self, config: FaceEncoderConfig) -> None:
        super().__init__()
        dim = config.cross_attention_dim
        self.proj_in = nn.Linear(config.image_embedding_dim, dim)
        self.layers = nn.ModuleList(
            nn.ModuleList([PerceiverAttention(dim, config.head_dim), _feed_forward(dim)])
            for _ in range(config.depth)
        )
        self.proj_out = nn.Linear(dim, dim)
        self.norm_out = nn.LayerNorm(dim)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(
        self,
        tokens: Float[Tensor, "batch tokens dim"],
        image: Float[Tensor, "batch image_tokens image_dim"],
    ) -> Float[Tensor, "batch tokens dim"]:
        """Return the refined tokens."""
        image = self.proj_in(image)
        for layer in self.layers:
            attention, feed_forward = layer.children()
            tokens = tokens + attention(image, tokens)
            tokens = tokens + feed_forward(tokens)
        output: Tensor = self.norm_out(self.proj_out(tokens))
        return output


class FaceEncoder(nn.Module):
    """Turn one identity embedding into face tokens for the identity adapter."""

    def __init__(self, config: FaceEncoderConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.cross_attention_dim
        self.proj = nn.Sequential(
            nn.Linear(config.identity_dim, 2 * config.identity_dim),
            nn.GELU(),
            nn.Linear(2 * config.identity_dim, config.num_tokens * dim),
        )
        self.norm = nn.LayerNorm(dim)
        self.fusion_model = FusionModel(config)

    def forward(
        self,
        identity_embedding: Float[Tensor, "batch identity_dim"]
        | Float[Tensor, "batch 1 identity_dim"],
        image_tokens: Float[Tensor, "batch image_tokens image_dim"],
        *,
        shortcut_scale: float | None = None,
    ) -> Float[Tensor, "batch tokens dim"]:
        """Return face tokens; a zero identity embedding means that no face is known.

        Args:
            identity_embedding: From the face recogniser; see `identity_scale`.
            image_tokens: The image embedding of the reference, as one token or several.
            shortcut_scale: Return tokens before the fusion + this * refined tokens, an option of
                the released code that it never uses; None returns the refined tokens.
        """
        tokens = self.proj(identity_embedding.flatten(1) * self.config.identity_scale)
        tokens = self.norm(torch.unflatten(tokens, -1, (self.config.num_tokens, -1)))
        refined: Tensor = self.fusion_model(tokens, image_tokens)
        return refined if shortcut_scale is None else tokens + shortcut_scale * refined


def _feed_forward(dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(dim),
        nn.Linear(dim, 4 * dim, bias=False),
        nn.GELU(),
        nn.Linear(4 * dim, dim, bias=False),
    )
