import inspect

import pytest
import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from torch.testing import assert_close

from animaray.models.diffusion.scheduler_hooks import (
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
