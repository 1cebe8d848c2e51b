"""How large the networks of a rehearsal are: as published, or small enough for a test."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from animaray.models.networks.animator_config import UNetConfig
from animaray.models.networks.face_encoder import FaceEncoderConfig
from animaray.models.networks.pose_net import PoseNetConfig
from animaray.models.perception.paper.backbone_files import IMAGE_ENCODER_CONFIG, VAE_CONFIG
from animaray.models.perception.paper.iresnet import IResNetConfig


@dataclass(frozen=True, kw_only=True)
class KitSizes:
    """Sizes of every network; the defaults are the published ones."""

    unet: UNetConfig = field(default_factory=UNetConfig)
    pose_net: PoseNetConfig = field(default_factory=PoseNetConfig)
    face_encoder: FaceEncoderConfig = field(default_factory=FaceEncoderConfig)
    vae: Mapping[str, Any] = field(default_factory=lambda: VAE_CONFIG)
    image_encoder: Mapping[str, Any] = field(default_factory=lambda: IMAGE_ENCODER_CONFIG)
    arc_face: IResNetConfig = field(default_factory=IResNetConfig)


FULL = KitSizes()
"""The published sizes: 1.55 billion numbers in the U-Net alone."""

SMALL = KitSizes(
    unet=UNetConfig(
        block_out_channels=(32, 32),
        num_attention_heads=(1, 2),
        has_attention=(True, False),
        layers_per_block=1,
        cross_attention_dim=64,
        addition_time_embed_dim=8,
        num_frames=4,
        sample_size=8,
    ),
    pose_net=PoseNetConfig(out_channels=32),
    face_encoder=FaceEncoderConfig(image_embedding_dim=64, cross_attention_dim=64, depth=2),
    vae={
        **VAE_CONFIG,
        "block_out_channels": (32, 32, 32, 32),
        "layers_per_block": 1,
        "sample_size": 64,
    },
    image_encoder={
        **IMAGE_ENCODER_CONFIG,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "patch_size": 112,
        "projection_dim": 64,
    },
    arc_face=IResNetConfig(blocks=(1, 2), widths=(4, 6)),
)
"""A few ten thousand numbers a network; embeddings of faces as long as the published ones."""
