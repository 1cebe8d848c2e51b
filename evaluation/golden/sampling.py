"""Vectors of the sampler: schedule, trajectory, churned step, windows over time."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from animaray.evaluation.golden.recording import RecordingAnimator, ScriptedNetwork
from animaray.evaluation.golden.vectors import GoldenVector
from animaray.models.diffusion.sampler import sample
from animaray.models.diffusion.sampler_config import SamplerConfig
from animaray.models.diffusion.schedule import karras_sigmas
from animaray.models.diffusion.steps import churned_sigma, published_euler_step
from animaray.models.diffusion.tiles import published_tiles, tile_indices, tile_weights
from animaray.models.networks.animator_config import AnimatorConfig
from animaray.models.networks.conditioning import EncodedConditioning
from animaray.models.networks.preconditioning import precondition
from animaray.platform.errors import ConfigError

TILE_FRAMES = 16


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
    config = sampler_of(vector, num_steps, guidance_scale=1.0)
    sigmas = schedule_of(config)
    vector.close("step_sigmas", sigmas)
    _compare_trajectory(vector, config, sigmas)
    if "churn" in vector.setting("config"):
        _compare_churn(vector, config, sigmas)


def _compare_trajectory(vector: GoldenVector, config: SamplerConfig, sigmas: Tensor) -> None:
    outputs, start = vector.tensor("model_output"), vector.tensor("sample")[0]
    batch, frames, channels, height, width = start.shape
    animator = _scripted_animator(channels, outputs)
    encoded = EncodedConditioning(
        image_tokens=torch.zeros(batch, 1, 32),
        face_tokens=torch.zeros(batch, 4, 32),
        reference_latents=torch.zeros(batch, channels, height, width),
        pose_features=torch.zeros(batch, frames, 32, height, width),
    )
    estimates: list[Tensor] = []
    noise = start * precondition(sigmas[:1], 1.0).c_in
    latents = sample(
        animator,
        encoded,
        frames,
        replace(config, window_frames=max(frames, TILE_FRAMES)),
        torch.Generator(),
        lambda denoised, _: estimates.append(denoised) or denoised,  # type: ignore[func-returns-value] # append and go on
        initial_noise=noise,
    )
    calls = animator.calls
    samples = torch.stack([call.latents for call in calls])
    vector.close("sample", samples)
    vector.close(
        "scaled_input", torch.stack([call.unet_inputs[0][:, :, :channels] for call in calls])
    )
    vector.close("step_timesteps", torch.stack([call.unet_inputs[1][0] for call in calls]))
    vector.close("pred_x0", torch.stack(estimates))
    vector.close("prev_sample", torch.cat([samples[1:], latents[None]]))


def _scripted_animator(channels: int, outputs: Tensor) -> RecordingAnimator:
    tiny = AnimatorConfig.tiny()
    unet = replace(tiny.unet, in_channels=2 * channels, out_channels=channels)
    config = replace(
        tiny,
        unet=unet,
        reference_attention=None,
        moved_reference=None,
        unconditional="published",
        sigma_data=1.0,
    )
    animator = RecordingAnimator(config).eval()
    animator.unet = ScriptedNetwork(outputs)  # type: ignore[assignment] # stands in for the U-Net
    return animator


def _compare_churn(vector: GoldenVector, config: SamplerConfig, sigmas: Tensor) -> None:
    index = vector.setting("config", "churn", "step_index")
    sigma, next_sigma = float(sigmas[index]), float(sigmas[index + 1])
    s_churn = float(vector.setting("config", "churn", "s_churn"))
    step = published_euler_step(
        vector.tensor("sample")[index],
        vector.tensor("model_output")[index],
        sigma,
        next_sigma,
        sigma_hat=churned_sigma(sigma, config.num_inference_steps, s_churn),
        noise=vector.tensor("churn_noise") * float(vector.setting("config", "churn", "s_noise")),
    )
    vector.close("churn_x0", step.denoised)
    vector.close("churn_prev", step.latents)


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
            tiles = tile_indices(*sizes)
            covered = sorted({int(frame) for tile in tiles for frame in tile})
            vector.add(
                f"{name}: covered",
                passed=covered == list(range(sizes[0])),
                tolerance="every frame",
                note=f"published crashes ({case['error']}); ours: {len(tiles)} window",
            )
            continue
        tiles = published_tiles(*sizes)
        ours, expected = [tile.tolist() for tile in tiles], case["indices"]
        vector.add(f"{name}: windows", passed=ours == expected, tolerance="exact")
        weights = torch.zeros(sizes[0])
        for tile in tiles:
            weights.index_add_(0, tile, tile_weights(sizes[1])[: len(tile)])
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
        tile_indices(*sizes)
    except ConfigError:
        return True
    return False
