"""The operation ledger: what each part of the published system costs, counted without hardware.

Command: animaray ledger
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from animaray.evaluation import ledger_parts as parts
from animaray.evaluation.ledger_parts import ClipSize
from animaray.evaluation.operation_counts import (
    OperationCounts,
    count_flops,
    count_operations,
    count_peak_bytes,
)

__all__ = [
    "CLIP_SIZES",
    "ClipSize",
    "ClipTotals",
    "LedgerRow",
    "clip_totals",
    "count_flops",
    "count_ledger",
    "count_peak_bytes",
    "part_names",
]

CLIP_SIZES = {"576x1024": ClipSize(), "512x512": ClipSize(width_px=512, height_px=512)}
"""The two published sizes, 16 frames each."""
NUM_STEPS = 25
"""Denoising steps of the published sampler."""
OPTIMIZED_STEPS = 10
"""Denoising steps with face optimization in the paper."""
ITERATIONS = 10
"""Gradients in each of them."""

_PARTS: dict[str, Callable[[ClipSize], Callable[[], object]]] = {
    "u-net, stock, one branch": lambda size: parts.stock_unet(size, batch=1),
    "u-net, stock, both branches at once": lambda size: parts.stock_unet(size, batch=2),
    "sampler step, ours with adapter": parts.sampler_step,
    "pose net, all frames": parts.pose_net,
    "image encoder (CLIP), one picture": parts.image_encoder,
    "autoencoder, encode one frame": parts.encode_frame,
    "autoencoder, decode the clip": parts.decode_clip,
    "decoder gradient, whole frames": parts.decoder_gradient,
    "arcface-100 gradient, all frames": parts.arcface_gradient,
    "face gradient, literal": parts.literal_gradient,
    "face gradient, fast": parts.fast_gradient,
    "face record, fast (once per step)": parts.fast_record,
    "training step, stock, nothing recomputed": lambda size: parts.training_step(
        size, "none", stock=True
    ),
    "training step, stock, diffusers' checkpointing": lambda size: parts.training_step(
        size, "spatial", stock=True
    ),
    "training step, stock, temporal blocks too": lambda size: parts.training_step(
        size, "all", stock=True
    ),
    "training step, ours, nothing recomputed": lambda size: parts.training_step(
        size, "none", stock=False
    ),
    "training step, ours, temporal blocks too": lambda size: parts.training_step(
        size, "all", stock=False
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class LedgerRow:
    """One counted part."""

    part: str
    """Its name."""
    counts: OperationCounts
    """What it costs."""

    @property
    def tflop(self) -> float:
        """Floating-point operations, 10^12."""
        return self.counts.flops / 1e12

    @property
    def peak_gib(self) -> float:
        """Largest sum of live tensors, weights left out, 2^30 bytes."""
        return self.counts.peak_bytes / 2**30


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipTotals:
    """What a whole clip costs by face optimization mode, 10^12 operations."""

    off: float
    """Conditioning, denoising, final decode."""
    literal: float
    """With Algorithm 1's ten gradients in ten steps."""
    fast: float
    """With as many fast gradients and one record per step."""


def part_names() -> tuple[str, ...]:
    """Return the parts, in the order of the table."""
    return tuple(_PARTS)


def count_part(part: str, size: ClipSize) -> LedgerRow:
    """Count one part.

    Args:
        part: One of `part_names`.
        size: The clip.
    """
    return LedgerRow(part=part, counts=count_operations(_PARTS[part](size)))


def count_ledger(size: ClipSize) -> Iterator[LedgerRow]:
    """Count every part, one after the other; half a minute in all."""
    for part in _PARTS:
        yield count_part(part, size)


def clip_totals(rows: list[LedgerRow]) -> ClipTotals:
    """Add up what a clip of 25 denoising steps costs.

    Args:
        rows: Of `count_ledger`.
    """
    tflop = {row.part: row.tflop for row in rows}
    off = (
        NUM_STEPS * tflop["sampler step, ours with adapter"]
        + tflop["pose net, all frames"]
        + tflop["image encoder (CLIP), one picture"]
        + tflop["autoencoder, encode one frame"]
        + tflop["autoencoder, decode the clip"]
    )
    record = tflop["face record, fast (once per step)"]
    return ClipTotals(
        off=off,
        literal=off + OPTIMIZED_STEPS * ITERATIONS * tflop["face gradient, literal"],
        fast=off + OPTIMIZED_STEPS * (ITERATIONS * tflop["face gradient, fast"] + record),
    )
