"""The latent codec of Stable Video Diffusion: diffusers' AutoencoderKLTemporalDecoder.

Latents are already scaled (times `scaling_factor`). Frames that are decoded together see each
other through temporal convolutions, so decoding a clip in chunks gives other pixels at the borders.
"""

from pathlib import Path

import torch
import torch.nn.functional as nnf
from diffusers import AutoencoderKLTemporalDecoder
from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import TemporalDecoder
from diffusers.models.resnet import SpatioTemporalResBlock
from diffusers.models.upsampling import Upsample2D
from jaxtyping import Float
from torch import Tensor, nn

from animaray.models.perception.decoding.windowed_decoding import DecoderPass, Stage, StagedDecoder
from animaray.models.perception.paper.frozen_convolution import frozen_convolution

DECODE_FRAMES = 4
"""Frames that a clip is decoded in, as published: each chunk is a clip of its own."""


class TemporalAutoencoderCodec(nn.Module):
    """Frames to latents of 1/8 size and back, as LatentCodec asks."""

    def __init__(self, autoencoder: AutoencoderKLTemporalDecoder) -> None:
        super().__init__()
        config = autoencoder.config
        self.name = "stable-video-diffusion/vae"
        self.latent_channels = int(config.latent_channels)
        self.downscale = 2 ** (len(config.block_out_channels) - 1)
        self.scaling_factor = float(config.scaling_factor)
        self.decode_frames = DECODE_FRAMES
        self.autoencoder = autoencoder.requires_grad_(False).eval()  # noqa: FBT003 - PyTorch's

    @classmethod
    def load(cls, folder: Path | str) -> "TemporalAutoencoderCodec":
        """Load a diffusers `vae` folder (config.json and safetensors); nothing is downloaded."""
        autoencoder = AutoencoderKLTemporalDecoder.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            low_cpu_mem_usage=False,  # the other way needs `accelerate`, for 98 million numbers
        )
        return cls(autoencoder)

    def encode(
        self, frames: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch channels latent_height latent_width"]:
        """Return the most likely latents of RGB frames in [-1, 1]."""
        return self.encode_posterior(frames)[0]

    def encode_posterior(
        self, frames: Float[Tensor, "batch 3 height width"]
    ) -> tuple[
        Float[Tensor, "batch channels latent_height latent_width"],
        Float[Tensor, "batch channels latent_height latent_width"],
    ]:
        """Return mean and standard deviation of the latents of RGB frames in [-1, 1]."""
        posterior = self.autoencoder.encode(frames).latent_dist
        mean: Tensor = posterior.mode()
        return mean * self.scaling_factor, posterior.std * self.scaling_factor

    def decode(
        self, latents: Float[Tensor, "batch channels latent_height latent_width"]
    ) -> Float[Tensor, "batch 3 height width"]:
        """Return RGB frames in about [-1, 1] of one clip; gradients flow to the latents."""
        decoded = self.autoencoder.decode(latents / self.scaling_factor, num_frames=len(latents))
        frames: Tensor = decoded.sample
        return frames

    def windowed(self) -> StagedDecoder:
        """Return the decoder for parts of frames."""
        decoder: TemporalDecoder = self.autoencoder.decoder
        return StagedDecoder(
            decoder_stages(decoder, self.scaling_factor), shares_window=True, needs_record=True
        )


def decoder_stages(decoder: TemporalDecoder, scaling_factor: float) -> list[Stage]:
    """Return the temporal decoder as stages from scaled latents to RGB."""
    stages = [
        Stage(run=lambda x, _: frozen_convolution(decoder.conv_in, x / scaling_factor), radius=1)
    ]
    middle = decoder.mid_block
    stages.append(_resnet_stage("mid.0", middle.resnets[0]))
    for index, (attention, block) in enumerate(
        zip(middle.attentions, middle.resnets[1:], strict=False)
    ):
        stages.append(_attention_stage(f"mid.attention.{index}", attention))
        stages.append(_resnet_stage(f"mid.{index + 1}", block))
    for level, up_block in enumerate(decoder.up_blocks):
        stages += [
            _resnet_stage(f"up.{level}.{index}", block)
            for index, block in enumerate(up_block.resnets)
        ]
        if up_block.upsamplers is not None:
            stages.append(_upsampler_stage(up_block.upsamplers[0]))

    def last(features: Tensor, run: DecoderPass) -> Tensor:
        normed = run.group_norm("out", decoder.conv_norm_out, features)
        frames = frozen_convolution(decoder.conv_out, decoder.conv_act(normed))
        return _over_time(frames, decoder.time_conv_out, run)

    stages.append(Stage(run=last, radius=1))
    return stages


def _upsampler_stage(upsampler: Upsample2D) -> Stage:
    def run(features: Tensor, _: DecoderPass) -> Tensor:
        doubled = nnf.interpolate(features, scale_factor=2.0, mode="nearest")
        return frozen_convolution(upsampler.conv, doubled)

    return Stage(run=run, radius=1, upscale=2)


def _resnet_stage(name: str, block: SpatioTemporalResBlock) -> Stage:
    """Return a spatial and a temporal residual block, mixed as learned."""
    spatial, temporal = block.spatial_res_block, block.temporal_res_block

    def run(features: Tensor, run: DecoderPass) -> Tensor:
        inner = nnf.silu(run.group_norm(f"{name}.spatial.1", spatial.norm1, features))
        inner = frozen_convolution(spatial.conv1, inner)
        inner = nnf.silu(run.group_norm(f"{name}.spatial.2", spatial.norm2, inner))
        inner = frozen_convolution(spatial.conv2, inner)
        shortcut = spatial.conv_shortcut
        features = (
            features if shortcut is None else frozen_convolution(shortcut, features)
        ) + inner
        clip = features.transpose(0, 1)[None]
        inner = nnf.silu(run.group_norm(f"{name}.temporal.1", temporal.norm1, clip))
        inner = _over_time_of_clip(inner, temporal.conv1, run)
        inner = nnf.silu(run.group_norm(f"{name}.temporal.2", temporal.norm2, inner))
        inner = _over_time_of_clip(inner, temporal.conv2, run)
        # The mixer weighs `features` against `features + inner`: only `inner` has a weight.
        mixer = block.time_mixer
        weight = torch.sigmoid(mixer.mix_factor)
        if not mixer.switch_spatial_to_temporal_mix:
            weight = 1 - weight
        return features + weight * inner[0].transpose(0, 1)

    return Stage(run=run, radius=2)


def _attention_stage(name: str, attention: Attention) -> Stage:
    """Return attention over a frame; a window's queries see the whole frame."""

    def run(features: Tensor, run: DecoderPass) -> Tensor:
        frames, channels, height, width = features.shape
        normed = run.group_norm(f"{name}.norm", attention.group_norm, features.flatten(2))
        tokens = normed.transpose(1, 2)
        keys, values = run.keys_and_values(name, attention.to_k(tokens), attention.to_v(tokens))

        def heads(states: Tensor) -> Tensor:
            batch, tokens, _ = states.shape
            return states.reshape(batch, tokens, attention.heads, -1).transpose(1, 2)

        mixed = nnf.scaled_dot_product_attention(
            heads(attention.to_q(tokens)), heads(keys), heads(values)
        )
        result = attention.to_out[0](mixed.transpose(1, 2).flatten(2))
        return result.transpose(1, 2).reshape(frames, channels, height, width) + features

    return Stage(run=run)


def _over_time(
    frames: Float[Tensor, "frames c h w"], conv: nn.Conv3d, run: DecoderPass
) -> Float[Tensor, "frames d h w"]:
    return _over_time_of_clip(frames.transpose(0, 1)[None], conv, run)[0].transpose(0, 1)


def _over_time_of_clip(
    clip: Float[Tensor, "1 c frames h w"], conv: nn.Conv3d, run: DecoderPass
) -> Float[Tensor, "1 d frames h w"]:
    """Convolve over time; a frame that stands for a clip has itself as both neighbours."""
    if not run.is_static:
        return frozen_convolution(conv, clip)
    weight = conv.weight.sum(dim=2, keepdim=True)
    return nnf.conv3d(clip, weight, conv.bias)
