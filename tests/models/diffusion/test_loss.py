import pytest
import torch
from torch.testing import assert_close

from animaray.models.diffusion.loss import (
    LossConfig,
    denoising_loss,
    dropout_masks,
    face_mask_from_boxes,
    resize_face_mask,
    weighted_error,
)
from animaray.models.networks.animator import Animator
from animaray.models.networks.animator_config import AnimatorConfig
from animaray.models.networks.conditioning import Conditioning
from animaray.models.networks.face_encoder import FaceEncoderConfig
from animaray.models.networks.pose_net import PoseNetConfig
from animaray.platform.errors import ConfigError

BATCH = 4


@pytest.fixture(scope="module")
def golden_step(golden, golden_unet_config):
    config, tensors, weights = golden("train_loss")
    _, _, unet_weights = golden("unet")
    settings = config["config"]
    animator = Animator(
        AnimatorConfig(
            unet=golden_unet_config(settings["unet_config"]),
            pose_net=PoseNetConfig(out_channels=settings["pose_net"]["noise_latent_channels"]),
            face_encoder=FaceEncoderConfig(
                identity_dim=64, image_embedding_dim=64, cross_attention_dim=64
            ),
            width_px=64,
            height_px=96,
        )
    )
    animator.unet.load_state_dict(unet_weights)
    for name in ("pose_net", "face_encoder"):
        prefix = f"{name}."
        part = {k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)}
        getattr(animator, name).load_state_dict(part)
    for name, parameter in animator.unet.named_parameters():
        parameter.requires_grad_("attentions" in name)
    return animator.train(), tensors, config["tol"]


def test_step_equals_the_published_one(golden_step):
    animator, tensors, tolerance = golden_step
    close = {"atol": tolerance["atol"], "rtol": tolerance["rtol"]}
    sigma, latents = tensors["sigmas"], tensors["latents"]
    drop_image, drop_reference = dropout_masks(tensors["random_p"], 0.1)
    # The vectors hold the reference after dropout; a dropped one is zero either way.
    conditioning = Conditioning(
        reference_latents=tensors["conditional_latents"][:, 0],
        image_embedding=tensors["image_embed"][:, 0],
        identity_embedding=tensors["faceid_embeds"],
        pose_images=tensors["pose_pixels_u8"] / 127.5 - 1,
    )
    noisy = latents + sigma[:, None, None, None, None] * tensors["noise"]
    assert_close(noisy, tensors["noisy_latents"], **close)
    mask = resize_face_mask(tensors["face_masks_u8"] / 255, (12, 8))
    assert_close(mask, tensors["latent_masks"], **close)
    animator.zero_grad()
    denoised = animator(noisy, sigma, conditioning, drop_image, drop_reference)
    assert_close(denoised.detach(), tensors["denoised_latents"], **close)
    output = weighted_error(denoised, latents, sigma, mask, LossConfig())
    assert_close(output.loss.detach(), tensors["loss"], rtol=tolerance["loss_rtol"], atol=0)
    output.loss.backward()
    check_gradients(animator, tensors, tolerance["grad_rtol"])


def check_gradients(animator, tensors, rtol):
    named = dict(animator.named_parameters())
    for key, expected in tensors.items():
        if key.startswith("grad."):
            assert_close(named[key[5:]].grad, expected, rtol=rtol, atol=1e-5, msg=key)
    norms = {
        "grad_norm_pose_net": animator.pose_net,
        "grad_norm_face_encoder": animator.face_encoder,
        "grad_norm_unet_attentions": animator.unet,
    }
    for key, network in norms.items():
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
        assert_close(norm, tensors[key], rtol=rtol, atol=1e-6, msg=key)


def test_dropout_bins_are_the_published_ones(golden):
    _, tensors, _ = golden("train_loss")
    drop_image, drop_reference = dropout_masks(tensors["random_p"], 0.1)
    assert torch.equal(drop_image, tensors["prompt_mask"])
    assert torch.equal((~drop_reference).float(), tensors["image_mask"])


def test_dropout_bins():
    chance = torch.tensor([0.05, 0.15, 0.25, 0.35])
    image, reference = dropout_masks(chance, 0.1)
    assert image.tolist() == [True, True, False, False]
    assert reference.tolist() == [False, True, True, False]


