import pytest
import torch
from torch.testing import assert_close

from animaray.models.networks.face_encoder import FaceEncoder, FaceEncoderConfig
from animaray.platform.errors import ConfigError

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(scope="module")
def encoder_and_vectors(golden):
    config, tensors, weights = golden("face_encoder")
    sizes = config["config"]
    encoder = FaceEncoder(
        FaceEncoderConfig(
            identity_dim=sizes["id_embeddings_dim"],
            image_embedding_dim=sizes["clip_embeddings_dim"],
            cross_attention_dim=sizes["cross_attention_dim"],
            num_tokens=sizes["num_tokens"],
        )
    ).eval()
    encoder.load_state_dict(weights)
    return encoder, tensors


@pytest.mark.parametrize(
    ("image", "output"), [("clip_embeds", "output"), ("clip_embeds_5tok", "output_5tok")]
)
def test_equals_the_published_encoder(encoder_and_vectors, image, output):
    encoder, tensors = encoder_and_vectors
    with torch.no_grad():
        result = encoder(tensors["id_embeds"], tensors[image])
    assert_close(result, tensors[output], **TOLERANCE)


def test_zero_identity_equals_the_published_encoder(encoder_and_vectors):
    encoder, tensors = encoder_and_vectors
    with torch.no_grad():
        result = encoder(torch.zeros_like(tensors["id_embeds"]), tensors["clip_embeds"])
    assert_close(result, tensors["output_zero_id"], **TOLERANCE)


def test_keys_equal_the_published_checkpoint(golden_keys):
    with torch.device("meta"):
        state = FaceEncoder(FaceEncoderConfig()).state_dict()
    expected = {key: tuple(shape) for key, shape in golden_keys("face_encoder").items()}
    assert {key: tuple(value.shape) for key, value in state.items()} == expected


def test_fresh_encoder_returns_zeros():
    config = FaceEncoderConfig(
        identity_dim=8, image_embedding_dim=32, cross_attention_dim=32, head_dim=16, depth=1
    )
    tokens = FaceEncoder(config)(torch.randn(2, 8), torch.randn(2, 1, 32))
    assert torch.equal(tokens, torch.zeros(2, 4, 32))


def test_width_that_heads_cannot_split_is_refused():
    with pytest.raises(ConfigError, match="multiple of `head_dim`"):
        FaceEncoderConfig(cross_attention_dim=100)
