import copy

import pytest
import torch
from torch.testing import assert_close

from animaray.models.networks.animator_config import UNetConfig
from animaray.models.networks.unet import AnimatorUNet
from benchmarks.costs.operation_counts import count_peak_bytes


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return AnimatorUNet(
        UNetConfig(
            block_out_channels=(32, 32),
            num_attention_heads=(2, 2),
            has_attention=(True, False),
            layers_per_block=1,
            cross_attention_dim=32,
            addition_time_embed_dim=8,
        )
    ).train()


def loss_of(unet, device="cpu"):
    torch.manual_seed(1)
    inputs = (
        torch.randn(1, 4, 8, 8, 8, device=device),
        torch.randn(1, device=device),
        torch.randn(1, 5, 32, device=device),
        torch.randn(1, 3, device=device),
    )
    return unet(*inputs).square().mean()


@pytest.mark.parametrize("mode", ["spatial", "all"])
def test_gradients_do_not_change(unet, mode):
    saving = copy.deepcopy(unet)
    saving.recompute(mode)
    assert list(saving.state_dict()) == list(unet.state_dict())
    gradients = []
    for network in (unet, saving):
        network.zero_grad()
        loss_of(network).backward()
        gradients.append({name: weight.grad for name, weight in network.named_parameters()})
    assert_close(gradients[0], gradients[1])


def test_each_mode_stores_less_than_the_one_before(unet):
    shapes = copy.deepcopy(unet).to("meta")
    peaks = []
    for mode in ("none", "spatial", "all", "none"):
        shapes.recompute(mode)
        peaks.append(count_peak_bytes(lambda: loss_of(shapes, "meta").backward()))
    assert peaks[1] < 0.8 * peaks[0]
    assert peaks[2] < 0.8 * peaks[1]
    assert peaks[3] == pytest.approx(peaks[0], rel=0.01)


def test_sampling_stores_nothing_with_checkpointing(unet):
    shapes = copy.deepcopy(unet).to("meta")
    shapes.recompute("all")
    with torch.no_grad():
        saving = count_peak_bytes(lambda: loss_of(shapes, "meta"))
        shapes.recompute("none")
        assert saving == count_peak_bytes(lambda: loss_of(shapes, "meta"))
