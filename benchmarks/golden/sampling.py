"""Vectors of the sampler: schedule, trajectory, churned step, windows over time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from animaray.models.diffusion.sampler import CorrectDenoised, sample
from animaray.models.diffusion.sampler_config import SamplerConfig
from animaray.models.diffusion.schedule import karras_sigmas
from animaray.models.diffusion.windows import published_windows, triangle_weights, window_indices
from animaray.models.networks.animator_config import AnimatorConfig
from animaray.models.networks.conditioning import EncodedConditioning
from animaray.models.networks.preconditioning import precondition
from animaray.platform.errors import ConfigError
from benchmarks.golden.recording import (
    DenoiserCall,
    RecordingAnimator,
    ScriptedNetwork,
)
from benchmarks.golden.vectors import GoldenVector

WINDOW_FRAMES = 16


def sampler_of(vector: GoldenVector, num_steps: int, **changes: Any) -> SamplerConfig:  # noqa: ANN401
    """Return our sampler's settings for a vector's scheduler.

    Raises:
        DatasetError: The scheduler is another one than the published.
    """
    scheduler = vector.setting("config", "scheduler")
    wanted = {
        "prediction_type": "v_prediction",
        "timestep_type": "continuous",
        "use_karras_sigmas": True,
    }
    for name, value in wanted.items():
        if scheduler.get(name, value) != value:
            raise vector.broken(f"our sampler has only `{name}` = {value!r}")
    return SamplerConfig(
        num_inference_steps=num_steps,
        sigma_min=float(scheduler["sigma_min"]),
        sigma_max=float(scheduler["sigma_max"]),
        **changes,
    )


def schedule_of(config: SamplerConfig) -> Tensor:
    """Return the noise levels of a sampler, the last 0."""
    return karras_sigmas(config.num_inference_steps, config.sigma_min, config.sigma_max, config.rho)


def run_euler_step(vector: GoldenVector) -> None:
    """Compare schedules, a whole trajectory with scripted outputs, and one step with churn."""
    for match in list(vector.names(r"sigmas_(\d+)")):
        sigmas = schedule_of(sampler_of(vector, int(match[1])))
        vector.close(match[0], sigmas)
        vector.close(f"timesteps_{match[1]}", precondition(sigmas[:-1], 1.0).c_noise)
        name = f"init_noise_sigma_{match[1]}"
        if vector.has(name):
            vector.close(name, precondition(sigmas[:1], 1.0).c_in.reciprocal()[0])
    num_steps = vector.setting("config", "steps")
    config = sampler_of(vector, num_steps)
    sigmas = schedule_of(config)
    vector.close("step_sigmas", sigmas)
    _compare_trajectory(vector, config)
    if "churn" in vector.setting("config"):
        _compare_churn(vector, config, sigmas)


def _compare_trajectory(vector: GoldenVector, config: SamplerConfig) -> None:
    run = scripted_run(config, vector.tensor("model_output"), [vector.tensor("sample")[0]])
    channels = run.latents.shape[2]
    samples = torch.stack([call.latents for call in run.calls])
    vector.close("sample", samples)
    vector.close(
        "scaled_input", torch.stack([call.unet_inputs[0][:, :, :channels] for call in run.calls])
    )
    vector.close("step_timesteps", torch.stack([call.unet_inputs[1][0] for call in run.calls]))
    vector.close("pred_x0", torch.stack(run.estimates))
    vector.close("prev_sample", torch.cat([samples[1:], run.latents[None]]))


def _compare_churn(vector: GoldenVector, config: SamplerConfig, sigmas: Tensor) -> None:
    """Churn one step of the stored trajectory."""
    index = vector.setting("config", "churn", "step_index")
    level = float(sigmas[index])
    churned = replace(
        config,
        s_churn=float(vector.setting("config", "churn", "s_churn")),
        s_noise=float(vector.setting("config", "churn", "s_noise")),
        s_churn_min=level,
        s_churn_max=level,
    )
    drawn = [vector.tensor("sample")[0], vector.tensor("churn_noise")]
    run = scripted_run(churned, vector.tensor("model_output"), drawn)
    vector.close("churn_x0", run.estimates[index])
    vector.close("churn_prev", run.calls[index + 1].latents)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScriptedRun:
    """What our sampler did with a network that answers from a script."""

    calls: list[DenoiserCall]
    """Calls of the denoiser, one per step."""
    estimates: list[Tensor]
    """Corrected estimate of the clean clip in each step."""
    latents: Tensor
    """The result."""


def scripted_run(
    config: SamplerConfig,
    outputs: Tensor,
    drawn: Sequence[Tensor],
    correct_denoised: CorrectDenoised | None = None,
) -> ScriptedRun:
    """Run our sampler, one window and no guidance.

    Args:
        outputs: The network's raw outputs, one per step.
        drawn: Latents to start from, then the noise of each churned step.
        correct_denoised: As for `sample`.
    """
    batch, frames, channels, height, width = drawn[0].shape
    animator = _scripted_animator(channels, outputs)
    encoded = EncodedConditioning(
        image_tokens=torch.zeros(batch, 1, 32),
        face_tokens=torch.zeros(batch, 4, 32),
        reference_latents=torch.zeros(batch, channels, height, width),
        pose_features=torch.zeros(batch, frames, 32, height, width),
    )
    level = torch.tensor([config.sigma_max])
    draws = iter([drawn[0] * precondition(level, 1.0).c_in, *drawn[1:]])
    estimates: list[Tensor] = []
    latents = sample(
        animator,
        encoded,
        frames,
        replace(config, guidance_scale=1.0, window_frames=max(frames, WINDOW_FRAMES)),
        lambda _: next(draws),
        correct_denoised,
        lambda denoised, *_: estimates.append(denoised),
    )
    return ScriptedRun(calls=animator.calls, estimates=estimates, latents=latents)


def _scripted_animator(channels: int, outputs: Tensor) -> RecordingAnimator:
    tiny = AnimatorConfig.tiny()
    unet = replace(tiny.unet, in_channels=2 * channels, out_channels=channels)
    config = replace(
        tiny,
        unet=unet,
        reference_attention=None,
        warped_reference=None,
        unconditional="published",
        sigma_data=1.0,
    )
    animator = RecordingAnimator(config).eval()
    animator.unet = ScriptedNetwork(outputs)  # type: ignore[assignment] # stands in for the U-Net
    return animator


def run_tile_blend(vector: GoldenVector) -> None:
    """Compare windows and weights for many lengths.

    Where the published rule crashes (a clip shorter than a window) ours is one window that holds
    every frame. Where it leaves frames without weight (no overlap) the rule itself is compared,
    and our sampler must refuse it.
    """
    tolerance = vector.tolerance("atol")
    for case in vector.setting("cases"):
        sizes = case["num_frames"], case["tile_size"], case["tile_overlap"]
        name = f"{sizes[0]} frames, tile {sizes[1]}, overlap {sizes[2]}"
        if case["error"]:
            tiles = window_indices(*sizes)
            covered = sorted({int(frame) for tile in tiles for frame in tile})
            vector.add(
                f"{name}: covered",
                passed=covered == list(range(sizes[0])),
                tolerance="every frame",
                note=f"published crashes ({case['error']}); ours: {len(tiles)} window",
            )
            continue
        tiles = published_windows(*sizes)
        ours, expected = [tile.tolist() for tile in tiles], case["indices"]
        vector.add(f"{name}: windows", passed=ours == expected, tolerance="exact")
        weights = torch.zeros(sizes[0])
        for tile in tiles:
            weights.index_add_(0, tile, triangle_weights(sizes[1])[: len(tile)])
        wanted = torch.tensor(case["weight_sum"])
        vector.compare(f"{name}: weights", weights, wanted, atol=tolerance)
        if 0 in case["weight_sum"]:
            vector.add(
                f"{name}: refused",
                passed=_is_refused(sizes),
                tolerance="a refusal",
                note="published divides by zero there; our sampler refuses such windows",
            )


def _is_refused(sizes: tuple[int, int, int]) -> bool:
    try:
        window_indices(*sizes)
    except ConfigError:
        return True
    return False
