import pytest
import torch
from diffusers import (
    CogVideoXTransformer3DModel,
    UNet2DModel,
    UNetMotionModel,
    UNetSpatioTemporalConditionModel,
)
from torch import nn
from torch.testing import assert_close

from animaray.models.interop.attach import (
    AttachConfig,
    attach_identity_adapter,
    load_identity_adapter,
    spatial_attention,
)
from animaray.models.networks.animator_config import UNetConfig
from animaray.models.networks.unet import AnimatorUNet
from animaray.platform.errors import ConfigError, WeightsError

FRAMES = 3


def motion_unet():
    """The class behind AnimateDiff: a Stable Diffusion U-Net with motion modules."""
    torch.manual_seed(0)
    network = UNetMotionModel(
        block_out_channels=(32, 32),
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        up_block_types=("UpBlockMotion", "CrossAttnUpBlockMotion"),
        layers_per_block=1,
        cross_attention_dim=32,
        num_attention_heads=2,
        motion_num_attention_heads=2,
        norm_num_groups=8,
    ).eval()

    def run(seed=0):
        torch.manual_seed(seed)
        sample, text = torch.randn(2, 4, FRAMES, 8, 8), torch.randn(2, 5, 32)
        text = text.repeat_interleave(FRAMES, dim=0)  # as AnimateDiff's pipeline does
        return network(sample, torch.tensor(7), encoder_hidden_states=text).sample

    return network, run


def video_transformer():
    """The class behind CogVideoX: text and video are one sequence."""
    torch.manual_seed(0)
    network = CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=8,
        num_layers=2,
        sample_width=8,
        sample_height=8,
        sample_frames=FRAMES,
        temporal_compression_ratio=1,
        max_text_seq_length=5,
    ).eval()

    def run(seed=0):
        torch.manual_seed(seed)
        sample, text = torch.randn(2, FRAMES, 4, 8, 8), torch.randn(2, 5, 8)
        timestep = torch.tensor([7, 7])
        return network(sample, text, timestep, return_dict=False)[0]

    return network, run


BACKBONES = {"animatediff": motion_unet, "cogvideox": video_transformer}


@pytest.fixture(params=BACKBONES)
def backbone(request):
    return BACKBONES[request.param]()


def config_of(**changes):
    settings = {
        "identity_dim": 16,
        "image_embedding_dim": 24,
        "token_dim": 32,
        "depth": 1,
        "head_dim": 16,
        "initial_gate": 1.0,
    }
    return AttachConfig(**(settings | changes))


