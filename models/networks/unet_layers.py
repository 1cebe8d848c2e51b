"""Layers of Stable Video Diffusion's U-Net: each works over space, then over time, then mixes both.

Frames of all clips lie on the batch axis, clip by clip. Attributes are named as the published
state dicts want it (those of diffusers' UNetSpatioTemporalConditionModel, with which tests compare
every result). Source: Blattmann et al. 2023, https://arxiv.org/abs/2311.15127.
"""

import math

import torch
import torch.nn.functional as nnf
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from animaray.models.networks.attention import attend
from animaray.models.networks.identity_adapter import IdentityAdapter

GROUPS = 32
"""Of every group norm."""
_MAX_PERIOD = 10_000


class TemporalConv(nn.Conv3d):
    """Convolution over three frames; on the CPU a flat one, the same result in half the time."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, (3, 1, 1), padding=(1, 0, 0))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - name fixed by nn.Conv3d
        """Convolve along the third axis."""
        if input.device.type != "cpu":
            return super().forward(input)
        flat = nnf.conv2d(input.flatten(3), self.weight.flatten(3), self.bias, padding=(1, 0))
        return torch.unflatten(flat, 3, input.shape[3:])


class Mixer(nn.Module):
    """Mix what space and what time say by one learned share."""

    def __init__(self) -> None:
        super().__init__()
        self.mix_factor = nn.Parameter(torch.tensor([0.5]))

    def forward(
        self, spatial: Float[Tensor, "*shape"], temporal: Float[Tensor, "*shape"]
    ) -> Float[Tensor, "*shape"]:
        """Return the mixture; the share of space is the sigmoid of `mix_factor`."""
        share = torch.sigmoid(self.mix_factor).to(spatial.dtype)
        return share * spatial + (1.0 - share) * temporal


class NumberEmbedding(nn.Module):
    """Two linear layers on the sinusoids of numbers."""

    def __init__(self, in_channels: int, hidden_dim: int, out_channels: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(in_channels, hidden_dim)
        self.linear_2 = nn.Linear(hidden_dim, out_channels)

    def forward(self, waves: Float[Tensor, "rows in_dim"]) -> Float[Tensor, "rows out_dim"]:
        """Embed the sinusoids."""
        embedded: Tensor = self.linear_2(nnf.silu(self.linear_1(waves)))
        return embedded


def sinusoids(numbers: Num[Tensor, " rows"], channels: int) -> Float[Tensor, "rows channels"]:
    """Return cosines and sines of numbers, periods from 2 pi to nearly 10,000 times that."""
    steps = torch.arange(channels // 2, dtype=torch.float32, device=numbers.device)
    frequencies = torch.exp(-math.log(_MAX_PERIOD) * steps / (channels // 2))
    angles = numbers[:, None].float() * frequencies
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)


class _ResBlock(nn.Module):
    """Two normalised convolutions around the embedding of the noise level, and a way past them."""

    def __init__(self, in_channels: int, out_channels: int, embedding_dim: int, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, in_channels, eps)
        self.conv1 = self._conv(in_channels, out_channels)
        self.time_emb_proj = nn.Linear(embedding_dim, out_channels)
        self.norm2 = nn.GroupNorm(GROUPS, out_channels, eps)
        self.conv2 = self._conv(out_channels, out_channels)
        self.conv_shortcut = (
            nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None
        )

    def _conv(self, in_channels: int, out_channels: int) -> nn.Module:
        return nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def _broadcast(self, embedded: Tensor) -> Tensor:
        return embedded[:, :, None, None]

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Return the block's output, in the shape of the input but for the channels."""
        hidden = self.conv1(nnf.silu(self.norm1(x)))
        hidden = hidden + self._broadcast(self.time_emb_proj(nnf.silu(embedding)))
        hidden = self.conv2(nnf.silu(self.norm2(hidden)))
        if self.conv_shortcut is not None:
            x = self.conv_shortcut(x.contiguous() if self.training else x)
        return x + hidden


class _TemporalResBlock(_ResBlock):
    """The same over time: clips with frames on the third axis."""

    def _conv(self, in_channels: int, out_channels: int) -> nn.Module:
        return TemporalConv(in_channels, out_channels)

    def _broadcast(self, embedded: Tensor) -> Tensor:
        return embedded.permute(0, 2, 1)[:, :, :, None, None]


