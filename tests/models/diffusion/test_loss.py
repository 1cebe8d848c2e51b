import pytest
import torch
from torch.testing import assert_close

from animaray.models.diffusion.loss import (
    LossConfig,
    LossDraws,
    denoising_loss,
    dropout_masks,
    face_mask_from_boxes,
)
from animaray.models.networks.animator import Animator
from animaray.models.networks.animator_config import AnimatorConfig
from animaray.models.networks.conditioning import Conditioning
from animaray.platform.errors import ConfigError

BATCH = 4


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
        warped_reference=torch.rand(batch, frames, 6, 4, 4),
    )


def test_perfect_denoiser_has_no_loss():
    latents = torch.randn(2, 2, 4, 4, 4)
    output = denoising_loss(
        lambda *_, **__: latents,
        latents,
        tiny_conditioning(),
        torch.zeros(2, 2, 1, 4, 4),
        LossConfig(),
        LossDraws.of(latents, LossConfig()),
    )
    assert output.loss.item() == 0
    assert output.unweighted.tolist() == [0, 0]


def test_network_of_zeros_has_unit_loss():
    # raw_output = 0 misses a target of unit variance at every noise level: loss 1.
    from animaray.models.networks.preconditioning import precondition

    def denoiser(noisy, sigma, *_, **__):
        return precondition(sigma, 1.0).c_skip[:, None, None, None, None] * noisy

    latents = torch.randn(64, 8, 4, 8, 8)
    mask, config = torch.zeros(64, 8, 1, 8, 8), LossConfig()
    draws = LossDraws.of(latents, config)
    output = denoising_loss(denoiser, latents, tiny_conditioning(), mask, config, draws)
    assert_close(output.per_clip, torch.ones(64), atol=0.15, rtol=0)


@pytest.mark.parametrize(("power", "use", "expected"), [(1, True, 2), (2, True, 4), (1, False, 1)])
def test_face_weight(power, use, expected):
    # Whole frame is face: every pixel of squared error 1 counts (1 + 1)^power.
    latents, mask = torch.zeros(1, 1, 4, 2, 2), torch.ones(1, 1, 1, 2, 2)
    config = LossConfig(face_weight_power=power, use_face_mask=use)
    draws = LossDraws(sigma=torch.tensor([1e4]), noise=latents, chance=torch.ones(1))
    output = denoising_loss(
        lambda *_, **__: latents + 1, latents, tiny_conditioning(), mask, config, draws
    )
    assert output.loss.item() == pytest.approx(expected, rel=1e-4)


def test_step_repeats_with_the_generator():
    animator, conditioning = Animator(AnimatorConfig.tiny()), tiny_conditioning()
    latents, mask = torch.randn(2, 2, 4, 4, 4), torch.zeros(2, 2, 1, 4, 4)
    config = LossConfig()
    first, second = (
        denoising_loss(
            animator,
            latents,
            conditioning,
            mask,
            config,
            LossDraws.of(latents, config, torch.Generator().manual_seed(3)),
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
    expected = torch.nn.functional.interpolate(pixels[0], (8, 6), mode="nearest")
    mask = face_mask_from_boxes(boxes, torch.tensor([True]), (48, 64), (8, 6))
    assert torch.equal(mask, expected)


def test_impossible_dropout_is_refused():
    with pytest.raises(ConfigError, match="`conditioning_dropout` must be within"):
        LossConfig(conditioning_dropout=0.5)


def test_impossible_power_is_refused():
    with pytest.raises(ConfigError, match="`face_weight_power` must be 1 or 2"):
        LossConfig(face_weight_power=3)
