"""Face identity embeddings by dlib's recogniser (CC0), as a PyTorch network that gradients pass.

The file is dlib's own; dlib itself is not needed (tests compare with it where it is installed).
dlib compares its 128 numbers by their distance, below 0.6 being one person. They all lie around
one place far from zero, so cosines of them are near 1 for everybody. Seen from that place, the
middle of many people, cosines tell people apart: that is the embedding here.

References:
    King 2009, "Dlib-ml", JMLR 10; He, Zhang, Ren, Sun 2016, "Deep Residual Learning".
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn
from torch.nn import functional

from animaray.models.frames import to_frames
from animaray.models.perception.face_alignment import align_face
from animaray.models.perception.permissive.dlib_file import DlibConvolution, read_dlib_recogniser
from animaray.platform.errors import WeightsError
from animaray.platform.weights.store import resolve_weights

EMBEDDING_DIM = 128
CROP_PX = 150
# Channels of each residual block, from the picture on; those that halve the picture come first.
_BLOCKS = (
    (32, 32, 32),
    (64, 64, 64, 64),
    (128, 128, 128),
    (256, 256, 256),
    (256,),
)
_COLOUR_SCALE = 256.0
# Where eyes, nose and corners of the mouth lie in the crops that the network was trained on: the
# median of faces aligned by dlib's own five points (corners of the eyes, and below the nose).
_TEMPLATE = ((47.85, 47.44), (100.14, 47.89), (75.48, 81.42), (50.11, 100.5), (98.31, 100.6))
# Mean of 29 people in photographs and clips: benchmarks/quality/permissive_perception.py --middle.
_MIDDLE = (
    -0.099, 0.100, 0.060, -0.055, -0.094, -0.015, -0.048, -0.087, 0.159, -0.093, 0.194, -0.014,
    -0.228, -0.042, -0.012, 0.146, -0.167, -0.130, -0.089, -0.069, 0.041, 0.036, 0.017, 0.056,
    -0.134, -0.329, -0.073, -0.084, 0.029, -0.084, -0.007, 0.041, -0.170, -0.038, 0.025, 0.075,
    -0.034, -0.069, 0.196, 0.029, -0.198, 0.012, 0.041, 0.257, 0.212, 0.032, 0.034, -0.080,
    0.127, -0.256, 0.045, 0.158, 0.081, 0.060, 0.064, -0.166, 0.018, 0.123, -0.182, 0.053,
    0.064, -0.105, -0.020, -0.049, 0.208, 0.097, -0.117, -0.143, 0.165, -0.153, -0.059, 0.064,
    -0.119, -0.168, -0.291, 0.027, 0.387, 0.139, -0.171, 0.033, -0.084, -0.008, 0.052, 0.100,
    -0.056, -0.029, -0.087, 0.020, 0.206, -0.012, -0.021, 0.226, 0.015, 0.023, 0.027, 0.043,
    -0.116, -0.015, -0.118, -0.015, 0.008, -0.067, 0.007, 0.107, -0.190, 0.162, -0.018, -0.016,
    -0.020, 0.001, -0.089, -0.025, 0.156, -0.248, 0.194, 0.192, 0.043, 0.145, 0.079, 0.069,
    -0.005, -0.022, -0.161, -0.073, 0.037, -0.037, 0.046, 0.038,
)  # fmt: skip


class _Convolution(nn.Module):
    """A convolution whose channels are scaled and moved: one convolution with other numbers."""

    def __init__(self, numbers: DlibConvolution) -> None:
        super().__init__()
        outputs, inputs, height, width = numbers.weight.shape
        self.conv = nn.Conv2d(
            inputs, outputs, (height, width), numbers.stride, numbers.padding, bias=True
        )
        scale = torch.from_numpy(numbers.scale)
        bias = torch.from_numpy(numbers.bias) * scale + torch.from_numpy(numbers.offset)
        weight = torch.from_numpy(numbers.weight) * scale[:, None, None, None]
        self.conv.load_state_dict({"weight": weight, "bias": bias})

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d out_h out_w"]:
        return self.conv(features)


class _Block(nn.Module):
    """Two convolutions beside the identity, or beside an averaged picture where they halve it."""

    def __init__(self, first: DlibConvolution, second: DlibConvolution) -> None:
        super().__init__()
        self.first, self.second = _Convolution(first), _Convolution(second)
        self.halves = first.stride == 2

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d out_h out_w"]:
        moved = self.second(functional.relu(self.first(features)))
        kept = functional.avg_pool2d(features, 2) if self.halves else features
        return functional.relu(_sum_of_unlike(moved, kept))


def _sum_of_unlike(
    first: Float[Tensor, "b c h w"], second: Float[Tensor, "b d i j"]
) -> Float[Tensor, "b e k l"]:
    """Add two pictures as dlib does: what one has more of, channels or pixels, is kept."""
    largest = [max(sides) for sides in zip(first.shape[1:], second.shape[1:], strict=True)]

    def padded(picture: Tensor) -> Tensor:
        channels, rows, columns = (
            want - has for want, has in zip(largest, picture.shape[1:], strict=True)
        )
        return functional.pad(picture, (0, columns, 0, rows, 0, channels))

    return padded(first) + padded(second)


class DlibFaceNet(nn.Module):
    """150x150 RGB crops from 0 to 255 to 128 numbers, not normalised: equal to dlib's."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Args:
            path: `dlib_face_recognition_resnet_model_v1.dat`; a damaged one raises WeightsError.

        Raises:
            WeightsError: The layers are not this network's.
        """
        super().__init__()
        channels = [each for stage in _BLOCKS for each in stage]
        numbers = read_dlib_recogniser(path, 1 + 2 * len(channels))
        found = [len(each.bias) for each in numbers.convolutions]
        if found != [32, *(each for each in channels for _ in range(2))]:
            raise WeightsError(
                f"Expected dlib's face recogniser at {path}; its layers have {found} channels.",
                fix="Get it again: `animaray weights pull permissive/identity`.",
                reason="other",
            )
        first, *rest = numbers.convolutions
        self.register_buffer("means", torch.from_numpy(numbers.colour_means)[:, None, None])
        self.first = _Convolution(first)
        self.blocks = nn.Sequential(
            *(_Block(*pair) for pair in zip(rest[::2], rest[1::2], strict=True))
        )
        self.register_buffer("linear", torch.from_numpy(numbers.linear))

    means: Tensor
    linear: Tensor

    def forward(self, crops: Float[Tensor, "crops 3 150 150"]) -> Float[Tensor, "crops 128"]:
        """Return dlib's own numbers."""
        features = functional.relu(self.first((crops - self.means) / _COLOUR_SCALE))
        features = self.blocks(functional.max_pool2d(features, 3, 2))
        return features.mean(dim=(2, 3)) @ self.linear


