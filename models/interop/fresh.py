"""What stock Stable Video Diffusion lacks, started as the release starts its training.

PoseNet and Face Encoder end in layers of zeros, so they change nothing at first; the identity
adapter's keys and values are copies of those that look at the picture.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from animaray.models.networks.animator_config import AnimatorConfig, UNetConfig
from animaray.models.networks.face_encoder import FaceEncoder, FaceEncoderConfig
from animaray.models.networks.pose_net import PoseNet, PoseNetConfig
from animaray.models.perception.checkpoint_files import Shapes

SEED = 0
"""Of the layers that are random; the same files give the same folder."""
_ADAPTER, _PICTURE = ".processor.id_to_", ".to_"
"""What names the adapter's projections, and those that look at the picture, in one layer."""


def fresh_pose_net_config(unet: UNetConfig) -> PoseNetConfig:
    """Return the published PoseNet's sizes for a U-Net."""
    return PoseNetConfig(out_channels=unet.block_out_channels[0])


def fresh_face_encoder_config(unet: UNetConfig, image_embedding_dim: int) -> FaceEncoderConfig:
    """Return the published Face Encoder's sizes for a U-Net.

    Args:
        unet: Takes the face tokens.
        image_embedding_dim: Length of the image encoder's embedding.
    """
    return FaceEncoderConfig(
        cross_attention_dim=unet.cross_attention_dim,
        image_embedding_dim=image_embedding_dim,
        num_tokens=unet.num_face_tokens,
    )


def fresh_state(config: AnimatorConfig, name: str) -> dict[str, Tensor]:
    """Return the state dict of a PoseNet or Face Encoder that has learned nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        if name == "pose_net":
            return dict(PoseNet(config.pose_net).state_dict())
        return dict(FaceEncoder(config.face_encoder).state_dict())


def with_fresh_adapter(state: Mapping[str, Tensor], expected: Shapes) -> dict[str, Tensor]:
    """Return a stock U-Net's state dict with the identity adapter in it.

    Args:
        state: Of diffusers' own class. What it lacks is left out here, too.
        expected: Key and shape of each tensor of the animator's U-Net.
    """
    sources = {key: key.replace(_ADAPTER, _PICTURE) for key in expected if _ADAPTER in key}
    # Copies: safetensors refuses tensors that share their memory.
    adapter = {key: state[source].clone() for key, source in sources.items() if source in state}
    return {**state, **adapter}
