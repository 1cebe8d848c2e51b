from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from animaray.models.diffusion.face_optimization import (
    FaceOptimizationConfig,
    FaceOptimizer,
    optimize_latents,
    to_uint8,
)
from animaray.models.diffusion.sampler import StepInfo
from animaray.models.frozen.protocols import FaceDetection
from animaray.platform.errors import ConfigError, FaceError

SIZE = 64


class PixelCodec(nn.Module):
    """Latents are 8 x 8 blocks of colour; the decoder looks at one cell only."""

    name, latent_channels, downscale = "blocks", 3, 8

    def encode(self, frames):
        return nn.functional.avg_pool2d(frames, 8)

    def decode(self, latents):
        return latents.repeat_interleave(8, -1).repeat_interleave(8, -2)


class ColourEmbedder(nn.Module):
    """The identity of a face is its mean colour."""

    name, embedding_dim, crop_height_px, crop_width_px = "colour", 3, 16, 16

    def template(self):
        return np.array([[5, 5], [11, 5], [8, 8], [6, 11], [10, 11]], np.float32)

    def embed(self, frame, landmarks):
        raise NotImplementedError

    def embed_crops(self, crops):
        return nn.functional.normalize(crops.mean((2, 3)) + 1e-3, dim=1)


RED = np.array([1.0, 0.0, 0.0], np.float32)


def landmarks_at(x, y):
    """Landmarks of a face of the template's size whose crop starts at (x, y)."""
    return ColourEmbedder().template() + np.array([x, y], np.float32)


def optimizer_for(landmarks, **changes):
    settings = {"learning_rate": 0.1, "crop_margin_latents": 1, "use_decay": False} | changes
    config = FaceOptimizationConfig(**settings)
    return FaceOptimizer(PixelCodec(), ColourEmbedder(), RED, landmarks, config)


def step(index=0, sigma=1.0):
    return StepInfo(step_index=index, num_inference_steps=20, sigma=sigma, next_sigma=0.5)


