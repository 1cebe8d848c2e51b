"""The animator's U-Net: diffusers' Stable Video Diffusion U-Net with three changes.

Pose features are added after `conv_in`; each spatial cross-attention carries an identity adapter;
temporal cross-attention does not see the face tokens. State-dict keys equal the published ones.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as nnf
from diffusers import UNetSpatioTemporalConditionModel
from diffusers.models.resnet import AlphaBlender, TemporalResnetBlock
from jaxtyping import Float
from torch import Tensor, nn

from animaray.models.networks.animator_config import UNetConfig
from animaray.models.networks.attention import SelfAttention
from animaray.models.networks.identity_adapter import IdentityAdapter, TemporalContextAttention


class InjectionConv(nn.Conv2d):
    """First convolution; input channels beyond its own are features to add to its output."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - name fixed by nn.Conv2d
        """Convolve the leading channels and add the rest, if any."""
        if input.shape[1] == self.in_channels:
            return super().forward(input)
        sizes = [self.in_channels, input.shape[1] - self.in_channels]
        sample, features = torch.split(input, sizes, dim=1)
        return super().forward(sample) + features


class TemporalConv(nn.Conv3d):
    """Convolution over time alone; on the CPU a flat 2-D one, the same result in half the time."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - name fixed by nn.Conv3d
        """Convolve along the third axis with a (3, 1, 1) kernel."""
        if input.device.type != "cpu":
            return super().forward(input)
        flat = nnf.conv2d(input.flatten(3), self.weight.flatten(3), self.bias, padding=(1, 0))
        return torch.unflatten(flat, 3, input.shape[3:])


class AnimatorUNet(UNetSpatioTemporalConditionModel):  # type: ignore[misc] # diffusers is untyped
    """Predict the raw output from scaled noisy latents, reference latents and conditioning."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(**config.stock_settings())
        self.animator_config = config
        width = config.block_out_channels[0]
        self.conv_in = InjectionConv(config.in_channels, width, kernel_size=3, padding=1)
        for name, layer in self.named_modules():
            if name.endswith(".attn1"):
                layer.set_processor(SelfAttention())
            elif name.endswith(".attn2"):
                layer.set_processor(_cross_attention(config, name, layer))
            elif isinstance(layer, TemporalResnetBlock):
                layer.conv1, layer.conv2 = _flat_conv(layer.conv1), _flat_conv(layer.conv2)
        self.initialize_adapter()
        self._freeze_unused()

    @torch.no_grad()
    def initialize_adapter(self) -> None:
        """Start the face attention from the image attention's weights, as published."""
        for layer in self.modules():
            if isinstance(getattr(layer, "processor", None), IdentityAdapter):
                layer.processor.id_to_k.weight.copy_(layer.to_k.weight)
                layer.processor.id_to_v.weight.copy_(layer.to_v.weight)

    def _freeze_unused(self) -> None:
        """Freeze what cannot learn: queries and keys of attention to the one image token."""
        temporal = "temporal_transformer_blocks.0."
        unused = ("attn2.to_k", f"{temporal}attn2.to_q", f"{temporal}norm2")
        for name, module in self.named_modules():
            if name.endswith(unused):
                module.requires_grad_(requires_grad=False)

    def forward(
        self,
        sample: Float[Tensor, "batch frames channels h w"],
        timestep: Float[Tensor, " batch"] | Float[Tensor, ""],
        encoder_hidden_states: Float[Tensor, "batch context cross"],
        added_time_ids: Float[Tensor, "batch 3"],
        injected_features: Float[Tensor, "batch frames width h w"] | None = None,
        *,
        image_only: bool = False,
    ) -> Float[Tensor, "batch frames out_channels h w"]:
        """Run the stock network on injected features, context and noise level.

        Args:
            sample: Scaled noisy latents and reference latents, concatenated on channels.
            timestep: c_noise, one per clip.
            encoder_hidden_states: Image tokens, then the face tokens.
            added_time_ids: Frame rate, motion bucket and noise strength, per clip.
            injected_features: Added to the output of `conv_in`; None adds nothing.
            image_only: Leave out all temporal layers: every frame is a picture of its own.
        """
        if injected_features is not None:
            sample = torch.cat([sample, injected_features.to(sample.dtype)], dim=2)
        with self._as_pictures() if image_only else contextlib.nullcontext():
            output: tuple[Tensor] = super().forward(
                sample, timestep, encoder_hidden_states, added_time_ids, return_dict=False
            )
        return output[0]

    @contextlib.contextmanager
    def _as_pictures(self) -> Iterator[None]:
        """Tell every mixer of spatial and temporal layers that all frames are pictures."""

        def mark(mixer: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:  # noqa: ANN401
            del mixer
            indicator = torch.ones_like(kwargs["image_only_indicator"])
            return args, kwargs | {"image_only_indicator": indicator}

        mixers = [layer for layer in self.modules() if isinstance(layer, AlphaBlender)]
        hooks = [mixer.register_forward_pre_hook(mark, with_kwargs=True) for mixer in mixers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def _cross_attention(config: UNetConfig, name: str, layer: Any) -> nn.Module:  # noqa: ANN401
    if ".temporal_transformer_blocks." in name:
        return TemporalContextAttention(num_face_tokens=config.num_face_tokens)
    return IdentityAdapter(
        layer.inner_dim,
        config.cross_attention_dim,
        num_face_tokens=config.num_face_tokens,
        mode=config.adapter_mode,
        scale=config.adapter_scale,
    )


def _flat_conv(conv: nn.Conv3d) -> TemporalConv:
    flat = TemporalConv(conv.in_channels, conv.out_channels, (3, 1, 1), padding=(1, 0, 0))
    flat.load_state_dict(conv.state_dict())
    return flat
