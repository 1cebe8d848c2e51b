import pytest
import torch
from torch.testing import assert_close

from animaray.models.networks.animator_config import UNetConfig
from animaray.models.networks.unet import AnimatorUNet
from animaray.platform.errors import ConfigError


def test_adapter_starts_from_the_image_attention():
    unet = AnimatorUNet(UNetConfig(**TINY))
    attention = unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2
    assert torch.equal(attention.processor.id_to_k.weight, attention.to_k.weight)
    assert torch.equal(attention.processor.id_to_v.weight, attention.to_v.weight)


def test_adapter_scale_zero_equals_stable_video_diffusion():
    from diffusers import UNetSpatioTemporalConditionModel

    torch.manual_seed(0)
    config = UNetConfig(**TINY, adapter_scale=0.0)
    ours = AnimatorUNet(config).eval()
    stock = UNetSpatioTemporalConditionModel(**config.stock_settings()).eval()
    missing = stock.load_state_dict(ours.state_dict(), strict=False)
    assert missing.missing_keys == []
    sample, context = torch.randn(2, 3, 8, 4, 4), torch.randn(2, 5, 32)
    ids, timestep = torch.tensor([[6.0, 127.0, 0.02]]).repeat(2, 1), torch.tensor([0.3, 1.0])
    with torch.no_grad():
        expected = stock(sample, timestep, context[:, :1], ids).sample
        assert_close(ours(sample, timestep, context, ids), expected, atol=3e-6, rtol=1e-5)


def test_every_trainable_parameter_gets_a_gradient():
    unet = AnimatorUNet(UNetConfig(**TINY))
    unet(
        torch.randn(1, 2, 8, 4, 4), torch.zeros(1), torch.randn(1, 5, 32), torch.ones(1, 3)
    ).sum().backward()
    without = [n for n, p in unet.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


def test_bfloat16_attention_agrees_with_float32():
    torch.manual_seed(0)
    unet = AnimatorUNet(UNetConfig(**TINY)).eval()
    inputs = (torch.randn(1, 3, 8, 4, 4), torch.zeros(1), torch.randn(1, 5, 32), torch.ones(1, 3))
    with torch.no_grad():
        exact = unet(*inputs)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = unet(*inputs).float()
    assert (rounded - exact).std() < 0.03 * exact.std()


def test_wrong_number_of_heads_is_refused():
    with pytest.raises(ConfigError, match="`num_attention_heads` must have one entry per level"):
        UNetConfig(**(TINY | {"num_attention_heads": (1,)}))


def test_width_that_group_norm_cannot_split_is_refused():
    with pytest.raises(ConfigError, match="multiples of 32"):
        UNetConfig(**(TINY | {"block_out_channels": (48, 64)}))


TINY = {
    "block_out_channels": (32, 32),
    "num_attention_heads": (1, 2),
    "has_attention": (True, False),
    "layers_per_block": 1,
    "cross_attention_dim": 32,
    "addition_time_embed_dim": 8,
}
