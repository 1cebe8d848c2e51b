"""The animator's U-Net: Stable Video Diffusion's, with three changes.

Pose features are added after `conv_in`; each spatial cross-attention carries an identity adapter;
temporal cross-attention does not see the face tokens. State-dict keys equal the published ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as nnf
from jaxtyping import Float
from torch import Tensor, nn

from animaray.models.networks.animator_config import ActivationCheckpointing, UNetConfig
from animaray.models.networks.identity_adapter import IdentityAdapter
from animaray.models.networks.unet_layers import (
    GROUPS,
    Downsample,
    IdentityAttention,
    NumberEmbedding,
    SpatioTemporalResBlock,
    SpatioTemporalTransformer,
    TemporalTransformerBlock,
    TransformerBlock,
    Upsample,
    run_block,
    sinusoids,
)

_EPS, _EPS_PLAIN = 1e-6, 1e-5
"""Of the residual blocks' group norms; the second in the middle and, on the way down, at levels
without attention: so the published weights were trained."""


_Widths = list[tuple[int, int]]
"""Channels before and after each residual block of a level."""


class _Level(nn.Module):
    """One resolution: residual blocks, each followed by a transformer if the level attends."""

    def __init__(self, config: UNetConfig, widths: _Widths, heads: int | None, eps: float) -> None:
        super().__init__()
        embedding_dim = 4 * config.block_out_channels[0]
        self.resnets = nn.ModuleList(
            SpatioTemporalResBlock(before, after, embedding_dim, eps) for before, after in widths
        )
        self.attentions = nn.ModuleList(
            _transformer(config, after, heads) for _, after in widths if heads is not None
        )

    def _run_layer(self, index: int, x: Tensor, told: "_Told") -> Tensor:
        x = run_block(self.resnets[index], x, told.embedding, told.num_frames)
        if index < len(self.attentions):
            x = self.attentions[index](x, told.context, told.num_frames)
        return x


class _DownLevel(_Level):
    """A level of the way down; ends in half the resolution, but for the last."""

    def __init__(
        self, config: UNetConfig, widths: _Widths, heads: int | None, eps: float, *, is_last: bool
    ) -> None:
        super().__init__(config, widths, heads, eps)
        self.downsamplers = None if is_last else nn.ModuleList([Downsample(widths[-1][1])])

    def forward(self, x: Tensor, told: "_Told") -> tuple[Tensor, list[Tensor]]:
        """Return the features, and those after every layer."""
        kept = []
        for index in range(len(self.resnets)):
            x = self._run_layer(index, x, told)
            kept.append(x)
        if self.downsamplers is not None:
            x = self.downsamplers[0](x)
            kept.append(x)
        return x, kept


class _MiddleLevel(_Level):
    """A residual block, a transformer, a residual block."""

    def forward(self, x: Tensor, told: "_Told") -> Tensor:
        """Return the features."""
        for index in range(len(self.resnets)):
            x = self._run_layer(index, x, told)
        return x


class _UpLevel(_Level):
    """A level of the way up; ends in twice the resolution, but for the last."""

    def __init__(
        self, config: UNetConfig, widths: _Widths, heads: int | None, *, is_last: bool
    ) -> None:
        super().__init__(config, widths, heads, _EPS)
        self.upsamplers = None if is_last else nn.ModuleList([Upsample(widths[-1][1])])

    def forward(self, x: Tensor, kept: list[Tensor], told: "_Told") -> Tensor:
        """Return the features; takes what it hears again off the end of `kept`."""
        for index in range(len(self.resnets)):
            x = self._run_layer(index, torch.cat([x, kept.pop()], dim=1), told)
        if self.upsamplers is not None:
            x = self.upsamplers[0](x, kept[-1].shape[2:])
        return x


@dataclass(frozen=True, slots=True)
class _Told:
    """What every layer is told."""

    embedding: Float[Tensor, "batch_frames embedding"]
    context: Float[Tensor, "batch_frames context cross"]
    num_frames: int


class AnimatorUNet(nn.Module):
    """Predict the raw output from scaled noisy latents, reference latents and conditioning."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.block_out_channels
        embedding_dim = 4 * widths[0]
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.time_embedding = NumberEmbedding(widths[0], embedding_dim, embedding_dim)
        self.add_embedding = NumberEmbedding(
            3 * config.addition_time_embed_dim, embedding_dim, embedding_dim
        )
        self.down_blocks = nn.ModuleList(_way_down(config))
        self.mid_block = _middle(config)
        self.up_blocks = nn.ModuleList(_way_up(config))
        self.conv_norm_out = nn.GroupNorm(GROUPS, widths[0], eps=1e-5)
        self.conv_out = nn.Conv2d(widths[0], config.out_channels, 3, padding=1)
        self.initialize_adapter()
        self._freeze_unused()

    @torch.no_grad()
    def initialize_adapter(self) -> None:
        """Start the face attention from the image attention's weights, as published."""
        for layer in self.modules():
            if isinstance(layer, IdentityAttention):
                layer.processor.id_to_k.weight.copy_(layer.to_k.weight)
                layer.processor.id_to_v.weight.copy_(layer.to_v.weight)

    def _freeze_unused(self) -> None:
        """Freeze what cannot learn: queries and keys of attention to the one image token."""
        temporal = "temporal_transformer_blocks.0."
        unused = ("attn2.to_k", f"{temporal}attn2.to_q", f"{temporal}norm2")
        for name, module in self.named_modules():
            if name.endswith(unused):
                module.requires_grad_(requires_grad=False)

    def recompute(self, mode: ActivationCheckpointing) -> None:
        """Choose what the backward pass computes again instead of reading; results stay.

        Counted for the published sizes, one clip of 16 frames 576x1024 in bfloat16: everything
        stored 77 GiB; `spatial` 45 GiB for 1.2 times the operations; `all` 12 GiB for 1.3 times.
        """
        first_of_middle = self.mid_block.resnets[0]  # small: stored in every mode
        for block in self.modules():
            if isinstance(block, TemporalTransformerBlock):
                block.recomputes = mode == "all"
            elif isinstance(block, SpatioTemporalResBlock | TransformerBlock):
                block.recomputes = mode != "none" and block is not first_of_middle

    def forward(
        self,
        sample: Float[Tensor, "batch frames channels h w"],
        timestep: Float[Tensor, " batch"] | Float[Tensor, ""],
        context: Float[Tensor, "batch context cross"],
        added_time_ids: Float[Tensor, "batch 3"],
        injected_features: Float[Tensor, "batch frames width h w"] | None = None,
    ) -> Float[Tensor, "batch frames out_channels h w"]:
        """Run the network on injected features, context and noise level.

        Args:
            sample: Scaled noisy latents and reference latents, concatenated on channels.
            timestep: c_noise, one per clip.
            context: Image tokens, then the face tokens.
            added_time_ids: Frame rate, motion bucket and noise strength, per clip.
            injected_features: Added to the output of `conv_in`; None adds nothing.
        """
        batch, frames = sample.shape[:2]
        embedding = self._embed(timestep.expand(batch), added_time_ids, sample.dtype)
        told = _Told(
            embedding.repeat_interleave(frames, dim=0),
            context.repeat_interleave(frames, dim=0),
            frames,
        )
        x = self.conv_in(sample.flatten(0, 1))
        if injected_features is not None:
            x = x + injected_features.to(sample.dtype).flatten(0, 1)

        # The way down keeps what each layer said; the way up hears it again, last first.
        kept = [x]
        for level in self.down_blocks:
            x, further = level(x, told)
            kept += further
        x = self.mid_block(x, told)
        for level in self.up_blocks:
            x = level(x, kept, told)

        x = self.conv_out(nnf.silu(self.conv_norm_out(x)))
        return torch.unflatten(x, 0, (batch, frames))

    def _embed(
        self,
        timestep: Float[Tensor, " batch"],
        added_time_ids: Float[Tensor, "batch 3"],
        dtype: torch.dtype,
    ) -> Float[Tensor, "batch embedding"]:
        """Return the embedding of noise level, frame rate, motion and noise of the reference."""
        noise = self.time_embedding(
            sinusoids(timestep, self.config.block_out_channels[0]).to(dtype)
        )
        waves = sinusoids(added_time_ids.flatten(), self.config.addition_time_embed_dim)
        return noise + self.add_embedding(waves.reshape(len(timestep), -1).to(noise.dtype))


