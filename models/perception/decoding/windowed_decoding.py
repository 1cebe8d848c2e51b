"""Decode a window of a frame as the full decoder would, at a fraction of its cost.

A decoder is described by its stages from latents to pixels. Backwards from the wanted part (the
core) each stage's receptive field says how many cells around it are still needed; after each stage
the rest is trimmed. What is not local is stored once from a full decode without gradient: group
norm statistics, and the keys and values of attention outside the window. So at the record point
the core equals the full decode exactly (up to rounding) when the window's margin covers the
receptive field, and closely when it covers a part of it. The gradient lacks what flows through the
statistics and through cells beyond the window.

Cropping the latents and decoding the crop is not the same: statistics and attention change, and
with trained weights the gradient may point elsewhere (docs/decisions/0006).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as nnf
from jaxtyping import Float, Int64
from torch import Tensor, nn

from animaray.platform.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeWindow:
    """Which part of each frame is decoded. All places are latent cells; sizes are height, width."""

    frame_size: tuple[int, int]
    """Whole frames."""
    size: tuple[int, int]
    """Window: the core and a margin around it."""
    corners: Int64[np.ndarray, "frames 2"]
    """Left, top of each frame's window."""
    core_size: tuple[int, int]
    """Core: the part whose pixels are wanted."""
    core_corners: Int64[np.ndarray, "frames 2"]
    """Left, top of each frame's core, inside its window."""

    def cut(self, latents: Float[Tensor, "frames c h w"]) -> Float[Tensor, "frames c wh ww"]:
        """Return the windows of whole frames."""
        return _cut(latents, self.corners, self.size)

    def select(self, start: int, stop: int) -> "DecodeWindow":
        """Return the windows of some of the frames."""
        return DecodeWindow(
            frame_size=self.frame_size,
            size=self.size,
            corners=self.corners[start:stop],
            core_size=self.core_size,
            core_corners=self.core_corners[start:stop],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderRecord:
    """What one full decode without gradient left behind; serves all frames near to it."""

    values: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """By layer: scale and shift of a norm, or keys and values of an attention."""
    frames: Tensor | None = None
    """The decoded frames, RGB in about [-1, 1]; None where the decoder needs no record."""


@runtime_checkable
class WindowedDecoder(Protocol):
    """What face optimization asks of a codec that can decode parts of frames."""

    shares_window: bool
    """True where layers join frames: all frames of a call then need the same window."""
    needs_record: bool
    """False where every layer is local: `record` then costs nothing."""
    receptive_margin: int
    """Cells around the core that make the decode exact."""

    def record(self, latents: Float[Tensor, "recorded c h w"], num_frames: int) -> DecoderRecord:
        """Decode whole frames without gradient and keep what windows need.

        Args:
            latents: One frame (it stands for all), or all frames.
            num_frames: Length of the clip that the windows will be of.
        """
        ...

    def decode_window(
        self,
        windows: Float[Tensor, "frames c wh ww"],
        window: DecodeWindow,
        record: DecoderRecord,
    ) -> Float[Tensor, "frames 3 core_height core_width"]:
        """Return the core's pixels, RGB in about [-1, 1]; gradients flow to the windows.

        Args:
            windows: Latents of each frame's window.
            record: Of the same clip, not much older.
        """
        ...


def windowed_decoder_of(codec: object) -> WindowedDecoder | None:
    """Return the windowed decoder that a codec's `windowed()` offers; None where it has none."""
    make = getattr(codec, "windowed", None)
    return make() if callable(make) else None


@runtime_checkable
class DecoderPass(Protocol):
    """How the non-local layers of one pass are computed."""

    is_static: bool
    """True while one frame stands for a whole clip: its neighbours in time are itself."""

    def group_norm(self, name: str, norm: nn.GroupNorm, features: Tensor) -> Tensor:
        """Return normalised features."""
        ...

    def keys_and_values(
        self, name: str, keys: Float[Tensor, "b tokens d"], values: Float[Tensor, "b tokens d"]
    ) -> tuple[Float[Tensor, "b all_tokens d"], Float[Tensor, "b all_tokens d"]]:
        """Return keys and values of the whole frame, given those of the part at hand."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """A step of a decoder that is trimmed as one."""

    run: Callable[[Tensor, DecoderPass], Tensor]
    """Compute it."""
    radius: int = 0
    """Cells (of its output) by which an output depends on its surroundings."""
    upscale: int = 1
    """Output cells per input cell, in each direction."""


class StagedDecoder:
    """A decoder as a list of stages; implements WindowedDecoder."""

    def __init__(self, stages: Sequence[Stage], *, shares_window: bool, needs_record: bool) -> None:
        """Describe a decoder.

        Args:
            stages: From latents to RGB.
            needs_record: There are norms over the frame, or attention.
        """
        self.shares_window = shares_window
        self.needs_record = needs_record
        self._stages = list(stages)
        needs = [0]
        for stage in reversed(self._stages):
            needs.append(-(-(needs[-1] + stage.radius) // stage.upscale))
        self._needs = needs[::-1]
        self.receptive_margin = self._needs[0]

    @torch.no_grad()
    def record(self, latents: Float[Tensor, "recorded c h w"], num_frames: int) -> DecoderRecord:
        """See WindowedDecoder.

        Raises:
            UsageError: Neither one frame nor all of them are given.
        """
        if len(latents) not in {1, num_frames}:
            raise UsageError(
                f"A record is of 1 frame or of all {num_frames} frames; got {len(latents)}."
            )
        if not self.needs_record:
            return DecoderRecord()
        recording = _Recording(is_static=len(latents) == 1 and num_frames > 1)
        features = latents
        for stage in self._stages:
            features = stage.run(features, recording)
        return DecoderRecord(values=recording.values, frames=features)

    def decode_window(
        self,
        windows: Float[Tensor, "frames c wh ww"],
        window: DecodeWindow,
        record: DecoderRecord,
    ) -> Float[Tensor, "frames 3 core_height core_width"]:
        """See WindowedDecoder.

        Raises:
            UsageError: Frames that layers join have different windows.
        """
        if self.shares_window and len(np.unique(window.corners, axis=0)) > 1:
            raise UsageError(
                "This decoder joins neighbouring frames, so all frames need one window.",
                fix="Plan the window with is_shared=True.",
            )
        shares = [_share(window, axis, self.receptive_margin) for axis in (0, 1)]
        features, corners, scale = windows, window.corners, 1
        size = window.size
        for index, (stage, need) in enumerate(zip(self._stages, self._needs, strict=False)):
            if index:
                region, size = _region(window, scale, [_part(need, share) for share in shares])
                features, corners = _cut(features, region - corners, size), region
            applied = _Applying(record, corners, size, window.frame_size, scale)
            features = stage.run(features, applied)
            corners, scale = corners * stage.upscale, scale * stage.upscale
        region, size = _region(window, scale, [0, 0])
        return _cut(features, region - corners, size)


class _Recording:
    """Computes whole frames and stores what is not local."""

    def __init__(self, *, is_static: bool) -> None:
        self.is_static = is_static
        self.values: dict[str, tuple[Tensor, Tensor]] = {}

    def group_norm(self, name: str, norm: nn.GroupNorm, features: Tensor) -> Tensor:
        groups = features.reshape(len(features), norm.num_groups, -1).float()
        variance, mean = torch.var_mean(groups, dim=2, correction=0)
        per_group = norm.num_channels // norm.num_groups
        inverse = torch.rsqrt(variance + norm.eps).repeat_interleave(per_group, dim=1)
        scale = inverse * norm.weight
        shift = norm.bias - mean.repeat_interleave(per_group, dim=1) * scale
        shape = (*scale.shape, *[1] * (features.ndim - 2))
        self.values[name] = (
            scale.view(shape).to(features.dtype),
            shift.view(shape).to(features.dtype),
        )
        return nnf.group_norm(features, norm.num_groups, norm.weight, norm.bias, norm.eps)

    def keys_and_values(self, name: str, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        self.values[name] = (keys, values)
        return keys, values


class _Applying:
    """Computes a window with the record's statistics, keys and values."""

    is_static = False

    def __init__(
        self,
        record: DecoderRecord,
        corners: Int64[np.ndarray, "frames 2"],
        size: tuple[int, int],
        frame_size: tuple[int, int],
        scale: int,
    ) -> None:
        self._record = record
        self._corners = corners
        self._size = size
        self._frame_size = frame_size[0] * scale, frame_size[1] * scale

    def group_norm(self, name: str, norm: nn.GroupNorm, features: Tensor) -> Tensor:
        del norm
        scale, shift = self._record.values[name]
        return torch.addcmul(shift, features, scale)

    def keys_and_values(self, name: str, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        stored_keys, stored_values = self._record.values[name]
        left, top = self._corners[0]
        is_outside = np.ones(self._frame_size, bool)
        is_outside[top : top + self._size[0], left : left + self._size[1]] = False
        outside = torch.from_numpy(np.flatnonzero(is_outside)).to(keys.device)

        def joined(inside: Tensor, stored: Tensor) -> Tensor:
            rest = stored.index_select(1, outside)
            return torch.cat([inside, rest.expand(len(inside), -1, -1)], dim=1)

        return joined(keys, stored_keys), joined(values, stored_values)


def _share(window: DecodeWindow, axis: int, receptive_margin: int) -> float:
    """Return how much of the receptive field the window's margin covers, in (0, 1]."""
    if window.size[axis] >= window.frame_size[axis] or receptive_margin == 0:
        return 1.0
    margin = (window.size[axis] - window.core_size[axis]) // 2
    return min(1.0, margin / receptive_margin)


def _part(need: int, share: float) -> int:
    return int(np.ceil(need * share - 1e-9))


def _region(
    window: DecodeWindow, scale: int, margins: Sequence[int]
) -> tuple[Int64[np.ndarray, "frames 2"], tuple[int, int]]:
    """Return corners and size, in cells of `scale`, of the core with margins (height, width).

    The size is the same wherever the core lies: at the frame's edge the region moves inwards.
    """
    height, width = (
        min(scale * core + 2 * margin, scale * frame)
        for core, margin, frame in zip(window.core_size, margins, window.frame_size, strict=True)
    )
    if scale == 1:
        height, width = min(height, window.size[0]), min(width, window.size[1])
    limit = np.array([scale * window.frame_size[1] - width, scale * window.frame_size[0] - height])
    margin = np.array([margins[1], margins[0]])
    corners = np.clip(scale * window.core_corners - margin, 0, limit)
    if scale == 1:
        last = window.corners + np.array([window.size[1] - width, window.size[0] - height])
        corners = np.clip(corners, window.corners, last)
    return corners, (height, width)


def _cut(
    features: Float[Tensor, "frames c h w"],
    corners: Int64[np.ndarray, "frames 2"],
    size: tuple[int, int],
) -> Float[Tensor, "frames c ch cw"]:
    """Return one part of each frame, all of one size."""
    height, width = size
    places = corners.tolist()
    if all(place == places[0] for place in places):
        left, top = places[0]
        return features[..., top : top + height, left : left + width]
    return torch.stack(
        [
            frame[:, top : top + height, left : left + width]
            for frame, (left, top) in zip(features, places, strict=True)
        ]
    )