class SpatioTemporalResBlock(nn.Module):
    """A residual block over each frame, then one over time."""

    recomputes = False

    def __init__(self, in_channels: int, out_channels: int, embedding_dim: int, eps: float) -> None:
        super().__init__()
        self.spatial_res_block = _ResBlock(in_channels, out_channels, embedding_dim, eps)
        self.temporal_res_block = _TemporalResBlock(out_channels, out_channels, embedding_dim, eps)
        self.time_mixer = Mixer()

    def forward(
        self,
        x: Float[Tensor, "batch_frames in_channels h w"],
        embedding: Float[Tensor, "batch_frames embedding"],
        num_frames: int,
    ) -> Float[Tensor, "batch_frames out_channels h w"]:
        """Return the features of frames that know their neighbours."""
        spatial: Tensor = self.spatial_res_block(x, embedding)
        spatial = torch.unflatten(spatial, 0, (-1, num_frames)).permute(0, 2, 1, 3, 4)
        embedding = torch.unflatten(embedding, 0, (-1, num_frames))
        mixed = self.time_mixer(spatial, self.temporal_res_block(spatial, embedding))
        return mixed.permute(0, 2, 1, 3, 4).flatten(0, 1)


class Attention(nn.Module):
    """Multi-head attention to the context, or to itself.

    Raises:
        ValueError: The width cannot be shared among the heads.
    """

    def __init__(self, dim: int, num_heads: int, context_dim: int | None = None) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"The width must be a multiple of {num_heads} heads, got {dim}.")
        self.heads = num_heads
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(context_dim or dim, dim, bias=False)
        self.to_v = nn.Linear(context_dim or dim, dim, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim), nn.Identity()])

    def forward(
        self,
        x: Float[Tensor, "rows tokens channels"],
        context: Float[Tensor, "rows context cross"] | None = None,
    ) -> Float[Tensor, "rows tokens channels"]:
        """Return the attended tokens; without a context, to themselves."""
        context = x if context is None else context
        attended = attend(self.to_q(x), self.to_k(context), self.to_v(context), self.heads)
        output: Tensor = self.to_out[0](attended)
        return output


class IdentityAttention(Attention):
    """Attention to image and face tokens, merged by the identity adapter."""

    def __init__(
        self, dim: int, num_heads: int, context_dim: int, adapter: IdentityAdapter
    ) -> None:
        super().__init__(dim, num_heads, context_dim)
        self.processor = adapter

    def forward(
        self,
        x: Float[Tensor, "rows tokens channels"],
        context: Float[Tensor, "rows context cross"] | None = None,
    ) -> Float[Tensor, "rows tokens channels"]:
        """Return the merged attention; the last tokens of the context are the face's.

        Raises:
            ValueError: There is no context.
        """
        if context is None:
            raise ValueError("The identity adapter needs a context; it is not self-attention.")
        image, face = context.tensor_split([-self.processor.num_face_tokens], dim=1)
        query = self.to_q(x)
        attended = attend(query, self.to_k(image), self.to_v(image), self.heads)
        output: Tensor = self.to_out[0](self.processor(query, attended, face, self.heads))
        return output