def _way_down(config: UNetConfig) -> Iterator[_DownLevel]:
    widths = config.block_out_channels
    before = widths[0]
    for index, after in enumerate(widths):
        attends = config.has_attention[index]
        yield _DownLevel(
            config,
            [(before, after), *[(after, after)] * (config.layers_per_block - 1)],
            config.num_attention_heads[index] if attends else None,
            _EPS if attends else _EPS_PLAIN,
            is_last=index == len(widths) - 1,
        )
        before = after


def _middle(config: UNetConfig) -> _MiddleLevel:
    width = config.block_out_channels[-1]
    middle = _MiddleLevel(config, [(width, width)] * 2, config.num_attention_heads[-1], _EPS_PLAIN)
    del middle.attentions[-1]  # none after the second residual block
    return middle


def _way_up(config: UNetConfig) -> Iterator[_UpLevel]:
    widths = config.block_out_channels
    before = widths[-1]
    for index in reversed(range(len(widths))):
        after = widths[index]
        # What the way down kept at this level, last first; before its first layer, a level wider.
        kept = [*[after] * config.layers_per_block, widths[max(index - 1, 0)]]
        inputs = [before, *[after] * config.layers_per_block]
        yield _UpLevel(
            config,
            [(x + y, after) for x, y in zip(inputs, kept, strict=True)],
            config.num_attention_heads[index] if config.has_attention[index] else None,
            is_last=index == 0,
        )
        before = after


def _transformer(config: UNetConfig, width: int, heads: int) -> SpatioTemporalTransformer:
    adapter = IdentityAdapter(
        width,
        config.cross_attention_dim,
        num_face_tokens=config.num_face_tokens,
        mode=config.adapter_mode,
        scale=config.adapter_scale,
    )
    return SpatioTemporalTransformer(width, heads, config.cross_attention_dim, adapter)
