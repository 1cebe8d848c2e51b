"""Face identity embeddings by MobileFaceNet, as a PyTorch network that gradients pass through.

The weights carry no licence: development checks only (registry row development/identity).

References:
    Chen, Liu, Gao, Han 2018, "MobileFaceNets", arXiv 1804.07573, table 1.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn
from torch.nn import functional

from animaray.models.frames import to_frames
from animaray.models.perception.checkpoint_files import load_state
from animaray.models.perception.face_alignment import (
    USUAL_CROP_HEIGHT_PX,
    USUAL_CROP_WIDTH_PX,
    USUAL_TEMPLATE,
    align_face,
)
from animaray.platform.errors import WeightsError
from animaray.platform.weights.store import resolve_weights

EMBEDDING_DIM = 128


class _Stage(NamedTuple):
    """A run of bottlenecks: widening, output channels, how many, stride of the first."""

    expansion: int
    channels: int
    repeats: int
    stride: int


_STAGES = (
    _Stage(2, 64, 5, 2),
    _Stage(4, 128, 1, 2),
    _Stage(2, 128, 6, 1),
    _Stage(4, 128, 1, 2),
    _Stage(2, 128, 2, 1),
)


class _ConvBlock(nn.Module):
    """Convolution, batch norm and, unless linear, PReLU; keys conv, bn, prelu."""

    def __init__(
        self,
        channels: tuple[int, int],
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int = 0,
        is_depthwise: bool = False,
        is_linear: bool = False,
    ) -> None:
        super().__init__()
        inner, outer = channels
        groups = inner if is_depthwise else 1
        self.conv = nn.Conv2d(inner, outer, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outer)
        self.prelu = nn.Identity() if is_linear else nn.PReLU(outer)

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d out_h out_w"]:
        return self.prelu(self.bn(self.conv(features)))


class _Bottleneck(nn.Module):
    """Inverted residual: widen, depthwise 3x3, narrow; key conv (a sequence)."""

    def __init__(self, inner: int, outer: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inner * expansion
        self.is_residual = stride == 1 and inner == outer
        self.conv = nn.Sequential(
            nn.Conv2d(inner, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.PReLU(wide),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.PReLU(wide),
            nn.Conv2d(wide, outer, 1, bias=False),
            nn.BatchNorm2d(outer),
        )

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d out_h out_w"]:
        narrowed = self.conv(features)
        return features + narrowed if self.is_residual else narrowed


class MobileFaceNet(nn.Module):
    """Aligned 112x96 RGB crops in about [-1, 1] to 128 numbers, not normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _ConvBlock((3, 64), 3, stride=2, padding=1)
        self.dw_conv1 = _ConvBlock((64, 64), 3, padding=1, is_depthwise=True)
        blocks: list[nn.Module] = []
        inner = 64
        for stage in _STAGES:
            for repeat in range(stage.repeats):
                stride = stage.stride if repeat == 0 else 1
                blocks.append(_Bottleneck(inner, stage.channels, stride, stage.expansion))
                inner = stage.channels
        self.blocks = nn.Sequential(*blocks)
        self.conv2 = _ConvBlock((inner, 512), 1)
        self.linear7 = _ConvBlock((512, 512), (7, 6), is_depthwise=True, is_linear=True)
        self.linear1 = _ConvBlock((512, EMBEDDING_DIM), 1, is_linear=True)

    def forward(self, crops: Float[Tensor, "crops 3 112 96"]) -> Float[Tensor, "crops 128"]:
        """Return raw embeddings of crops scaled as (value - 127.5) / 128."""
        features = self.blocks(self.dw_conv1(self.conv1(crops)))
        return self.linear1(self.linear7(self.conv2(features))).flatten(1)


class MobileFaceNetEmbedder(nn.Module):
    """Unit identity embeddings: mean of a crop and its mirror image, normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.name = "development/mobile_face_net"
        self.embedding_dim = EMBEDDING_DIM
        self.crop_height_px = USUAL_CROP_HEIGHT_PX
        self.crop_width_px = USUAL_CROP_WIDTH_PX
        self.network = MobileFaceNet()

    @classmethod
    def load(cls, path: Path | None = None) -> "MobileFaceNetEmbedder":
        """Load the registered weights, or those of a file; frozen, in evaluation mode.

        Args:
            path: A checkpoint with the key net_state_dict; None takes the registered file.

        Raises:
            WeightsError: The file is of another network.
        """
        path = path or resolve_weights("development/identity")
        checkpoint = load_state(path)
        state = checkpoint.get("net_state_dict")
        if not isinstance(state, dict):
            raise WeightsError(
                f"Expected the key net_state_dict in {path}; it has {', '.join(checkpoint)}.",
                fix="Get it again: `animaray weights pull development/identity`.",
                reason="other",
            )
        embedder = cls()
        try:
            embedder.network.load_state_dict(state)
        except RuntimeError as error:
            raise WeightsError(
                f"{path} does not hold the weights of MobileFaceNet: {error}", reason="other"
            ) from error
        return embedder.requires_grad_(False).eval()  # noqa: FBT003 - PyTorch's signature

    def template(self) -> Float32[np.ndarray, "5 2"]:
        """Return where the five landmarks belong in the aligned crop, pixels."""
        return np.array(USUAL_TEMPLATE, dtype=np.float32)

    def embed(
        self,
        frame: UInt8[np.ndarray, "height width 3"],
        landmarks: Float32[np.ndarray, "5 2"],
    ) -> Float32[np.ndarray, " embedding"]:
        """Return the unit embedding of one face of an RGB picture."""
        crop = align_face(
            frame, landmarks, self.template(), USUAL_CROP_HEIGHT_PX, USUAL_CROP_WIDTH_PX
        )
        device = next(self.parameters()).device
        crops = to_frames(crop[None], device)
        with torch.inference_mode():
            return self.embed_crops(crops)[0].cpu().numpy()

    def embed_crops(
        self, crops: Float[Tensor, "crops 3 crop_height crop_width"]
    ) -> Float[Tensor, "crops embedding"]:
        """Return unit embeddings of aligned RGB crops in [-1, 1]; gradients flow to the crops."""
        # The network was trained on (value - 127.5) / 128, a touch less than [-1, 1].
        inputs = crops * (127.5 / 128.0)
        both = self.network(torch.cat([inputs, inputs.flip(-1)]))
        crop, mirrored = both.chunk(2)
        return functional.normalize(crop + mirrored, dim=-1)