class FeedForward(nn.Module):
    """A gated linear layer (GEGLU, https://arxiv.org/abs/2002.05202) four times as wide."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        gate = nn.Module()
        gate.proj = nn.Linear(dim, 8 * dim)
        self.net = nn.ModuleList([gate, nn.Identity(), nn.Linear(4 * dim, dim)])

    def forward(self, x: Float[Tensor, "*rows channels"]) -> Float[Tensor, "*rows channels"]:
        """Return the output for each token."""
        values, gate = self.net[0].get_submodule("proj")(x).chunk(2, dim=-1)
        output: Tensor = self.net[2](values * nnf.gelu(gate))
        return output


class TransformerBlock(nn.Module):
    """Self-attention, attention to the context, feed-forward, each normalised and added."""

    recomputes = False

    def __init__(self, dim: int, num_heads: int, cross_attention: Attention) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn1 = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.attn2 = cross_attention
        self.norm3 = nn.LayerNorm(dim)
        self.ff = FeedForward(dim)

    def forward(
        self, x: Float[Tensor, "rows tokens channels"], context: Float[Tensor, "rows context cross"]
    ) -> Float[Tensor, "rows tokens channels"]:
        """Return the tokens, each knowing the others and the context."""
        x = self.attn1(self.norm1(x)) + x
        x = self.attn2(self.norm2(x), context) + x
        output: Tensor = self.ff(self.norm3(x)) + x
        return output


class TemporalTransformerBlock(TransformerBlock):
    """The same along time: each position attends to itself in the other frames."""

    def __init__(self, dim: int, num_heads: int, cross_attention: Attention) -> None:
        super().__init__(dim, num_heads, cross_attention)
        self.norm_in = nn.LayerNorm(dim)
        self.ff_in = FeedForward(dim)

    def forward(
        self, x: Float[Tensor, "rows tokens channels"], context: Float[Tensor, "rows context cross"]
    ) -> Float[Tensor, "rows tokens channels"]:
        """Return the tokens (one row per position, one token per frame)."""
        return super().forward(self.ff_in(self.norm_in(x)) + x, context)


class SpatioTemporalTransformer(nn.Module):
    """A transformer block over the positions of each frame, then one over the frames."""

    def __init__(
        self, dim: int, num_heads: int, cross_attention_dim: int, adapter: IdentityAdapter
    ) -> None:
        super().__init__()
        spatial = IdentityAttention(dim, num_heads, cross_attention_dim, adapter)
        temporal = Attention(dim, num_heads, cross_attention_dim)
        self.num_face_tokens = adapter.num_face_tokens
        self.norm = nn.GroupNorm(GROUPS, dim, eps=1e-6)
        self.proj_in = nn.Linear(dim, dim)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(dim, num_heads, spatial)])
        self.temporal_transformer_blocks = nn.ModuleList(
            [TemporalTransformerBlock(dim, num_heads, temporal)]
        )
        self.time_pos_embed = NumberEmbedding(dim, 4 * dim, dim)
        self.time_mixer = Mixer()
        self.proj_out = nn.Linear(dim, dim)

    def forward(
        self,
        x: Float[Tensor, "batch_frames channels h w"],
        context: Float[Tensor, "batch_frames context cross"],
        num_frames: int,
    ) -> Float[Tensor, "batch_frames channels h w"]:
        """Return the features after both blocks.

        Args:
            x: Features of each frame.
            context: Image tokens, then face tokens; time sees the image tokens alone.
            num_frames: Frames of each clip.
        """
        height, width = x.shape[2:]
        tokens = self.proj_in(self.norm(x).permute(0, 2, 3, 1).flatten(1, 2))

        # Over space.
        tokens = run_block(self.transformer_blocks[0], tokens, context)

        # Over time: frames become the tokens of each position, and know their place in the clip.
        places = torch.arange(num_frames, device=x.device).repeat(len(x) // num_frames)
        places = self.time_pos_embed(sinusoids(places, tokens.shape[-1]).to(tokens.dtype))
        placed = torch.unflatten(tokens + places[:, None], 0, (-1, num_frames))
        image = context[::num_frames, : -self.num_face_tokens]
        moved = run_block(
            self.temporal_transformer_blocks[0],
            placed.transpose(1, 2).flatten(0, 1),
            image.repeat_interleave(tokens.shape[1], dim=0),
        )
        moved = torch.unflatten(moved, 0, (-1, tokens.shape[1])).transpose(1, 2).flatten(0, 1)

        mixed = self.proj_out(self.time_mixer(tokens, moved))
        return torch.unflatten(mixed, 1, (height, width)).permute(0, 3, 1, 2).contiguous() + x


class Downsample(nn.Module):
    """Halve height and width."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Float[Tensor, "frames channels h w"]) -> Tensor:
        """Return the smaller features."""
        output: Tensor = self.conv(x)
        return output


class Upsample(nn.Module):
    """Grow height and width to those of the features on the way down."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "frames channels h w"], size: torch.Size) -> Tensor:
        """Return features of `size`."""
        output: Tensor = self.conv(nnf.interpolate(x, size=size, mode="nearest"))
        return output


def run_block(block: nn.Module, *inputs: Tensor | int) -> Tensor:
    """Run a block; one that recomputes stores nothing of its inside for the backward pass."""
    if block.recomputes and torch.is_grad_enabled():
        stored: Tensor = checkpoint(block, *inputs, use_reentrant=False)
        return stored
    output: Tensor = block(*inputs)
    return output
