import inspect

import numpy as np
import pytest
import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXTransformer3DModel,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UNetMotionModel,
)
from torch import nn
from torch.testing import assert_close

from animaray.models.face.optimization import (
    FaceOptimizer,
    FaceTarget,
)
from animaray.models.face.optimization_config import FaceOptimizationConfig
from animaray.models.interop.scheduler_hooks import (
    CorrectedScheduler,
    NoiseLevel,
    correct_prediction,
    noise_level,
    to_denoised,
    to_prediction,
)
from animaray.platform.errors import ConfigError

# diffusers hands tensors to numpy in the way of numpy 1.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SCHEDULERS = {
    "ddim": lambda kind: DDIMScheduler(clip_sample=False, prediction_type=kind),
    "dpm": lambda kind: DPMSolverMultistepScheduler(prediction_type=kind),
    "cogvideox": lambda kind: CogVideoXDDIMScheduler(prediction_type=kind),
    "euler": lambda kind: EulerDiscreteScheduler(prediction_type=kind),
    "euler_karras": lambda kind: EulerDiscreteScheduler(
        prediction_type=kind, use_karras_sigmas=True, timestep_type="continuous"
    ),
}


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("level", [NoiseLevel(0.6, 0.8), NoiseLevel(1.0, 3.0)])
def test_prediction_and_estimate_are_inverse(kind, level):
    torch.manual_seed(0)
    latents, noise = torch.randn(2, 3), torch.randn(2, 3)
    noisy = level.alpha * latents + level.deviation * noise
    prediction = to_prediction(latents, noisy, level, kind)
    assert_close(to_denoised(prediction, noisy, level, kind), latents)
    if kind == "epsilon":
        assert_close(prediction, noise)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_estimate_equals_the_schedulers_own(name, kind):
    if (name, kind) == ("euler_karras", "epsilon"):
        pytest.skip("continuous time steps are for v-prediction")
    scheduler = SCHEDULERS[name](kind)
    scheduler.set_timesteps(5)
    torch.manual_seed(0)
    noisy, prediction = torch.randn(1, 4, 2, 4, 4), torch.randn(1, 4, 2, 4, 4)
    timestep = scheduler.timesteps[2]
    if hasattr(scheduler, "scale_model_input"):
        scheduler.scale_model_input(noisy, timestep)
    level = noise_level(scheduler, timestep)
    ours = to_denoised(prediction, noisy, level, kind)
    if name == "dpm":
        scheduler._init_step_index(timestep)
        theirs = scheduler.convert_model_output(prediction, sample=noisy)
    else:
        theirs = scheduler.step(prediction, timestep, noisy).pred_original_sample
    assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["ddim", "euler"])