@pytest.fixture
def latents():
    return torch.rand(1, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.4 - 0.2


@pytest.mark.parametrize("crop", [True, False])
def test_the_face_takes_the_references_colour(latents, crop):
    landmarks = np.stack([landmarks_at(24, 24), landmarks_at(24, 40)])
    optimizer = optimizer_for(landmarks, crop=crop, num_iterations=30)
    improved = optimizer(latents, step())
    losses = optimizer.history[0].losses
    assert losses[-1] < 0.05 < losses[0]
    face = improved[0, 0, :, 3:5, 3:5].mean((1, 2))
    assert face[0] > 0.3 > face[1:].max()


def test_windows_and_whole_frames_give_equal_results(latents):
    # The decoder looks at one cell, so a crop is exact. (Beyond the face, Adam would turn the
    # rounding errors of zero gradients into full steps.)
    landmarks = np.stack([landmarks_at(24, 24), landmarks_at(0, 44)])
    first, second = (
        optimizer_for(landmarks, crop=c, update_margin_latents=0)(latents, step())
        for c in (True, False)
    )
    assert_close(first, second, atol=1e-5, rtol=1e-4)


def test_the_background_stays_as_it_is(latents):
    optimizer = optimizer_for(np.stack([landmarks_at(24, 24)] * 2), update_margin_latents=0)
    improved = optimizer(latents, step())
    changed = (improved != latents).any(dim=2)[0, 0]
    assert changed[3:5, 3:5].all()
    assert not changed[:2].any()
    assert not changed[:, 6:].any()


def test_frames_without_a_face_are_left_alone(latents):
    landmarks = np.stack([landmarks_at(24, 24), np.full((5, 2), np.nan, np.float32)])
    optimizer = optimizer_for(landmarks)
    improved = optimizer(latents, step())
    assert torch.equal(improved[0, 1], latents[0, 1])
    assert not torch.equal(improved[0, 0], latents[0, 0])
    assert optimizer.history[0].num_frames == 1


def test_no_face_at_all_changes_nothing_and_says_so(latents):
    optimizer = optimizer_for(np.full((2, 5, 2), np.nan, np.float32))
    assert torch.equal(optimizer(latents, step()), latents)
    assert optimizer.history[0].num_frames == 0


@pytest.mark.parametrize(("index", "is_active"), [(1, False), (2, True), (4, True), (5, False)])
def test_only_the_chosen_steps_are_optimized(latents, index, is_active):
    optimizer = optimizer_for(np.stack([landmarks_at(24, 24)] * 2), start_step=2, first_steps=3)
    improved = optimizer(latents, step(index))
    assert torch.equal(improved, latents) != is_active


def test_chunks_give_the_same_result(latents):
    landmarks = np.stack([landmarks_at(24, 24), landmarks_at(8, 40)])
    whole = optimizer_for(landmarks)(latents, step())
    assert_close(optimizer_for(landmarks, chunk_frames=1)(latents, step()), whole)


class CornerDetector:
    """Reports one face, wherever the test says."""

    name = "corner"

    def __init__(self, landmarks):
        self.landmarks, self.num_calls = landmarks, 0

    def detect(self, frame):  # noqa: ARG002
        self.num_calls += 1
        box = np.array([0, 0, 16, 16], np.float32)
        return [FaceDetection(box=box, score=1.0, landmarks=self.landmarks)]


def test_detected_landmarks_replace_those_of_the_pose(latents):
    detector = CornerDetector(landmarks_at(0, 0))
    optimizer = FaceOptimizer(
        PixelCodec(),
        ColourEmbedder(),
        RED,
        np.stack([landmarks_at(40, 40)] * 2),
        FaceOptimizationConfig(detect_every=2, detect_below_sigma=5.0, update_margin_latents=0),
        detector=detector,
    )
    early = optimizer(latents, step(0, sigma=10.0))
    assert detector.num_calls == 0
    assert not torch.equal(early[0, 0, :, 5:7, 5:7], latents[0, 0, :, 5:7, 5:7])
    late = optimizer(latents, step(1, sigma=1.0))
    assert detector.num_calls == 2
    assert torch.equal(late[0, 0, :, 5:7, 5:7], latents[0, 0, :, 5:7, 5:7])
    assert not torch.equal(late[0, 0, :, :2, :2], latents[0, 0, :, :2, :2])
    assert [entry.num_detected for entry in optimizer.history] == [0, 2]
    optimizer(latents, step(3, sigma=0.5))
    assert detector.num_calls == 2
    optimizer(latents, step(4, sigma=0.4))
    assert detector.num_calls == 4


def test_raising_between_adam_steps_ends_the_optimization(latents):
    calls = []

    def cancel():
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    optimizer = FaceOptimizer(
        PixelCodec(),
        ColourEmbedder(),
        RED,
        np.stack([landmarks_at(24, 24)] * 2),
        FaceOptimizationConfig(),
        on_iteration=cancel,
    )
    with pytest.raises(KeyboardInterrupt):
        optimizer(latents, step())
    assert len(calls) == 3


def test_learning_rate_falls_to_the_last_step():
    # Adam's first step moves every latent by the learning rate.
    landmarks = np.stack([landmarks_at(24, 24)])
    start = torch.zeros(1, 1, 3, 8, 8) + 0.1
    optimizer = optimizer_for(landmarks, num_iterations=1, use_decay=True, learning_rate=0.2)
    moved = (optimizer(start, step(5)) - start).abs().max().item()
    assert moved == pytest.approx(0.2 * (1 - 5 / 20), rel=1e-3)


def test_a_quadratic_is_minimised_and_can_stop_early():
    def loss_and_gradient(current):
        return current.square().sum().item(), 2 * current

    start = torch.full((1, 1, 2, 2), 1.0)
    result, losses = optimize_latents(
        start, loss_and_gradient, learning_rate=0.1, num_iterations=50
    )
    assert result.abs().max() < 0.1
    assert len(losses) == 50
    _, short = optimize_latents(
        start, loss_and_gradient, learning_rate=0.1, num_iterations=50, stop_below_gain=0.9
    )
    assert len(short) == 2


def test_pictures_are_rounded_and_clamped():
    frames = torch.tensor([-2.0, -1.0, 0.0, 1.0]).view(1, 1, 1, 4).expand(1, 3, 1, 4)
    assert to_uint8(frames)[0, 0, :, 0].tolist() == [0, 0, 128, 255]


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigError, match="`first_steps` must not be negative"):
        FaceOptimizationConfig(first_steps=-1)
    with pytest.raises(ConfigError, match="must be at least 1"):
        FaceOptimizationConfig(num_iterations=0)
    with pytest.raises(ConfigError, match="`learning_rate` must be above 0"):
        FaceOptimizationConfig(learning_rate=0.0)


