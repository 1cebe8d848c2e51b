"""The small convolutional networks of the generated profile, as plain modules without files.

All are trained by benchmarks/bundled_weights on the generated world and nothing else. The
adapters beside this file (generated_codec.py, generated_identity.py, ...) load their weights.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from animaray.models.perception.decoding.windowed_decoding import DecoderPass

IDENTITY_DIM = 128
IMAGE_DIM = 256
LATENT_CHANNELS = 4
LATENT_DOWNSCALE = 8


class PlainBlock(nn.Module):
    """Two 3x3 convolutions beside an identity path, without normalisation (the codec's block)."""

    receptive_radius = 2

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return features plus their correction."""
        inner = functional.relu(self.first(functional.relu(features)))
        return features + self.second(inner)

    def run(
        self, features: Float[Tensor, "b c h w"], run: DecoderPass, name: str
    ) -> Float[Tensor, "b c h w"]:
        """Compute the block as part of a windowed decode; nothing in it depends on the frame."""
        del run, name
        return self.forward(features)


class CodecEncoder(nn.Module):
    """Map frames in [-1, 1] to raw latents, one eighth as high and wide."""

    def __init__(self, *, widths: tuple[int, int, int] = (32, 64, 96)) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(12, fine, 3, padding=1),
            PlainBlock(fine),
            nn.Conv2d(fine, middle, 4, stride=2, padding=1),
            PlainBlock(middle),
            nn.Conv2d(middle, coarse, 4, stride=2, padding=1),
            PlainBlock(coarse),
            PlainBlock(coarse),
            nn.ReLU(),
            nn.Conv2d(coarse, LATENT_CHANNELS, 3, padding=1),
        )

    def forward(self, frames: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 4 lh lw"]:
        """Return raw latents (not normalised)."""
        return self.layers(frames)


class CodecDecoder(nn.Module):
    """Map normalised latents to frames; most work is done at the coarse sizes to stay cheap."""

    def __init__(self, *, widths: tuple[int, int, int] = (128, 64, 32)) -> None:
        super().__init__()
        coarse, middle, fine = widths
        self.layers = nn.Sequential(
            nn.Conv2d(LATENT_CHANNELS, coarse, 3, padding=1),
            PlainBlock(coarse),
            PlainBlock(coarse),
            PlainBlock(coarse),
            nn.Conv2d(coarse, 4 * middle, 3, padding=1),
            nn.PixelShuffle(2),
            PlainBlock(middle),
            PlainBlock(middle),
            nn.Conv2d(middle, 4 * fine, 3, padding=1),
            nn.PixelShuffle(2),
            PlainBlock(fine),
            nn.ReLU(),
            nn.Conv2d(fine, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def forward(self, latents: Float[Tensor, "b 4 lh lw"]) -> Float[Tensor, "b 3 h w"]:
        """Return frames in about [-1, 1]."""
        return self.layers(self.bend(latents))

    @staticmethod
    def bend(latents: Float[Tensor, "b 4 lh lw"]) -> Float[Tensor, "b 4 lh lw"]:
        """Keep latents where the network was trained: a sampler's may run away."""
        return 3.0 * torch.tanh(latents / 3.0)


class NormalisedBlock(nn.Module):
    """Residual block with batch normalisation (folded into the convolutions at export)."""

    def __init__(self, in_channels: int, channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride),
                nn.Conv2d(in_channels, channels, 1, bias=False),
                nn.BatchNorm2d(channels),
            )
        elif in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d oh ow"]:
        """Return the rectified sum of both paths."""
        return functional.relu(self.body(features) + self.shortcut(features))


def stem(channels: int, unshuffle: int) -> nn.Sequential:
    """Return the first layers: pixels side by side, one convolution."""
    return nn.Sequential(
        nn.PixelUnshuffle(unshuffle),
        nn.Conv2d(3 * unshuffle**2, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    )


class IdentityNetwork(nn.Module):
    """Map aligned 112x112 face crops in [-1, 1] to unit vectors."""

    def __init__(self, *, widths: tuple[int, int, int, int] = (32, 56, 80, 112)) -> None:
        super().__init__()
        first, second, third, fourth = widths
        self.features = nn.Sequential(
            stem(first, 2),
            NormalisedBlock(first, second, stride=2),
            NormalisedBlock(second, second),
            NormalisedBlock(second, third, stride=2),
            NormalisedBlock(third, third),
            NormalisedBlock(third, fourth, stride=2),
            NormalisedBlock(fourth, fourth),
            # One weight for each place of the 7x7 map: the crops are aligned, so places matter.
            nn.Conv2d(fourth, fourth, 7, groups=fourth, bias=False),
            nn.BatchNorm2d(fourth),
        )
        self.head = nn.Linear(fourth, IDENTITY_DIM, bias=False)
        self.head_norm = nn.BatchNorm1d(IDENTITY_DIM, affine=False)

    def forward(self, crops: Float[Tensor, "b 3 112 112"]) -> Float[Tensor, "b 128"]:
        """Return unit embeddings."""
        vectors = self.head_norm(self.head(self.features(crops).flatten(1)))
        return functional.normalize(vectors.float(), dim=1)


class ImageNetwork(nn.Module):
    """Map pictures of 96x96 px in [-1, 1] to appearance vectors of unit variance per entry."""

    def __init__(self, *, widths: tuple[int, int, int, int] = (32, 48, 64, 96)) -> None:
        super().__init__()
        first, second, third, fourth = widths
        self.features = nn.Sequential(
            stem(first, 2),
            NormalisedBlock(first, second, stride=2),
            NormalisedBlock(second, second),
            NormalisedBlock(second, third, stride=2),
            NormalisedBlock(third, third),
            NormalisedBlock(third, fourth, stride=2),
            NormalisedBlock(fourth, fourth),
        )
        # Average and maximum, each also over the middle part: the person stands there.
        self.head = nn.Linear(3 * fourth, IMAGE_DIM)
        self.head_norm = nn.LayerNorm(IMAGE_DIM, elementwise_affine=False)

    def forward(self, pictures: Float[Tensor, "b 3 96 96"]) -> Float[Tensor, "b 256"]:
        """Return embeddings with zero mean and unit variance over their entries."""
        features = self.features(pictures)
        height, width = features.shape[-2:]
        middle = features[..., :, width // 4 : width - width // 4]
        summary = [features.mean((2, 3)), features.amax((2, 3)), middle.mean((2, 3))]
        del height
        return self.head_norm(self.head(torch.cat(summary, dim=1)).float())
