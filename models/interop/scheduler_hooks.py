"""Run the sampler's hooks (face optimization) inside any diffusers sampling loop.

    pipeline.scheduler = CorrectedScheduler(pipeline.scheduler, optimizer)

A diffusers scheduler gets the network's prediction. Here the prediction is turned into the
denoised estimate, the hook corrects it, and it is turned back, so that the scheduler, whichever it
is, goes on from the corrected estimate.

Two families are known: *variance preserving* schedulers (DDIM, DDPM, DPM-Solver, CogVideoX's),
whose sample is alpha * latents + s * noise, and schedulers in noise levels (Euler, Heun, LMS),
whose sample is latents + sigma * noise.
"""

import functools
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from animaray.models.diffusion.sampler import CorrectDenoised
from animaray.models.diffusion.sampler_config import StepInfo
from animaray.platform.errors import ConfigError

FrameAxis = Literal["frames_first", "channels_first"]
PredictionType = Literal["epsilon", "v_prediction", "sample"]


@runtime_checkable
class Scheduler(Protocol):
    """What is needed of a diffusers scheduler."""

    config: Any
    """With `prediction_type`."""
    timesteps: Tensor
    """Of this run, falling."""

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, **kwargs: Any) -> Any:  # noqa: ANN401
        """Return the sample of the next timestep."""
        ...


class NoiseLevel(NamedTuple):
    """How much of latents and noise a sample holds: alpha * latents + deviation * noise."""

    alpha: float
    """Factor on the latents; 1 for schedulers in noise levels."""
    deviation: float
    """Factor on the noise."""

    @property
    def sigma(self) -> float:
        """Noise per unit of latents; infinite where a sample is pure noise."""
        return self.deviation / self.alpha if self.alpha > 0 else float("inf")


def to_denoised(
    prediction: Float[Tensor, "*shape"],
    sample: Float[Tensor, "*shape"],
    level: NoiseLevel,
    prediction_type: PredictionType,
) -> Float[Tensor, "*shape"]:
    """Return the estimate of the clean latents that a prediction stands for.

    v-prediction speaks of the sample scaled to unit variance, whatever the scheduler's own form.
    """
    if prediction_type == "sample":
        return prediction
    if prediction_type == "epsilon":
        return (sample - level.deviation * prediction) / level.alpha
    size = (level.alpha**2 + level.deviation**2) ** 0.5
    return (level.alpha * sample / size - level.deviation * prediction) / size


def to_prediction(
    denoised: Float[Tensor, "*shape"],
    sample: Float[Tensor, "*shape"],
    level: NoiseLevel,
    prediction_type: PredictionType,
) -> Float[Tensor, "*shape"]:
    """Return the prediction that stands for an estimate; the inverse of `to_denoised`."""
    if prediction_type == "sample":
        return denoised
    if prediction_type == "epsilon":
        return (sample - level.alpha * denoised) / level.deviation
    size = (level.alpha**2 + level.deviation**2) ** 0.5
    return (level.alpha * sample / size - size * denoised) / level.deviation


def noise_level(scheduler: Any, timestep: Tensor | float) -> NoiseLevel:  # noqa: ANN401 - untyped
    """Return how noisy the sample of a timestep is.

    Args:
        timestep: One of its `timesteps`.

    Raises:
        ConfigError: The scheduler is of neither family.
    """
    index = _step_index(scheduler, timestep)
    if hasattr(scheduler, "sigmas") and scheduler.init_noise_sigma > 1:
        return NoiseLevel(1.0, float(scheduler.sigmas[index]))
    if hasattr(scheduler, "alphas_cumprod"):
        variance = float(scheduler.alphas_cumprod[int(timestep)])
        return NoiseLevel(variance**0.5, (1 - variance) ** 0.5)
    raise ConfigError(
        f"The hooks do not know the noise levels of {type(scheduler).__name__}.",
        fix="Use a DDIM, DDPM, DPM-Solver, Euler, Heun or LMS scheduler.",
    )


