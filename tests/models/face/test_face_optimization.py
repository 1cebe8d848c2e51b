import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLCogVideoX
from torch import nn
from torch.testing import assert_close

from animaray.models.diffusion.sampler_config import StepInfo
from animaray.models.face.optimization import (
    FaceOptimizer,
    FaceTarget,
    optimize_latents,
)
from animaray.models.face.optimization_config import FaceOptimizationConfig
from animaray.models.frames import to_uint8
from animaray.models.perception.decoding.convolutional_windows import stack_stages
from animaray.models.perception.decoding.windowed_decoding import StagedDecoder
from animaray.models.perception.protocols import FaceDetection
from animaray.platform.errors import ConfigError, FaceError


class PixelCodec(nn.Module):
    """Latents are 8 x 8 blocks of colour; the decoder looks at one cell only."""

    name, latent_channels, downscale = "blocks", 3, 8

    def encode(self, frames):
        return nn.functional.avg_pool2d(frames, 8)

    def decode(self, latents):
        return latents.repeat_interleave(8, -1).repeat_interleave(8, -2)


class WindowedPixelCodec(PixelCodec):
    """The same, and it can decode windows."""

    def windowed(self):
        stages = stack_stages([nn.Upsample(scale_factor=8)])
        return StagedDecoder(stages, shares_window=False, needs_record=False)


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


GREEN = np.array([0.0, 1.0, 0.0], np.float32)


def optimizer_for(landmarks, codec=None, detector=None, on_iteration=None, **changes):
    settings = {"learning_rate": 0.1, "from_sigma": 1e9, "to_sigma": 0.0} | changes
    return FaceOptimizer(
        codec or WindowedPixelCodec(),
        ColourEmbedder(),
        [FaceTarget(reference_embedding=RED, landmarks=landmarks)],
        FaceOptimizationConfig(**settings),
        detector=detector,
        on_iteration=on_iteration,
    )


def step(index=0, sigma=1.0):
    return StepInfo(step_index=index, num_inference_steps=20, sigma=sigma, next_sigma=0.5)


