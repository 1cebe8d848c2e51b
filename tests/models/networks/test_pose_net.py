import torch
from torch.testing import assert_close

from animaray.models.networks.pose_net import PoseNet, PoseNetConfig


def test_equals_the_published_pose_net(golden):
    _, tensors, weights = golden("pose_net")
    net = PoseNet(PoseNetConfig()).eval()
    net.load_state_dict(weights)
    tolerance = {"atol": 5e-6, "rtol": 1e-5}
    with torch.no_grad():
        assert_close(net(tensors["input_4d"]), tensors["output_4d"], **tolerance)
        assert_close(net(tensors["input_5d"].flatten(0, 1)), tensors["output_5d"], **tolerance)
        activations = tensors["input_4d"][:1]
        for index, layer in enumerate(net.conv_layers):
            activations = layer(activations)
            if f"after_conv_layers_{index}" in tensors:
                seen = tensors[f"after_conv_layers_{index}"]
                is_of_4d = torch.allclose(activations, seen, **tolerance)
                if not is_of_4d:
                    first = net.conv_layers[: index + 1](tensors["input_5d"].flatten(0, 1)[:1])
                    assert_close(first, seen, **tolerance)


def test_keys_equal_the_published_checkpoint(golden_keys):
    state = PoseNet(PoseNetConfig()).state_dict()
    expected = {key: tuple(shape) for key, shape in golden_keys("pose_net").items()}
    assert {key: tuple(value.shape) for key, value in state.items()} == expected


def test_fresh_net_changes_nothing():
    net = PoseNet(PoseNetConfig(stage_widths=(4, 4), trunk_dim=8, out_channels=16))
    assert torch.equal(net(torch.randn(2, 3, 16, 8)), torch.zeros(2, 16, 4, 2))