def test_a_reference_without_identity_is_refused():
    with pytest.raises(FaceError, match="unit reference embedding, got length 0"):
        FaceOptimizer(
            PixelCodec(),
            ColourEmbedder(),
            np.zeros(3, np.float32),
            np.zeros((1, 5, 2), np.float32),
            FaceOptimizationConfig(),
        )


def golden_vae(settings, weights):
    from diffusers import AutoencoderKLTemporalDecoder

    sizes = settings["vae"]
    vae = AutoencoderKLTemporalDecoder(
        block_out_channels=tuple(sizes["block_out_channels"]),
        down_block_types=("DownEncoderBlock2D",) * len(sizes["block_out_channels"]),
        layers_per_block=sizes["layers_per_block"],
        latent_channels=sizes["latent_channels"],
        scaling_factor=sizes["scaling_factor"],
    )
    decoder = {
        key.split("decoder.", 1)[1]: value for key, value in weights.items() if "decoder." in key
    }
    vae.decoder.load_state_dict(decoder)
    return vae.eval()


def golden_face_net(weights):
    first, second, last = (
        nn.Conv2d(3, 6, 8, stride=8),
        nn.Conv2d(6, 8, 7, stride=7),
        nn.Linear(32, 24),
    )
    for name, layer in (("c1", first), ("c2", second), ("fc", last)):
        prefix = f"face.{name}."
        layer.load_state_dict({k: weights[prefix + k] for k in ("weight", "bias")})
    return nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), nn.Flatten(), last)


@pytest.mark.parametrize("index", [0, 1])
def test_adam_steps_equal_the_published_ones(golden, index):
    config, tensors, weights = golden("hjb_step")
    settings = config["config"]
    vae, net = golden_vae(settings, weights), golden_face_net(weights)
    factor, chunk = settings["vae"]["scaling_factor"], settings["decode_chunk_size"]
    reference = nn.functional.normalize(tensors["ref_embedding"], dim=1)
    boxes = tensors["boxes"].tolist()

    def loss_and_gradient(current):
        current = current.detach().requires_grad_()
        frames = torch.cat(
            [
                vae.decode(part, num_frames=len(part)).sample
                for part in torch.split(current / factor, chunk)
            ]
        )
        frames = frames.clamp(-1, 1)
        crops = [
            nn.functional.interpolate(
                frame[None, :, top : bottom + 1, left : right + 1],
                (112, 112),
                mode="bilinear",
                align_corners=False,
            )
            for frame, (top, bottom, left, right) in zip(frames, boxes, strict=True)
        ]
        embeddings = nn.functional.normalize(net(torch.cat(crops)), dim=1)
        loss = (1 - embeddings @ reference[0]).abs().mean()
        (gradient,) = torch.autograd.grad(loss, current)
        return loss.item(), gradient

    before = tensors[f"step{index}_x0_before"][0]
    after, losses = optimize_latents(
        before,
        loss_and_gradient,
        learning_rate=tensors[f"step{index}_lr"].item(),
        num_iterations=settings["num_optimization_iter"],
    )
    assert losses[0] == pytest.approx(tensors[f"step{index}_loss_before"].item(), abs=1e-5)
    assert_close(after, tensors[f"step{index}_x0_after"][0], atol=1e-4, rtol=1e-4)
    loss_after = loss_and_gradient(after)[0]
    assert loss_after == pytest.approx(tensors[f"step{index}_loss_after"].item(), abs=1e-5)
    rate = 0.1 * (1 - (settings["first_step_index"] + index) / settings["num_inference_steps"])
    assert tensors[f"step{index}_lr"].item() == pytest.approx(rate, rel=1e-5)


def test_every_setting_can_be_replaced():
    config = replace(FaceOptimizationConfig(), enabled=False)
    landmarks = np.stack([landmarks_at(24, 24)])
    optimizer = FaceOptimizer(PixelCodec(), ColourEmbedder(), RED, landmarks, config)
    latents = torch.zeros(1, 1, 3, 8, 8)
    assert torch.equal(optimizer(latents, step()), latents)
    assert optimizer.history == []
