import pytest
import torch

from animaray.models.networks.face_encoder import FaceEncoder, FaceEncoderConfig
from animaray.platform.errors import ConfigError


def test_fresh_encoder_returns_zeros():
    config = FaceEncoderConfig(
        identity_dim=8, image_embedding_dim=32, cross_attention_dim=32, head_dim=16, depth=1
    )
    tokens = FaceEncoder(config)(torch.randn(2, 8), torch.randn(2, 1, 32))
    assert torch.equal(tokens, torch.zeros(2, 4, 32))


def test_width_that_heads_cannot_split_is_refused():
    with pytest.raises(ConfigError, match="multiple of `head_dim`"):
        FaceEncoderConfig(cross_attention_dim=100)