def people(seed, clips=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(clips, 16, generator=generator), torch.randn(
        clips, 1, 24, generator=generator
    )


def trained(attached):
    """Give the Face Encoder's last projection, which starts at zero, some weights."""
    torch.manual_seed(5)
    nn.init.normal_(attached.face_encoder.fusion_model.proj_out.weight, std=0.5)
    return attached


@torch.no_grad()
def test_no_face_no_scale_and_no_gate_leave_the_output_bit_equal(backbone):
    network, run = backbone
    before = run()
    attached = trained(attach_identity_adapter(network, config_of()))
    assert torch.equal(run(), before)
    attached.scale = 0.0
    with attached.identity(*people(0)):
        assert torch.equal(run(), before)
    attached.detach()
    fresh = trained(attach_identity_adapter(network, config_of(initial_gate=0.0)))
    with fresh.identity(*people(0)):
        assert torch.equal(run(), before)


@torch.no_grad()
def test_face_changes_the_output_by_person_and_by_scale(backbone):
    network, run = backbone
    before = run()
    attached = trained(attach_identity_adapter(network, config_of()))
    with attached.identity(*people(0)):
        one, again = run(), run()
        attached.scale = 0.5
        half = run()
    attached.scale = 1.0
    with attached.identity(*people(1)):
        other = run()
    assert torch.equal(one, again)
    assert not torch.allclose(one, before, atol=1e-3)
    assert not torch.allclose(one, other, atol=1e-3)
    assert (half - before).norm() < (one - before).norm()


@torch.no_grad()
def test_each_clip_of_the_batch_gets_its_own_face(backbone):
    network, run = backbone
    attached = trained(attach_identity_adapter(network, config_of()))
    identity, image = people(0)
    with attached.identity(identity, image):
        one = run()
    identity[1] = -identity[1]
    with attached.identity(identity, image):
        other = run()
    assert torch.equal(one[0], other[0])
    assert not torch.allclose(one[1], other[1], atol=1e-3)


@torch.no_grad()
def test_detached_model_is_bit_equal(backbone):
    network, run = backbone
    before, keys = run(), list(network.state_dict())
    attached = trained(attach_identity_adapter(network, config_of()))
    with attached.identity(*people(0)):
        run()
        attached.detach()
        assert torch.equal(run(), before)
    assert list(network.state_dict()) == keys
    assert not any(module._forward_hooks for module in network.modules())
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_all_parts_learn_and_the_backbone_needs_none_of_it(backbone):
    network, run = backbone
    network.requires_grad_(False)
    attached = trained(attach_identity_adapter(network, config_of()))
    with attached.identity(*people(0)):
        run().square().mean().backward()
    without = [
        name
        for name, parameter in attached.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    assert without == []
    assert all(parameter.grad is None for parameter in network.parameters())


def test_closed_gate_opens_by_training(backbone):
    network, run = backbone
    network.requires_grad_(False)
    attached = trained(attach_identity_adapter(network, config_of(initial_gate=0.0)))
    optimizer = torch.optim.Adam(attached.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        with attached.identity(*people(0)):
            loss = (run() - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.995 * losses[0]


@torch.no_grad()
def test_saved_adapter_holds_only_its_own_weights(backbone, tmp_path):
    network, run = backbone
    attached = trained(attach_identity_adapter(network, config_of(mode="norm")))
    with attached.identity(*people(0)):
        expected = run()
    attached.save_pretrained(tmp_path)
    attached.detach()
    size = sum(parameter.nbytes for parameter in attached.parameters())
    written = (tmp_path / "diffusion_pytorch_model.safetensors").stat().st_size
    assert written == pytest.approx(size, rel=0.1)
    loaded = load_identity_adapter(network, tmp_path)
    with loaded.identity(*people(0)):
        assert torch.equal(run(), expected)


def test_adapter_of_another_model_is_refused_and_leaves_no_hooks(tmp_path):
    attach_identity_adapter(motion_unet()[0], config_of()).save_pretrained(tmp_path)
    network, _ = video_transformer()
    with pytest.raises(WeightsError, match="does not fit"):
        load_identity_adapter(network, tmp_path)
    assert not any(module._forward_hooks for module in network.modules())


def test_face_enters_spatial_layers_only():
    network, _ = motion_unet()
    names = list(spatial_attention(network))
    assert names
    assert all(name.endswith("attn2") and "motion_modules" not in name for name in names)


@torch.no_grad()
def test_joint_attention_leaves_the_text_alone():
    # The last block's text output is dropped, so look at the first block's.
    network, run = video_transformer()
    texts = []
    block = network.transformer_blocks[0]
    hook = block.attn1.register_forward_hook(lambda *call: texts.append(call[-1]))
    run()
    attached = trained(attach_identity_adapter(network, config_of()))
    with attached.identity(*people(0)):
        run()
    hook.remove()
    (video, text), (video_with_face, text_with_face) = texts
    assert torch.equal(text, text_with_face)
    assert not torch.allclose(video, video_with_face, atol=1e-4)


@torch.no_grad()
def test_published_start_copies_the_models_projections():
    network, _ = motion_unet()
    attached = attach_identity_adapter(network, config_of())
    for name, layer in spatial_attention(network).items():
        branch = attached.branches[name.replace(".", "/")]
        assert torch.equal(branch.id_to_k.weight, layer.to_k.weight)
        assert torch.equal(branch.id_to_v.weight, layer.to_v.weight)


@torch.no_grad()
def test_attached_layer_equals_our_own_adapter():
    # One spatial layer of our U-Net, and hooks on the same layer of diffusers' own.
    torch.manual_seed(0)
    config = UNetConfig(
        block_out_channels=(32, 32),
        num_attention_heads=(2, 2),
        has_attention=(True, False),
        layers_per_block=1,
        cross_attention_dim=32,
        addition_time_embed_dim=8,
    )
    ours = AnimatorUNet(config)
    stock = UNetSpatioTemporalConditionModel(**config.stock_settings())
    stock.load_state_dict(ours.state_dict(), strict=False)
    states, prompt, face = torch.randn(2, 6, 32), torch.randn(2, 3, 32), torch.randn(2, 4, 32)
    name, layer = next(iter(spatial_attention(stock).items()))
    own = ours.get_submodule(name)
    expected = own(states, torch.cat([prompt, face], dim=1))
    attached = attach_identity_adapter(stock, config_of())
    branch = attached.branches[name.replace(".", "/")]
    branch.id_to_k.load_state_dict(own.processor.id_to_k.state_dict())
    branch.id_to_v.load_state_dict(own.processor.id_to_v.state_dict())
    with attached.faces(face):
        assert_close(layer(states, prompt), expected)


def test_models_without_a_prompt_and_odd_batches_are_refused():
    plain = UNet2DModel(
        block_out_channels=(32,),
        down_block_types=("AttnDownBlock2D",),
        up_block_types=("AttnUpBlock2D",),
        norm_num_groups=8,
    )
    with pytest.raises(ConfigError, match="no spatial attention to a prompt"):
        attach_identity_adapter(plain, config_of())
    network, run = motion_unet()
    attached = attach_identity_adapter(network, config_of())
    with (
        attached.identity(*people(0, clips=4)),
        pytest.raises(ConfigError, match="must be a multiple"),
    ):
        run()
