"""IResNet, the residual network of ArcFace: aligned 112x112 faces to raw identity embeddings.

State-dict keys and shapes equal those of the published PyTorch files (glintr100_torch.pth).

References:
    Deng, Guo, Xue, Zafeiriou 2019, "ArcFace", arXiv 1801.07698; Duta et al. 2020, arXiv 2004.04989.
"""

from collections import OrderedDict
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

CROP_PX = 112


@dataclass(frozen=True, kw_only=True, slots=True)
class IResNetConfig:
    """Sizes of the network; the defaults are IResNet-100 (glintr100)."""

    blocks: tuple[int, ...] = (3, 13, 30, 3)
    """Residual blocks of each stage; the first of each halves the resolution."""
    widths: tuple[int, ...] = (64, 128, 256, 512)
    """Channels of each stage; the first is also the stem's."""
    embedding_dim: int = 512
    """Length of the embedding."""


class IResNetBlock(nn.Module):
    """Norm, convolution, norm, PReLU, convolution (with the stride), norm; plus the shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.prelu = nn.PReLU(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d out_h out_w"]:
        """Return the block's output."""
        shortcut = features if self.downsample is None else self.downsample(features)
        inner = self.prelu(self.bn2(self.conv1(self.bn1(features))))
        output: Tensor = self.bn3(self.conv2(inner)) + shortcut
        return output


class IResNet(nn.Module):
    """Aligned RGB crops in [-1, 1] to raw embeddings, whose length is about 20 for faces."""

    def __init__(self, config: IResNetConfig) -> None:
        super().__init__()
        self.config = config
        width = config.widths[0]
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.prelu = nn.PReLU(width)
        stages: OrderedDict[str, nn.Module] = OrderedDict()
        for index, (blocks, stage_width) in enumerate(
            zip(config.blocks, config.widths, strict=True), start=1
        ):
            layers = [IResNetBlock(width, stage_width, stride=2)]
            layers += [IResNetBlock(stage_width, stage_width) for _ in range(blocks - 1)]
            stages[f"layer{index}"] = nn.Sequential(*layers)
            width = stage_width
        self.stage_names = tuple(stages)
        for name, stage in stages.items():
            self.add_module(name, stage)
        self.bn2 = nn.BatchNorm2d(width)
        side = CROP_PX // 2 ** len(config.widths)
        self.fc = nn.Linear(width * side * side, config.embedding_dim)
        self.features = nn.BatchNorm1d(config.embedding_dim)

    def forward(self, crops: Float[Tensor, "crops 3 112 112"]) -> Float[Tensor, "crops embedding"]:
        """Return raw (not unit) embeddings."""
        features = self.prelu(self.bn1(self.conv1(crops)))
        for name in self.stage_names:
            features = self.get_submodule(name)(features)
        embeddings: Tensor = self.features(self.fc(torch.flatten(self.bn2(features), 1)))
        return embeddings