@pytest.fixture
def latents():
    return torch.rand(1, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.4 - 0.2


@pytest.mark.parametrize("mode", ["published", "literal", "fast"])
def test_the_face_takes_the_references_colour(latents, mode):
    landmarks = np.stack([landmarks_at(24, 24), landmarks_at(24, 40)])
    optimizer = optimizer_for(landmarks, mode=mode, num_iterations=30, stop_below_gain=0.0)
    improved = optimizer(latents, step())
    losses = optimizer.history[0].losses
    assert losses[-1] < 0.05 < losses[0]
    face = improved[0, 0, :, 3:5, 3:5].mean((1, 2))
    assert face[0] > 0.3 > face[1:].max()


def test_windows_and_whole_frames_give_equal_results(latents):
    # The decoder looks at one cell, so windows are exact.
    landmarks = np.stack([landmarks_at(24, 24), landmarks_at(0, 44)])
    optimizers = [optimizer_for(landmarks, codec) for codec in (WindowedPixelCodec(), PixelCodec())]
    first, second = (optimizer(latents, step()) for optimizer in optimizers)
    assert_close(first, second, atol=1e-5, rtol=1e-4)
    assert optimizers[0].history[0].note is None
    assert "codec blocks cannot decode windows" in optimizers[1].history[0].note


def test_the_background_stays_as_it_is_to_the_bit(latents):
    landmarks = np.stack([landmarks_at(28, 28)] * 2)  # pixels 28..43, cells 3..5
    improved = optimizer_for(landmarks, update_margin_latents=0)(latents, step())
    changed = (improved != latents).any(dim=2)[0, 0]
    assert changed[3:6, 3:6].all()
    changed[3:6, 3:6] = False
    assert not changed.any()


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


def test_every_person_takes_their_own_colour(latents):
    targets = [
        FaceTarget(reference_embedding=colour, landmarks=np.stack([landmarks_at(*place)] * 2))
        for colour, place in ((RED, (8, 8)), (GREEN, (40, 40)))
    ]
    config = FaceOptimizationConfig(num_iterations=30, stop_below_gain=0.0)
    improved = FaceOptimizer(WindowedPixelCodec(), ColourEmbedder(), targets, config)(
        latents, step()
    )
    assert improved[0, 1, :, 1:3, 1:3].mean((1, 2)).argmax() == 0
    assert improved[0, 1, :, 5:7, 5:7].mean((1, 2)).argmax() == 1


@pytest.mark.parametrize(("index", "is_active"), [(1, False), (2, True), (4, True), (5, False)])
def test_only_the_chosen_steps_are_optimized(latents, index, is_active):
    landmarks = np.stack([landmarks_at(24, 24)] * 2)
    optimizer = optimizer_for(landmarks, start_step=2, num_steps=3)
    improved = optimizer(latents, step(index))
    assert torch.equal(improved, latents) != is_active


@pytest.mark.parametrize(
    ("mode", "active"),
    [("off", []), ("literal", [0, 9]), ("published", [0, 9, 10]), ("fast", [9])],
)
def test_modes_work_at_their_own_steps(mode, active):
    # Two early steps of high noise, one of the middle, one at the end.
    config = FaceOptimizationConfig(mode=mode, from_sigma=40.0, to_sigma=0.2)
    sigmas = {0: 700.0, 9: 20.0, 10: 100.0, 24: 0.01}
    assert [index for index, sigma in sigmas.items() if config.is_active(step(index, sigma))] == [
        index for index in sigmas if index in active
    ]


def test_chunks_give_the_same_result(latents):
    landmarks = np.stack([landmarks_at(24, 24), landmarks_at(8, 40)])
    for mode in ("literal", "fast"):
        whole = optimizer_for(landmarks, mode=mode, num_iterations=2)(latents, step())
        parts = optimizer_for(landmarks, mode=mode, num_iterations=2, chunk_frames=1)
        assert_close(parts(latents, step()), whole)


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
    optimizer = optimizer_for(
        np.stack([landmarks_at(40, 40)] * 2),
        detector=detector,
        detect_every=2,
        detect_below_sigma=5.0,
        update_margin_latents=0,
    )
    early = optimizer(latents, step(0, sigma=10.0))
    assert detector.num_calls == 0
    assert not torch.equal(early[0, 0, :, 5:7, 5:7], latents[0, 0, :, 5:7, 5:7])
    late = optimizer(latents, step(1, sigma=1.0))
    assert detector.num_calls == 2
    assert torch.equal(late[0, 0, :, 5:7, 5:7], latents[0, 0, :, 5:7, 5:7])
    assert not torch.equal(late[0, 0, :, :2, :2], latents[0, 0, :, :2, :2])
    assert [entry.num_detected for entry in optimizer.history] == [0, 2]
    optimizer(latents, step(2, sigma=0.5))
    assert detector.num_calls == 4
    optimizer(latents, step(3, sigma=0.4))
    assert detector.num_calls == 4


class RecordingCodec(PixelCodec):
    """A codec whose windows need a record of a frame."""

    def windowed(self):
        stages = stack_stages([nn.Upsample(scale_factor=8)])
        return StagedDecoder(stages, shares_window=True, needs_record=True)


def test_one_previewed_frame_moves_the_landmarks_of_all(latents):
    # The face is found 8 px further left in the one decoded frame; both frames follow.
    landmarks = np.stack([landmarks_at(24, 24), landmarks_at(24, 40)])
    detector = CornerDetector(landmarks_at(16, 40))
    optimizer = optimizer_for(
        landmarks,
        RecordingCodec(),
        detector=detector,
        update_margin_latents=0,
        record_all_frames=False,
    )
    improved = optimizer(latents, step())
    assert detector.num_calls == 1
    changed = (improved != latents).any(dim=2)[0]
    for frame, row in ((0, 3), (1, 5)):
        assert changed[frame, row : row + 2, 2:4].all()
        assert not changed[frame, :, 5:].any()
    assert optimizer.history[0].num_detected == 1


class VideoCodec(nn.Module):
    """CogVideoX's autoencoder at tiny size: two latents are eight frames."""

    name, latent_channels, downscale = "cogvideox", 4, 8

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.autoencoder = AutoencoderKLCogVideoX(
            block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1,
            norm_num_groups=2,
        ).requires_grad_(False)  # fmt: skip

    def encode(self, frames):
        raise NotImplementedError

    def decode(self, latents):
        return self.autoencoder.decode(latents.transpose(0, 1)[None]).sample[0].transpose(0, 1)


@pytest.mark.parametrize("mode", ["literal", "fast"])
def test_a_codec_may_hold_several_frames_in_one_latent(mode):
    codec = VideoCodec()
    landmarks = np.stack([landmarks_at(8, 8)] * 8)
    landmarks[2] = np.nan
    start = torch.randn(1, 2, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    optimizer = optimizer_for(landmarks, codec, mode=mode, num_iterations=2, stop_below_gain=0.0)
    improved = optimizer(start, step())
    entry = optimizer.history[0]
    assert entry.num_frames == 7
    assert entry.losses[-1] < entry.losses[0]
    changed = (improved != start).any(dim=2)[0]
    assert changed[:, 1:3, 1:3].all()
    if mode == "fast":
        changed[:, 1:3, 1:3] = False
        assert not changed.any()
    too_many = optimizer_for(np.stack([landmarks_at(8, 8)] * 9), codec, mode=mode)
    with pytest.raises(ConfigError, match="decodes 8 frames, but faces are given for frame 8"):
        too_many(start, step())


def test_raising_between_adam_steps_ends_the_optimization(latents):
    calls = []

    def cancel():
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    optimizer = optimizer_for(np.stack([landmarks_at(24, 24)] * 2), on_iteration=cancel)
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


def test_iterations_stop_when_nothing_is_gained(latents):
    landmarks = np.stack([landmarks_at(24, 24)] * 2)
    optimizer = optimizer_for(landmarks, num_iterations=200, stop_below_gain=0.02)
    optimizer(latents, step())
    losses = optimizer.history[0].losses
    assert 5 < len(losses) < 200
    assert losses[-2] - losses[-1] < 0.02 * losses[-2]


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
    for changes, message in (
        ({"num_steps": -1}, "`num_steps` must not be negative"),
        ({"num_iterations": 0}, "must be at least 1"),
        ({"learning_rate": 0.0}, "`learning_rate` must be above 0"),
        ({"from_sigma": 1.0, "to_sigma": 2.0}, "Expected `to_sigma` <= `from_sigma`"),
    ):
        with pytest.raises(ConfigError, match=message):
            FaceOptimizationConfig(**changes)


def test_a_reference_without_identity_is_refused():
    target = FaceTarget(
        reference_embedding=np.zeros(3, np.float32), landmarks=np.zeros((1, 5, 2), np.float32)
    )
    config = FaceOptimizationConfig()
    with pytest.raises(FaceError, match="unit reference embedding, got length 0"):
        FaceOptimizer(PixelCodec(), ColourEmbedder(), [target], config)
    with pytest.raises(FaceError, match="at least one reference face, got none"):
        FaceOptimizer(PixelCodec(), ColourEmbedder(), [], config)
