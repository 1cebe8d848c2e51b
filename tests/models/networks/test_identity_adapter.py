import pytest
import torch
from torch.testing import assert_close

from animaray.models.networks.identity_adapter import IdentityAdapter
from animaray.models.networks.unet_layers import IdentityAttention

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


def layer_of(weights, config, mode="distribution", scale=1.0):
    dim, cross, tokens = (
        config[key] for key in ("hidden_size", "cross_attention_dim", "num_tokens")
    )
    adapter = IdentityAdapter(dim, cross, num_face_tokens=tokens, mode=mode, scale=scale)
    layer = IdentityAttention(dim, config["heads"], cross, adapter)
    layer.load_state_dict(weights)
    return layer.eval()


def test_norm_mode_adds_the_normalised_face_branch(golden):
    config, tensors, weights = golden("id_adapter")
    layer = layer_of(weights, config["config"], "norm")
    face = tensors["z_face"]
    centred = face - face.mean((1, 2), keepdim=True)
    normalised = centred / (face.std((1, 2), keepdim=True) + 1e-5)
    with torch.no_grad():
        expected = layer.to_out[0](tensors["z_img"] + normalised)
        context = tensors["encoder_hidden_states"]
        result = layer(tensors["hidden_states"], context)
    assert_close(result, expected, **TOLERANCE)


def test_self_attention_is_refused():
    layer = IdentityAttention(8, 1, 8, IdentityAdapter(8, 8, num_face_tokens=1))
    with pytest.raises(ValueError, match="needs a context"):
        layer(torch.zeros(1, 2, 8))
