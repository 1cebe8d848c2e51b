import json
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from animaray.models.networks.animator import Animator
from animaray.models.networks.animator_config import AnimatorConfig
from animaray.models.networks.conditioning import Conditioning
from animaray.platform.errors import ConfigError, WeightsError


def conditioning_for(config, batch=1, frames=3):
    h, w, d = config.height_px, config.width_px, config.downscale
    return Conditioning(
        reference_latents=torch.randn(batch, config.latent_channels, h // d, w // d),
        image_embedding=torch.randn(batch, config.image_embedding_dim),
        identity_embedding=torch.randn(batch, config.identity_dim),
        pose_images=torch.rand(batch, frames, 3, h, w) * 2 - 1,
        reference_pose_image=torch.rand(batch, 3, h, w) * 2 - 1,
        warped_reference=torch.rand(batch, frames, config.latent_channels + 2, h // d, w // d),
    )


@pytest.fixture
def animator():
    animator = Animator(AnimatorConfig.tiny()).eval()
    torch.nn.init.normal_(animator.unet.conv_out.weight, std=0.1)  # untrained, it is zero
    return animator


def test_tiny_sigma_returns_the_input(animator):
    # c_skip -> 1 and c_out -> 0: almost clean latents stay as they are.
    noisy = torch.randn(1, 3, 4, 4, 4)
    with torch.no_grad():
        denoised = animator.denoise(noisy, torch.tensor([1e-5]), conditioning_for(animator.config))
    assert_close(denoised, noisy, atol=1e-3, rtol=0)


def test_encoded_conditioning_gives_the_same_result(animator):
    noisy, conditioning = torch.randn(1, 3, 4, 4, 4), conditioning_for(animator.config)
    with torch.no_grad():
        encoded = animator.encode_conditioning(conditioning)
        first = animator.denoise(noisy, torch.ones(1), conditioning)
        second = animator.denoise(noisy, torch.ones(1), encoded)
        third = animator(noisy, torch.ones(1), conditioning)
    assert torch.equal(first, second)
    assert torch.equal(first, third)


def test_the_difference_to_the_warp_is_denoised(animator):
    one = conditioning_for(animator.config)
    shift = torch.zeros_like(one.warped_reference)
    shift[:, :, :4] = torch.randn(1, 3, 4, 4, 4)
    other = replace(one, warped_reference=one.warped_reference + shift)
    noisy, sigma = torch.randn(1, 3, 4, 4, 4), torch.ones(1)
    with torch.no_grad():
        # A fresh network is not told the warped reference: only the difference to it counts.
        first = animator(noisy, sigma, one)
        second = animator(noisy + shift[:, :, :4], sigma, other)
        assert_close(second, first + shift[:, :, :4], atol=1e-4, rtol=1e-4)
        animator.warped_reference.to_out.weight.normal_()
        third = animator(noisy + shift[:, :, :4], sigma, other)
        assert not torch.allclose(third, second, atol=1e-3)


def test_an_untrained_animator_makes_the_warp_of_much_noise():
    animator = Animator(AnimatorConfig.tiny()).eval()
    conditioning = conditioning_for(animator.config)
    with torch.no_grad():
        found = animator(torch.randn(1, 3, 4, 4, 4) * 80, torch.tensor([80.0]), conditioning)
    assert_close(found, conditioning.warped_reference[:, :, :4], atol=0.02, rtol=0)


def test_a_missing_warp_is_refused(animator):
    with pytest.raises(ConfigError, match="needs `warped_reference`"):
        animator.encode_conditioning(
            replace(conditioning_for(animator.config), warped_reference=None)
        )


def test_dropping_removes_image_and_reference(animator):
    config, batch = animator.config, 2
    one, other = (conditioning_for(config, batch) for _ in "ab")
    other = replace(
        other,
        image_embedding=one.image_embedding,
        identity_embedding=one.identity_embedding,
        pose_images=one.pose_images,
        warped_reference=one.warped_reference,
    )
    noisy, sigma = torch.randn(batch, 3, 4, 4, 4), torch.ones(batch)
    mask = torch.tensor([True, False])
    with torch.no_grad():
        first, second = (animator(noisy, sigma, c, mask, mask) for c in (one, other))
    assert torch.equal(first[0], second[0])
    assert not torch.allclose(first[1], second[1])


def test_published_unconditional_branch_has_no_face_and_no_pose():
    config = replace(AnimatorConfig.tiny(), unconditional="published")
    animator = Animator(config)
    encoded = animator.encode_conditioning(conditioning_for(config))
    dropped = animator.unconditional(encoded)
    assert dropped.face_tokens.abs().sum() == 0
    assert dropped.pose_features is None
    kept = Animator(AnimatorConfig.tiny()).unconditional(encoded)
    assert torch.equal(kept.face_tokens, encoded.face_tokens)
    assert kept.reference_latents.abs().sum() == 0


def test_every_trainable_parameter_gets_a_gradient(animator):
    animator(
        torch.randn(1, 3, 4, 4, 4), torch.ones(1), conditioning_for(animator.config)
    ).sum().backward()
    without = [n for n, p in animator.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


def test_reference_attention_needs_the_reference_pose(animator):
    conditioning = replace(conditioning_for(animator.config), reference_pose_image=None)
    with pytest.raises(ConfigError, match=r"needs `reference_pose_image`"):
        animator.encode_conditioning(conditioning)


def test_saved_animator_denoises_alike(animator, tmp_path):
    animator.save_pretrained(tmp_path)
    loaded = Animator.from_pretrained(tmp_path)
    assert loaded.config == animator.config
    assert (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").exists()
    assert json.loads((tmp_path / "pose_net" / "config.json").read_text())["out_channels"] == 32
    noisy, conditioning = torch.randn(1, 3, 4, 4, 4), conditioning_for(animator.config)
    with torch.no_grad():
        first = animator.denoise(noisy, torch.ones(1), conditioning)
        second = loaded.denoise(noisy, torch.ones(1), conditioning)
    assert torch.equal(first, second)


def test_folders_of_older_versions_load(animator, tmp_path):
    animator.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    index["moved_reference"] = index.pop("warped_reference")
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    (tmp_path / "warped_reference").rename(tmp_path / "moved_reference")
    loaded = Animator.from_pretrained(tmp_path)
    assert loaded.config == animator.config
    for name, weight in animator.state_dict().items():
        assert torch.equal(weight, loaded.state_dict()[name])


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"Expected a weights folder with model_index.json"):
        Animator.from_pretrained(tmp_path)


def test_unknown_setting_is_refused(animator, tmp_path):
    animator.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps(index | {"colour": "red"}))
    with pytest.raises(WeightsError, match=r"does not know.*colour"):
        Animator.from_pretrained(tmp_path)


def test_weights_of_another_size_are_refused(animator, tmp_path):
    animator.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    index["pose_net"]["trunk_dim"] = 12
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsError, match=r"does not fit PoseNet"):
        Animator.from_pretrained(tmp_path)


def test_damaged_weights_are_refused(animator, tmp_path):
    animator.save_pretrained(tmp_path)
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"no")
    with pytest.raises(WeightsError, match=r"Cannot read the weights"):
        Animator.from_pretrained(tmp_path)


def test_published_animator_has_the_published_size():
    with torch.device("meta"):
        animator = Animator(AnimatorConfig.published())
    counts = {n: sum(p.numel() for p in m.parameters()) for n, m in animator.named_children()}
    assert counts == {"unet": 1_550_182_122, "pose_net": 205_557, "face_encoder": 57_183_232}


def test_generated_animator_is_small():
    animator = Animator(AnimatorConfig.generated())
    assert 3e6 < sum(p.numel() for p in animator.parameters()) < 9e6


def test_parts_that_do_not_fit_are_refused():
    tiny = AnimatorConfig.tiny()
    with pytest.raises(ConfigError, match=r"`pose_net.out_channels` must be 32"):
        replace(tiny, pose_net=replace(tiny.pose_net, out_channels=16))
    with pytest.raises(ConfigError, match=r"`width_px` must be a multiple of 8"):
        replace(tiny, width_px=30)
