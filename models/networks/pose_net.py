"""PoseNet: pose pictures to features that are added to the U-Net's first activations."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, slots=True)
class PoseNetConfig:
    """Sizes of PoseNet; the defaults are the published ones."""

    stage_widths: tuple[int, ...] = (16, 32, 64)
    """Width after each halving of the resolution; as many halvings as the codec makes."""
    trunk_dim: int = 128
    """Width of the last 3x3 convolution."""
    out_channels: int = 320
    """The U-Net's first width."""


class PoseNet(nn.Module):
    """Convolutions from a pose picture to features of the latents' resolution.

    The last projection starts at zero, so a fresh PoseNet changes nothing.
    """

    def __init__(self, config: PoseNetConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = [nn.Conv2d(3, 3, 3, padding=1), nn.SiLU()]
        width = 3
        for stage, stage_width in enumerate(config.stage_widths):
            is_last = stage == len(config.stage_widths) - 1
            layers += [nn.Conv2d(width, stage_width, 4, stride=2, padding=1), nn.SiLU()]
            layers += [nn.Conv2d(stage_width, stage_width, 3, padding=1), nn.SiLU()]
            if is_last:
                layers += [nn.Conv2d(stage_width, config.trunk_dim, 3, padding=1), nn.SiLU()]
            width = stage_width
        self.conv_layers = nn.Sequential(*layers)
        self.final_proj = nn.Conv2d(config.trunk_dim, config.out_channels, 1)
        self.scale = nn.Parameter(torch.full((1,), 2.0))
        self._initialize()

    @torch.no_grad()
    def _initialize(self) -> None:
        for layer in self.conv_layers:
            if isinstance(layer, nn.Conv2d):
                fan_in = layer.kernel_size[0] * layer.kernel_size[1] * layer.in_channels
                nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_in))
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type] # these all have a bias
        nn.init.zeros_(self.final_proj.weight)
        nn.init.zeros_(self.final_proj.bias)  # type: ignore[arg-type] # it has a bias

    def trunk(
        self, pose_images: Float[Tensor, "pictures 3 height width"]
    ) -> Float[Tensor, "pictures trunk_dim h w"]:
        """Return the features before the projection, for pose pictures in [-1, 1]."""
        features: Tensor = self.conv_layers(pose_images)
        return features

    def project(
        self, trunk: Float[Tensor, "pictures trunk_dim h w"]
    ) -> Float[Tensor, "pictures out_channels h w"]:
        """Return what is added to the U-Net, given the trunk's features."""
        projected: Tensor = self.final_proj(trunk) * self.scale
        return projected

    def forward(
        self, pose_images: Float[Tensor, "pictures 3 height width"]
    ) -> Float[Tensor, "pictures out_channels h w"]:
        """Return features of pose pictures in [-1, 1]."""
        return self.project(self.trunk(pose_images))
