"""The small convolutional networks of the generated profile, as plain modules without files.

All are trained by benchmarks/bundled_weights on the generated world and nothing else. The
adapters beside this file (generated_codec.py, generated_identity.py, ...) load their weights.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from animaray.models.perception.decoding.windowed_decoding import DecoderPass
from animaray.models.pose.layouts import NUM_KEYPOINTS

NUM_LANDMARKS = 5
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


def _stem(channels: int, unshuffle: int) -> nn.Sequential:
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
            _stem(first, 2),
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
            _stem(first, 2),
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


class PeopleNetwork(nn.Module):
    """Find people, keypoints and faces: a U-shaped network with outputs at one quarter size.

    Pose and face answers share one training but are exported as two files, each with its head.
    """

    def __init__(self, *, widths: tuple[int, int, int, int] = (40, 56, 80, 104)) -> None:
        super().__init__()
        quarter, eighth, sixteenth, last = widths
        self.stem = nn.Sequential(_stem(quarter, 4), NormalisedBlock(quarter, quarter))
        self.to_eighth = nn.Sequential(
            NormalisedBlock(quarter, eighth, stride=2), NormalisedBlock(eighth, eighth)
        )
        self.to_sixteenth = nn.Sequential(
            NormalisedBlock(eighth, sixteenth, stride=2), NormalisedBlock(sixteenth, sixteenth)
        )
        self.to_last = nn.Sequential(
            NormalisedBlock(sixteenth, last, stride=2), NormalisedBlock(last, last)
        )
        self.lift_sixteenth = nn.Conv2d(last, sixteenth, 1)
        self.merge_sixteenth = NormalisedBlock(sixteenth, sixteenth)
        self.lift_eighth = nn.Conv2d(sixteenth, eighth, 1)
        self.merge_eighth = NormalisedBlock(eighth, eighth)
        self.lift_quarter = nn.Conv2d(eighth, quarter, 1)
        self.merge_quarter = NormalisedBlock(quarter, quarter)
        # centre, 18 heat maps | 36 offsets and 18 visibilities
        self.pose_heat = self._head(quarter, 1 + NUM_KEYPOINTS)
        self.pose_person = self._head(eighth, 3 * NUM_KEYPOINTS)
        # centre | left, top, right, bottom, 10 landmark offsets
        self.face_heat = self._head(quarter, 1)
        self.face_shape = self._head(quarter, 4 + 2 * NUM_LANDMARKS)
        for head in (self.pose_heat, self.face_heat):
            nn.init.constant_(dict(head[-1].named_parameters())["bias"], -3.0)

    @staticmethod
    def _head(channels: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, outputs, 1)
        )

    def trunk(
        self, frames: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b c qh qw"], Float[Tensor, "b d eh ew"]]:
        """Return the shared features at one quarter and at one eighth of the size."""
        quarter = self.stem(frames)
        eighth = self.to_eighth(quarter)
        sixteenth = self.to_sixteenth(eighth)
        last = self.to_last(sixteenth)
        sixteenth = self.merge_sixteenth(sixteenth + self._double(self.lift_sixteenth(last)))
        eighth = self.merge_eighth(eighth + self._double(self.lift_eighth(sixteenth)))
        quarter = self.merge_quarter(quarter + self._double(self.lift_quarter(eighth)))
        return quarter, eighth

    @staticmethod
    def _double(features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c oh ow"]:
        return functional.interpolate(features, scale_factor=2.0, mode="nearest")

    def pose(
        self, quarter: Float[Tensor, "b c qh qw"], eighth: Float[Tensor, "b d eh ew"]
    ) -> tuple[Float[Tensor, "b 19 qh qw"], Float[Tensor, "b 54 eh ew"]]:
        """Return logits of centre and keypoint heat, and offsets (64 px) with visibility logits."""
        return self.pose_heat(quarter), self.pose_person(eighth)

    def face(
        self, quarter: Float[Tensor, "b c qh qw"]
    ) -> tuple[Float[Tensor, "b 1 qh qw"], Float[Tensor, "b 14 qh qw"]]:
        """Return the logit of face centres, and box and landmark offsets (16 px)."""
        return self.face_heat(quarter), self.face_shape(quarter)

    def forward(self, frames: Float[Tensor, "b 3 h w"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return pose heat, pose people, face heat, face shape (see pose and face)."""
        quarter, eighth = self.trunk(frames)
        return *self.pose(quarter, eighth), *self.face(quarter)
