"""The latent codec of the generated world: frames to 4 x h/8 x w/8 latents and back.

The place of Stable Video Diffusion's VAE in the demo. Trained by
benchmarks.bundled_weights.codec; the card generated/codec.md has its measured accuracy.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from animaray.models.frames import check_sides
from animaray.models.perception.decoding.convolutional_windows import stack_stages
from animaray.models.perception.decoding.windowed_decoding import Stage, StagedDecoder
from animaray.models.perception.generated.files import load_network, resolve_generated
from animaray.models.perception.generated.networks import (
    LATENT_CHANNELS,
    LATENT_DOWNSCALE,
    CodecDecoder,
    CodecEncoder,
)


class GeneratedCodec(nn.Module):
    """Convolutional codec whose latents have zero mean and unit variance per channel."""

    def __init__(self) -> None:
        super().__init__()
        self.name = "generated/codec"
        self.latent_channels = LATENT_CHANNELS
        self.downscale = LATENT_DOWNSCALE
        self.encoder = CodecEncoder()
        self.decoder = CodecDecoder()
        self.latent_mean: Tensor
        self.latent_std: Tensor
        self.register_buffer("latent_mean", torch.zeros(1, LATENT_CHANNELS, 1, 1))
        self.register_buffer("latent_std", torch.ones(1, LATENT_CHANNELS, 1, 1))

    @classmethod
    def load(cls, path: Path | None = None) -> "GeneratedCodec":
        """Load the shipped weights, or those of a file; frozen, in evaluation mode.

        Args:
            path: A safetensors file; None takes the shipped one.

        Raises:
            WeightsError: The file is missing or of another network.
        """
        return load_network(cls(), path or resolve_generated("codec"))

    def encode(
        self, frames: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch channels latent_height latent_width"]:
        """Return latents of about unit variance of RGB frames in [-1, 1]; see `check_sides`."""
        check_sides(frames, LATENT_DOWNSCALE)
        raw = self.encoder(frames.contiguous(memory_format=torch.channels_last))
        return ((raw - self.latent_mean) / self.latent_std).contiguous()

    def decode(
        self, latents: Float[Tensor, "batch channels latent_height latent_width"]
    ) -> Float[Tensor, "batch 3 height width"]:
        """Return RGB frames in about [-1, 1]; gradients flow to the latents."""
        frames = self.decoder(latents.contiguous(memory_format=torch.channels_last))
        return frames.contiguous()

    def windowed(self) -> StagedDecoder:
        """Return the decoder for parts of frames; every layer is local, so nothing is recorded."""
        layout = torch.channels_last
        first = Stage(run=lambda x, _: self.decoder.bend(x.contiguous(memory_format=layout)))
        stages = [first, *stack_stages(self.decoder.layers)]
        return StagedDecoder(stages, shares_window=False, needs_record=False)
