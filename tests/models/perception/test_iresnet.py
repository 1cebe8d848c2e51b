import json

import pytest
import torch
from torch.testing import assert_close

from animaray.models.perception.paper.iresnet import IResNet, IResNetBlock, IResNetConfig


def test_keys_equal_the_published_checkpoint(golden_data):
    with torch.device("meta"):
        network = IResNet(IResNetConfig())
    found = {key: list(value.shape) for key, value in network.state_dict().items()}
    assert found == json.loads((golden_data / "keys_face_extractor_r100.json").read_text())["keys"]
    assert sum(parameter.numel() for parameter in network.parameters()) == 65_156_160


@pytest.mark.parametrize(
    ("name", "channels", "stride"), [("plain", (8, 8), 1), ("down", (8, 16), 2)]
)
def test_block_equals_the_published_block(golden, name, channels, stride):
    config, tensors, weights = golden("iresnet_block")
    block = IResNetBlock(*channels, stride).eval()
    prefix = f"{name}."
    block.load_state_dict(
        {key.removeprefix(prefix): v for key, v in weights.items() if key.startswith(prefix)}
    )
    with torch.no_grad():
        assert_close(block(tensors[f"{name}_in"]), tensors[f"{name}_out"], **config["tol"])


def test_small_network_halves_once_per_stage():
    network = IResNet(IResNetConfig(blocks=(1, 2), widths=(4, 8), embedding_dim=16)).eval()
    assert network.fc.in_features == 8 * 28 * 28
    assert network(torch.zeros(2, 3, 112, 112)).shape == (2, 16)