def test_hook_that_changes_nothing_changes_nothing(name):
    torch.manual_seed(0)
    noisy, prediction = torch.randn(1, 4, 2, 4, 4), torch.randn(1, 4, 2, 4, 4)
    results = []
    for hooked in (False, True):
        scheduler = SCHEDULERS[name]("epsilon")
        scheduler.set_timesteps(4)
        if hooked:
            scheduler = CorrectedScheduler(scheduler, lambda denoised, step: denoised)  # noqa: ARG005
        current = noisy
        for timestep in scheduler.timesteps:
            scheduler.scale_model_input(current, timestep)
            current = scheduler.step(prediction, timestep, current).prev_sample
        results.append(current)
    assert_close(results[0], results[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["ddim", "cogvideox", "euler"])
def test_last_step_returns_the_corrected_estimate(name):
    scheduler = SCHEDULERS[name]("v_prediction")
    scheduler.set_timesteps(3)
    steps, shapes = [], []

    def to_seven(denoised, step):
        steps.append(step)
        shapes.append(tuple(denoised.shape))
        return torch.full_like(denoised, 0.7)

    axis = "frames_first" if name == "cogvideox" else "channels_first"
    hooked = CorrectedScheduler(scheduler, to_seven, frame_axis=axis)
    current = torch.randn(1, 4, 3, 2, 2) * hooked.init_noise_sigma
    for timestep in hooked.timesteps:
        hooked.scale_model_input(current, timestep)
        current = hooked.step(torch.randn(1, 4, 3, 2, 2), timestep, current).prev_sample
    sigmas = [step.sigma for step in steps]
    assert sigmas == sorted(sigmas, reverse=True)
    assert [step.step_index for step in steps] == [0, 1, 2]
    assert [step.next_sigma for step in steps] == pytest.approx([*sigmas[1:], 0.0])
    assert set(shapes) == {(1, 4, 3, 2, 2) if axis == "frames_first" else (1, 3, 4, 2, 2)}
    # DDIM's last step ends at the first training level, not at zero noise.
    assert_close(
        current, torch.full_like(current, 0.7), atol=0.1 if name != "euler" else 1e-4, rtol=0
    )


def test_pipelines_see_the_arguments_of_the_schedulers_step():
    hooked = CorrectedScheduler(DDIMScheduler(), lambda denoised, step: denoised)  # noqa: ARG005
    assert "eta" in inspect.signature(hooked.step).parameters
    assert hooked.config.num_train_timesteps == 1000


def test_unknown_schedulers_and_steps_are_refused():
    flow = FlowMatchEulerDiscreteScheduler()
    flow.set_timesteps(3)
    noise = torch.randn(1, 4, 2, 2, 2)
    with pytest.raises(ConfigError, match="do not know"):
        CorrectedScheduler(flow, lambda denoised, step: denoised).step(  # noqa: ARG005
            noise, flow.timesteps[0], noise
        )
    ddim = DDIMScheduler()
    ddim.set_timesteps(3)
    with pytest.raises(ConfigError, match="no timestep of this run"):
        correct_prediction(ddim, noise, noise, 5.0, lambda denoised, step: denoised)  # noqa: ARG005


class BlockCodec(nn.Module):
    """Latents are 8 x 8 blocks; the decoder looks at one cell only."""

    name, latent_channels, downscale = "blocks", 4, 8

    def encode(self, frames):
        raise NotImplementedError

    def decode(self, latents):
        # An untrained network's estimates are large: keep colours inside (-1, 1).
        return (latents[:, :3] / 8).tanh().repeat_interleave(8, -1).repeat_interleave(8, -2)


class ColourEmbedder(nn.Module):
    """The identity of a face is its mean colour."""

    name, embedding_dim, crop_height_px, crop_width_px = "colour", 3, 16, 16

    def template(self):
        return np.array([[5, 5], [11, 5], [8, 8], [6, 11], [10, 11]], np.float32)

    def embed(self, frame, landmarks):
        raise NotImplementedError

    def embed_crops(self, crops):
        return nn.functional.normalize(crops.mean((2, 3)) + 1e-3, dim=1)


def animatediff():
    """A Stable Diffusion U-Net with motion modules: (batch, channels, frames, h, w)."""
    unet = UNetMotionModel(
        block_out_channels=(32, 32),
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        up_block_types=("UpBlockMotion", "CrossAttnUpBlockMotion"),
        layers_per_block=1,
        cross_attention_dim=32,
        num_attention_heads=2,
        motion_num_attention_heads=2,
        norm_num_groups=8,
    ).eval()
    text = torch.randn(2, 5, 32)  # one per frame
    return lambda noisy, timestep: unet(noisy, timestep, encoder_hidden_states=text).sample


def cogvideox():
    """A transformer over text and video: (batch, frames, channels, h, w)."""
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=8,
        num_layers=2,
        sample_width=8,
        sample_height=8,
        sample_frames=2,
        temporal_compression_ratio=1,
        max_text_seq_length=5,
    ).eval()
    text = torch.randn(1, 5, 8)
    return lambda noisy, timestep: transformer(noisy, text, timestep[None], return_dict=False)[0]


@pytest.mark.parametrize(
    ("make", "name", "kind"),
    [
        (animatediff, "ddim", "epsilon"),
        (animatediff, "euler", "epsilon"),
        (cogvideox, "cogvideox", "v_prediction"),
    ],
)
@torch.no_grad()
def test_face_optimization_works_in_loops_of_other_models(make, name, kind):
    torch.manual_seed(0)
    network, start = make(), torch.randn(1, 2, 4, 8, 8)
    axis = "frames_first" if make is cogvideox else "channels_first"
    if axis == "channels_first":
        start = start.transpose(1, 2)
    red = np.array([1.0, 0.0, 0.0], np.float32)
    landmarks = np.repeat(ColourEmbedder().template()[None] + 16, 2, axis=0).astype(np.float32)
    results, optimizers = [], []
    for mode in ("off", "literal"):
        target = FaceTarget(reference_embedding=red, landmarks=landmarks)
        config = FaceOptimizationConfig(mode=mode, num_steps=6, learning_rate=1.0)
        optimizers.append(FaceOptimizer(BlockCodec(), ColourEmbedder(), [target], config))
        scheduler = SCHEDULERS[name](kind)
        scheduler.set_timesteps(6)
        hooked = CorrectedScheduler(scheduler, optimizers[-1], frame_axis=axis)
        current = start * hooked.init_noise_sigma
        for timestep in hooked.timesteps:
            scaled = hooked.scale_model_input(current, timestep)
            current = hooked.step(network(scaled, timestep), timestep, current).prev_sample
        results.append(current[0] if axis == "frames_first" else current.transpose(1, 2)[0])
    assert [len(optimizer.history) for optimizer in optimizers] == [0, 6]
    faces = [BlockCodec().decode(latents)[:, :, 16:32, 16:32].clamp(-1, 1) for latents in results]
    redness = [
        (ColourEmbedder().embed_crops(face) @ torch.from_numpy(red)).mean() for face in faces
    ]
    assert redness[1] > redness[0] + 0.2