def tiny_conditioning(batch=2, frames=2):
    return Conditioning(
        reference_latents=torch.randn(batch, 4, 4, 4),
        image_embedding=torch.randn(batch, 32),
        identity_embedding=torch.randn(batch, 16),
        pose_images=torch.rand(batch, frames, 3, 32, 32) * 2 - 1,
        reference_pose_image=torch.rand(batch, 3, 32, 32) * 2 - 1,
    )


def test_perfect_denoiser_has_no_loss():
    latents = torch.randn(2, 2, 4, 4, 4)
    output = denoising_loss(
        lambda *_, **__: latents,
        latents,
        tiny_conditioning(),
        torch.zeros(2, 2, 1, 4, 4),
        LossConfig(),
    )
    assert output.loss.item() == 0
    assert output.unweighted.tolist() == [0, 0]


def test_network_of_zeros_has_unit_loss():
    # raw_output = 0 misses a target of unit variance at every noise level: loss 1.
    from animaray.models.diffusion.preconditioning import precondition

    def denoiser(noisy, sigma, *_, **__):
        return precondition(sigma, 1.0).c_skip[:, None, None, None, None] * noisy

    latents = torch.randn(64, 8, 4, 8, 8)
    output = denoising_loss(
        denoiser, latents, tiny_conditioning(), torch.zeros(64, 8, 1, 8, 8), LossConfig()
    )
    assert_close(output.per_clip, torch.ones(64), atol=0.15, rtol=0)


@pytest.mark.parametrize(("power", "use", "expected"), [(1, True, 2), (2, True, 4), (1, False, 1)])
def test_face_weight(power, use, expected):
    # Whole frame is face: every pixel of squared error 1 counts (1 + 1)^power.
    latents, sigma = torch.zeros(1, 1, 4, 2, 2), torch.tensor([1e4])
    config = LossConfig(face_weight_power=power, use_face_mask=use)
    output = weighted_error(latents + 1, latents, sigma, torch.ones(1, 1, 1, 2, 2), config)
    assert output.loss.item() == pytest.approx(expected, rel=1e-4)


def test_step_repeats_with_the_generator():
    animator, conditioning = Animator(AnimatorConfig.tiny()), tiny_conditioning()
    latents, mask = torch.randn(2, 2, 4, 4, 4), torch.zeros(2, 2, 1, 4, 4)
    first, second = (
        denoising_loss(
            animator, latents, conditioning, mask, LossConfig(), torch.Generator().manual_seed(3)
        )
        for _ in "ab"
    )
    assert first.loss.item() == second.loss.item()


def test_face_mask_from_boxes_covers_the_boxes():
    boxes = torch.tensor([[8.0, 0.0, 23.0, 7.0], [0.0, 0.0, 31.0, 31.0]])
    mask = face_mask_from_boxes(boxes, torch.tensor([True, False]), (32, 32), (4, 4))
    assert mask[0, 0].tolist() == [[0, 1, 1, 0], [0] * 4, [0] * 4, [0] * 4]
    assert mask[1].sum() == 0


def test_face_mask_from_boxes_equals_nearest_resize():
    boxes = torch.tensor([[5.0, 9.0, 40.0, 33.0]])
    pixels = torch.zeros(1, 1, 1, 64, 48)
    pixels[..., 9:34, 5:41] = 1
    expected = resize_face_mask(pixels, (8, 6))[0]
    mask = face_mask_from_boxes(boxes, torch.tensor([True]), (48, 64), (8, 6))
    assert torch.equal(mask, expected)


def test_face_mask_equals_the_published_rectangles(golden):
    _, tensors, _ = golden("face_mask")
    masks = face_mask_from_boxes(
        tensors["bboxes_xyxy"], torch.ones(2, dtype=torch.bool), (56, 40), (40, 56)
    )
    assert torch.equal(masks.amax(0)[0] * 255, tensors["m1"].float())
    assert torch.equal(masks[0, 0] * 255, tensors["m2"].float())
    nothing = face_mask_from_boxes(
        torch.zeros(1, 4), torch.tensor([False]), (56, 40), (40, 56), absent_value=1.0
    )
    assert torch.equal(nothing[0, 0] * 255, tensors["m3"].float())


def test_impossible_dropout_is_refused():
    with pytest.raises(ConfigError, match="`conditioning_dropout` must be within"):
        LossConfig(conditioning_dropout=0.5)


def test_impossible_power_is_refused():
    with pytest.raises(ConfigError, match="`face_weight_power` must be 1 or 2"):
        LossConfig(face_weight_power=3)