def correct_prediction(
    scheduler: Any,  # noqa: ANN401 - diffusers is untyped
    prediction: Float[Tensor, "batch a b h w"],
    sample: Float[Tensor, "batch a b h w"],
    timestep: Tensor | float,
    correct_denoised: CorrectDenoised,
    *,
    frame_axis: FrameAxis = "channels_first",
) -> Float[Tensor, "batch a b h w"]:
    """Return the prediction of the corrected estimate.

    Args:
        scheduler: After `set_timesteps`; its `timesteps` say which step this is.
        prediction: Of the network, after guidance.
        sample: Noisy latents as the scheduler keeps them (not scaled for the network).
        timestep: One of its `timesteps`.
        correct_denoised: Hook as the sampler's; gets (batch, frames, channels, h, w).
        frame_axis: `channels_first` for (batch, channels, frames, h, w) as in AnimateDiff,
            `frames_first` for (batch, frames, channels, h, w) as in CogVideoX.

    Raises:
        ConfigError: Scheduler or prediction type is not known.
    """
    kind = getattr(scheduler.config, "prediction_type", None)
    if kind not in ("epsilon", "v_prediction", "sample"):
        raise ConfigError(
            f"The hooks do not know the prediction type {kind!r} of {type(scheduler).__name__}.",
            fix="Use a scheduler of epsilon, v_prediction or sample.",
        )
    level = noise_level(scheduler, timestep)
    index = _step_index(scheduler, timestep)
    following = index + 1 < len(scheduler.timesteps)
    next_level = noise_level(scheduler, scheduler.timesteps[index + 1]) if following else None
    step = StepInfo(
        step_index=index,
        num_inference_steps=len(scheduler.timesteps),
        sigma=level.sigma,
        next_sigma=next_level.sigma if next_level else 0.0,
    )
    denoised = to_denoised(prediction, sample, level, kind)
    if frame_axis == "channels_first":
        denoised = correct_denoised(denoised.transpose(1, 2), step).transpose(1, 2)
    else:
        denoised = correct_denoised(denoised, step)
    return to_prediction(denoised.detach().to(sample), sample, level, kind).to(prediction)


class CorrectedScheduler:
    """A diffusers scheduler whose every step first corrects the denoised estimate.

    All else is the scheduler's own, so it can stand in any pipeline.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        correct_denoised: CorrectDenoised,
        *,
        frame_axis: FrameAxis = "channels_first",
    ) -> None:
        """Wrap a scheduler.

        Args:
            scheduler: Any of those `noise_level` knows.
        """
        self._scheduler = scheduler
        self._correct_denoised = correct_denoised
        self._frame_axis: FrameAxis = frame_axis

        # Pipelines ask which arguments `step` knows: it shows those of the scheduler.
        @functools.wraps(scheduler.step)
        def step(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the scheduler's own
            return self._step(*args, **kwargs)

        self.step = step

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the scheduler has
        """Return the scheduler's own attribute."""
        return getattr(self.__dict__["_scheduler"], name)

    def _step(
        self,
        model_output: Tensor,
        timestep: Any,  # noqa: ANN401 - an int, a float or a tensor of one
        sample: Tensor,
        *args: Any,  # noqa: ANN401 - the scheduler's own
        **kwargs: Any,  # noqa: ANN401 - likewise
    ) -> Any:  # noqa: ANN401 - the scheduler's own
        corrected = correct_prediction(
            self._scheduler,
            model_output,
            sample,
            timestep,
            self._correct_denoised,
            frame_axis=self._frame_axis,
        )
        return self._scheduler.step(corrected, timestep, sample, *args, **kwargs)


def _step_index(scheduler: Any, timestep: Tensor | float) -> int:  # noqa: ANN401 - untyped
    """Return the position of a timestep; schedulers may repeat one, then they count themselves.

    Raises:
        ConfigError: It is not one of the run's timesteps.
    """
    matches = torch.nonzero(scheduler.timesteps == torch.as_tensor(timestep).cpu()).flatten()
    if len(matches) == 0:
        raise ConfigError(f"{float(timestep)} is no timestep of this run of the scheduler.")
    current = getattr(scheduler, "step_index", None)
    if len(matches) > 1 and current is not None:
        return int(current)
    return int(matches[0])
