import torch

from animaray.models.networks.pose_net import PoseNet, PoseNetConfig


def test_fresh_net_changes_nothing():
    net = PoseNet(PoseNetConfig(stage_widths=(4, 4), trunk_dim=8, out_channels=16))
    assert torch.equal(net(torch.randn(2, 3, 16, 8)), torch.zeros(2, 16, 4, 2))