class DlibIdentityEmbedder(nn.Module):
    """Unit identity embeddings: direction of a face's numbers from the middle of many people."""

    middle: Tensor

    def __init__(self, path: Path) -> None:
        """Read the file.

        Args:
            path: `dlib_face_recognition_resnet_model_v1.dat`; a damaged one raises WeightsError.
        """
        super().__init__()
        self.name = "permissive/dlib_identity"
        self.embedding_dim = EMBEDDING_DIM
        self.crop_height_px = CROP_PX
        self.crop_width_px = CROP_PX
        self.network = DlibFaceNet(path)
        self.register_buffer("middle", torch.tensor(_MIDDLE))

    @classmethod
    def load(cls, path: Path | None = None) -> "DlibIdentityEmbedder":
        """Load the registered weights, or those of a file; frozen, in evaluation mode.

        Args:
            path: dlib's file; None takes the registered one.
        """
        embedder = cls(path or resolve_weights("permissive/identity"))
        return embedder.requires_grad_(False).eval()  # noqa: FBT003 - PyTorch's signature

    def template(self) -> Float32[np.ndarray, "5 2"]:
        """Return where the five landmarks belong in the aligned crop, pixels."""
        return np.array(_TEMPLATE, dtype=np.float32)

    def embed(
        self,
        frame: UInt8[np.ndarray, "height width 3"],
        landmarks: Float32[np.ndarray, "5 2"],
    ) -> Float32[np.ndarray, " embedding"]:
        """Return the unit embedding of one face of an RGB picture."""
        crop = align_face(frame, landmarks, self.template(), CROP_PX, CROP_PX)
        crops = to_frames(crop[None], self.middle.device)
        with torch.inference_mode():
            return self.embed_crops(crops)[0].cpu().numpy()

    def embed_crops(
        self, crops: Float[Tensor, "crops 3 crop_height crop_width"]
    ) -> Float[Tensor, "crops embedding"]:
        """Return unit embeddings of aligned RGB crops in [-1, 1]; gradients flow to the crops."""
        numbers = self.network((crops + 1.0) * 127.5)
        return functional.normalize(numbers - self.middle, dim=-1)
