"""TAEF2, a small image autoencoder (MIT): frames to 32 x h/8 x w/8 latents and back.

The place of Stable Video Diffusion's VAE for real footage. The layers carry the numbers of the
published state dicts (taef2_encoder.pth, taef2_decoder.pth), so those load as they are.
"""

from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from animaray.models.frames import check_sides
from animaray.models.perception.checkpoint_files import load_state
from animaray.models.perception.decoding.convolutional_windows import stack_stages
from animaray.models.perception.decoding.windowed_decoding import DecoderPass, Stage, StagedDecoder
from animaray.platform.errors import WeightsError
from animaray.platform.weights.store import resolve_weights

LATENT_CHANNELS = 32
DOWNSCALE = 8
_WIDTH = 64
_CLAMP = 3.0

# Mean and standard deviation per raw latent channel over 109 real frames and photographs at up to
# 512 px (28 photographs, frames of eight videos), measured once; they only set the latents' scale.
# fmt: off
_LATENT_MEAN = (
    0.07, 0.05, 0.08, 0.10, -0.10, -0.03, -0.07, -0.07, -0.08, -0.04, 0.04, -0.03, 0.16, 0.05,
    -0.03, -0.32, 0.23, 0.05, 0.04, -0.14, -0.13, -0.08, 0.00, 0.12, -0.17, -0.04, 0.13, 0.11,
    -0.03, -0.09, -0.20, -0.05,
)
_LATENT_STD = (
    0.71, 0.86, 0.96, 1.03, 0.75, 0.87, 0.91, 0.79, 1.04, 0.59, 0.63, 0.97, 0.64, 0.73, 0.93,
    1.02, 0.76, 0.68, 0.66, 0.99, 0.70, 0.69, 0.81, 0.66, 0.93, 0.73, 0.89, 0.81, 0.75, 0.94,
    0.72, 0.87,
)
# fmt: on


class _Block(nn.Module):
    """Three 3x3 convolutions on a residual path; `pool` mixes channels globally before them."""

    receptive_radius = 3

    def __init__(self, *, has_pool: bool = False) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1),
        )
        self.pool: nn.Sequential | None = None
        if has_pool:
            self.pool = nn.Sequential(
                nn.Conv2d(_WIDTH, 4 * _WIDTH, 1, bias=False),
                nn.GroupNorm(4, 4 * _WIDTH),
                nn.ReLU(),
                nn.Conv2d(4 * _WIDTH, _WIDTH, 1, bias=False),
            )

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        if self.pool is not None:
            features = features + self.pool(features)
        return torch.relu(self.conv(features) + features)

    def run(
        self, features: Float[Tensor, "b c h w"], run: DecoderPass, name: str
    ) -> Float[Tensor, "b c h w"]:
        """Compute the block as part of a windowed decode."""
        if self.pool is not None:
            widen, norm, act, narrow = self.pool
            widened = run.group_norm(name, cast("nn.GroupNorm", norm), widen(features))
            features = features + narrow(act(widened))
        return torch.relu(self.conv(features) + features)


class _Clamp(nn.Module):
    """Bend latents smoothly into (-3, 3)."""

    def forward(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return torch.tanh(latents / _CLAMP) * _CLAMP


def _halve() -> nn.Module:
    return nn.Conv2d(_WIDTH, _WIDTH, 3, stride=2, padding=1, bias=False)


def _double() -> list[nn.Module]:
    return [nn.Upsample(scale_factor=2), nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1, bias=False)]


def make_encoder() -> nn.Sequential:
    """Return TAEF2's encoder: RGB in [0, 1] to raw latents."""
    return nn.Sequential(
        nn.Conv2d(3, _WIDTH, 3, padding=1),
        _Block(),
        _halve(),
        *(_Block() for _ in range(3)),
        _halve(),
        *(_Block() for _ in range(3)),
        _halve(),
        *(_Block(has_pool=True) for _ in range(3)),
        nn.Conv2d(_WIDTH, LATENT_CHANNELS, 3, padding=1),
    )


def make_decoder() -> nn.Sequential:
    """Return TAEF2's decoder: raw latents to RGB in about [0, 1]."""
    return nn.Sequential(
        _Clamp(),
        nn.Conv2d(LATENT_CHANNELS, _WIDTH, 3, padding=1),
        nn.ReLU(),
        *(_Block(has_pool=True) for _ in range(3)),
        *_double(),
        *(_Block() for _ in range(3)),
        *_double(),
        *(_Block() for _ in range(3)),
        *_double(),
        _Block(),
        nn.Conv2d(_WIDTH, 3, 3, padding=1),
    )


class TinyAutoencoderCodec(nn.Module):
    """Latent codec for real footage; latents have about zero mean and unit variance a channel."""

    def __init__(self) -> None:
        super().__init__()
        self.name = "permissive/taef2"
        self.latent_channels = LATENT_CHANNELS
        self.downscale = DOWNSCALE
        self.encoder = make_encoder()
        self.decoder = make_decoder()
        self.latent_mean: Tensor
        self.latent_std: Tensor
        shape = (1, LATENT_CHANNELS, 1, 1)
        self.register_buffer("latent_mean", torch.tensor(_LATENT_MEAN).reshape(shape))
        self.register_buffer("latent_std", torch.tensor(_LATENT_STD).reshape(shape))

    @classmethod
    def load(
        cls, encoder_path: Path | None = None, decoder_path: Path | None = None
    ) -> "TinyAutoencoderCodec":
        """Load the registered weights, or those of two files; frozen, in evaluation mode.

        Args:
            encoder_path: State dict of the encoder; None takes the registered file.
            decoder_path: State dict of the decoder; None takes the registered file.
        """
        codec = cls()
        _fill(codec.encoder, encoder_path or resolve_weights("permissive/codec_encoder"))
        _fill(codec.decoder, decoder_path or resolve_weights("permissive/codec_decoder"))
        return codec.requires_grad_(False).eval()  # noqa: FBT003 - PyTorch's signature

    def encode(
        self, frames: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch channels latent_height latent_width"]:
        """Return latents of about unit variance of RGB frames in [-1, 1]; see `check_sides`."""
        check_sides(frames, DOWNSCALE)
        return (self.encoder((frames + 1.0) / 2.0) - self.latent_mean) / self.latent_std

    def decode(
        self, latents: Float[Tensor, "batch channels latent_height latent_width"]
    ) -> Float[Tensor, "batch 3 height width"]:
        """Return RGB frames in about [-1, 1]; gradients flow to the latents."""
        raw = latents * self.latent_std + self.latent_mean
        return self.decoder(raw) * 2.0 - 1.0

    def windowed(self) -> StagedDecoder:
        """Return the decoder for parts of frames."""
        clamp, *layers = self.decoder
        first = Stage(run=lambda x, _: clamp(x * self.latent_std + self.latent_mean))
        stages = [first, *stack_stages(layers, after=lambda x: x * 2.0 - 1.0)]
        return StagedDecoder(stages, shares_window=False, needs_record=True)


def _fill(network: nn.Module, path: Path) -> None:
    """Load a half-precision state dict into a float32 network.

    Raises:
        WeightsError: The file is of another network.
    """
    state = load_state(path)
    try:
        network.load_state_dict({key: value.float() for key, value in state.items()})
    except (RuntimeError, AttributeError) as error:
        raise WeightsError(
            f"{path} does not hold the weights of TAEF2: {error}",
            fix="Get them again: `animaray weights pull permissive/codec_encoder "
            "permissive/codec_decoder`.",
            reason="other",
        ) from error
