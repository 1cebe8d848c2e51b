"""Estimate the memory that an animation needs, before it starts and without running anything.

Activations are proportional to latent cells; the values per cell were counted on the meta device
(benchmarks.costs.operation_counts) and are checked against such counts by the tests.
"""

import functools
from dataclasses import dataclass

import torch

from animaray.models.face.loss import EMBEDDED_AT_ONCE
from animaray.models.face.optimization_config import (
    MODES,
    FaceOptimizationConfig,
)
from animaray.models.networks.animator import Animator
from animaray.models.networks.animator_config import AnimatorConfig, UNetConfig
from animaray.platform.errors import ConfigError

ATTENDING_VALUES = 28.0
"""Values per cell and channel at the peak of a U-Net level that attends."""
PLAIN_VALUES = 9.5
"""The same of a level of residual blocks only."""
POSE_NET_VALUES = 768
"""Values per cell at PoseNet's peak, which sees all frames at once."""
LATENT_COPIES = 6
"""Sets of latents the sampler holds: noisy, noised, estimate, slope, next, sum of windows."""
FACE_SHARE = 1 / 6
"""Side of the face assumed for `fast`, relative to the shorter side of the frame."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _ProfileCosts:
    """Values held at the peak of a profile's frozen networks."""

    parameters: int
    encode: int
    """Per latent cell of the reference."""
    decode: int
    """Per cell of the frames decoded at once."""
    decode_frames: int
    gradient: int
    """Of whole frames, per cell, with the decoder's graph held."""
    window: int
    """Of windows, per cell of the windows."""
    record: int
    """Per cell of the one frame that `fast` decodes first."""
    face: int
    """Per face embedded at once, with the graph held."""


_COSTS = {
    "generated": _ProfileCosts(
        parameters=3_400_000,
        encode=2432,
        decode=2056,
        decode_frames=8,
        gradient=4300,
        window=2000,
        record=0,
        face=970_000,
    ),
    "permissive": _ProfileCosts(
        parameters=8_900_000,
        encode=12_672,
        decode=12_320,
        decode_frames=8,
        gradient=42_200,
        window=21_000,
        record=12_290,
        face=1_500_000,
    ),
    "paper": _ProfileCosts(
        parameters=795_000_000,
        encode=41_152,
        decode=65_540,
        decode_frames=4,
        gradient=653_830,
        window=80_000,
        record=50_190,
        face=27_900_000,
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryEstimate:
    """Bytes by use; only one of the stages is held at a time."""

    weights_bytes: int
    """Networks that stay loaded: the animator's and those of the profile."""
    clip_bytes: int
    """What stays for the length of the clip: poses, features, latents, frames."""
    unet_bytes: int
    """Stage: one window through the U-Net."""
    codec_bytes: int
    """Stage: the reference encoded, or frames decoded."""
    face_bytes: int
    """Stage: one gradient of face optimization."""
    pose_bytes: int
    """Stage: PoseNet over all frames."""

    @property
    def peak_bytes(self) -> int:
        """Weights, clip and the largest stage."""
        return self.weights_bytes + self.clip_bytes + max(self._stages.values())

    @property
    def peak_stage(self) -> str:
        """What needs the most at once, in words."""
        return max(self._stages, key=lambda name: self._stages[name])

    @property
    def _stages(self) -> dict[str, int]:
        return {
            "the network": self.unet_bytes,
            "encoding and decoding": self.codec_bytes,
            "face optimization": self.face_bytes,
            "the pose encoder": self.pose_bytes,
        }


def estimate_memory(
    config: AnimatorConfig,
    frames: int,
    width: int,
    height: int,
    mode: str,
    *,
    bytes_per_value: int = 4,
) -> MemoryEstimate:
    """Return what an animation needs, by use.

    Args:
        config: Of the animator.
        frames: Length of the clip.
        width: Of the frames, pixels.
        height: Of the frames, pixels.
        mode: Of face optimization. `fast` depends on the size of the face; a sixth of the shorter
            side is assumed.
        bytes_per_value: 4 for float32 networks, 2 for bfloat16 ones.

    Raises:
        ConfigError: The mode or the model's profile is not known.
    """
    if config.profile not in _COSTS:
        raise ConfigError(
            f"No memory figures for profile {config.profile!r}; known are {', '.join(_COSTS)}."
        )
    costs = _COSTS[config.profile]
    cells = (width // config.downscale) * (height // config.downscale)
    window_frames = min(frames, config.num_frames)
    features = config.unet.block_out_channels[0] * (2 if config.reference_attention else 1)
    per_cell = (
        3 * config.downscale**2 + 2.5 * features + LATENT_COPIES * config.latent_channels
    )  # poses; features and their windows; latents
    decoded = min(frames, costs.decode_frames)
    scale = bytes_per_value
    return MemoryEstimate(
        weights_bytes=scale * (_animator_parameters(config) + costs.parameters),
        clip_bytes=int(scale * frames * cells * per_cell) + 3 * frames * width * height,
        unet_bytes=int(scale * window_frames * cells * unet_values_per_cell(config.unet)),
        codec_bytes=scale * cells * max(costs.encode, decoded * costs.decode),
        face_bytes=scale * _face_values(costs, mode, frames, (width, height), config.downscale),
        pose_bytes=scale * frames * cells * POSE_NET_VALUES,
    )


def unet_values_per_cell(config: UNetConfig) -> float:
    """Return the values a U-Net holds at its peak, per cell of its window's latents."""
    return max(
        width * (ATTENDING_VALUES if attends else PLAIN_VALUES) / 4**level
        for level, (width, attends) in enumerate(
            zip(config.block_out_channels, config.has_attention, strict=True)
        )
    )


def _face_values(
    costs: _ProfileCosts,
    mode: str,
    frames: int,
    size_px: tuple[int, int],
    downscale: int,
) -> int:
    cells = (size_px[0] // downscale) * (size_px[1] // downscale)
    if mode == "off":
        return 0
    if mode not in MODES:
        raise ConfigError(f"Unknown face optimization mode {mode!r}; known are {', '.join(MODES)}.")
    config = FaceOptimizationConfig(mode=mode)
    if mode != "fast":
        together = min(frames, config.frames_at_once or frames)
        return together * (cells * costs.gradient + costs.face)
    multiple = config.window_multiple_latents
    face = min(size_px) * FACE_SHARE / downscale + 2 * config.window_margin_latents
    side = -(-int(face) // multiple) * multiple
    window = frames * min(side**2, cells) * costs.window
    return max(cells * costs.record, window + min(frames, EMBEDDED_AT_ONCE) * costs.face)


@functools.lru_cache(maxsize=8)
def _animator_parameters(config: AnimatorConfig) -> int:
    """Count the weights of an animator that is built without numbers."""
    with torch.device("meta"):
        animator = Animator(config)
    return sum(weight.numel() for weight in animator.parameters())
