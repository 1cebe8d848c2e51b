"""Settings of the sampler and of face optimization, from an animation's options and its model."""

from dataclasses import replace

import torch

from animaray.models.animation.options import AnimationOptions
from animaray.models.diffusion.sampler_config import SamplerConfig
from animaray.models.face.optimization_config import FaceOptimizationConfig
from animaray.models.networks.animator_config import AnimatorConfig


def default_sampler(config: AnimatorConfig) -> SamplerConfig:
    """Return sampler settings that suit a model: published ones, or those of small models."""
    if config.unconditional == "published":
        return SamplerConfig(window_frames=config.num_frames)
    warped = config.warped_reference
    return SamplerConfig(
        num_inference_steps=20 if warped is None else 12,
        sigma_min=0.02,
        sigma_max=80.0 if warped is None else warped.start_sigma,
        guidance_scale=1.5,
        window_frames=config.num_frames,
        window_overlap=config.num_frames // 2 - 1,
        window_rule="sliding",
        repeat_noise=False,
        use_bfloat16=_has_fast_bfloat16(),
    )


def sampler_settings(config: AnimatorConfig, options: AnimationOptions) -> SamplerConfig:
    """Return the sampler settings of one animation; ConfigError where they contradict.

    Args:
        config: The model, for the defaults.
        options: What the user chose.
    """
    sampler = default_sampler(config)
    names = ("num_inference_steps", "sampler", "guidance_scale", "guidance_max", "window_frames",
             "window_overlap", "window_rule")  # fmt: skip
    changes = {name: getattr(options, name) for name in names}
    if options.guidance_min is not None:
        changes["guidance_scale"] = options.guidance_min
    if options.window_frames is not None and options.window_overlap is None:
        # Keep the share that overlaps.
        share = sampler.window_overlap / sampler.window_frames
        changes["window_overlap"] = int(share * options.window_frames)
    return replace(sampler, **{name: v for name, v in changes.items() if v is not None})


def face_settings(options: AnimationOptions) -> FaceOptimizationConfig | None:
    """Return how faces are optimized, or None where they are not."""
    config, wanted = options.face_optimization_config, options.face_optimization
    if wanted is False or options.no_face:
        return None
    if isinstance(wanted, str):
        config = replace(config, mode=wanted)
    return None if config.mode == "off" else config


def _has_fast_bfloat16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001
