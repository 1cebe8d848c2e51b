"""What each part of the published system costs, counted at full size without hardware.

    python -m benchmarks.costs.tables                          half a minute
    python -m benchmarks.costs.tables --size 512x512 --part arcface --part "pose net" --json

Operations and peak of live tensors of every network, 16 frames in bfloat16, on shapes alone: no
weights and no GPU are needed.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from animaray.platform.json_text import json_text
from benchmarks.costs import published_parts
from benchmarks.costs.operation_counts import OperationCounts, count_operations
from benchmarks.costs.published_parts import ClipSize

CLIP_SIZES = {"576x1024": ClipSize(), "512x512": ClipSize(width_px=512, height_px=512)}
"""The two published sizes, 16 frames each."""
NUM_STEPS = 25
"""Denoising steps of the published sampler."""
OPTIMIZED_STEPS = 10
"""Denoising steps with face optimization in the paper."""
ITERATIONS = 10
"""Gradients in each of them."""

PARTS: dict[str, Callable[[ClipSize], Callable[[], object]]] = {
    "u-net, stock, one branch": lambda size: published_parts.stock_unet(size, batch=1),
    "u-net, stock, both branches at once": lambda size: published_parts.stock_unet(size, batch=2),
    "sampler step, ours with adapter": published_parts.sampler_step,
    "pose net, all frames": published_parts.pose_net,
    "image encoder (CLIP), one picture": published_parts.image_encoder,
    "autoencoder, encode one frame": published_parts.encode_frame,
    "autoencoder, decode the clip": published_parts.decode_clip,
    "decoder gradient, whole frames": published_parts.decoder_gradient,
    "arcface-100 gradient, all frames": published_parts.arcface_gradient,
    "face gradient, literal": published_parts.literal_gradient,
    "face gradient, fast": published_parts.fast_gradient,
    "face record, fast (once per step)": published_parts.fast_record,
    "training step, stock, nothing recomputed": lambda size: published_parts.training_step(
        size, "none", stock=True
    ),
    "training step, stock, diffusers' checkpointing": lambda size: published_parts.training_step(
        size, "spatial", stock=True
    ),
    "training step, stock, temporal blocks too": lambda size: published_parts.training_step(
        size, "all", stock=True
    ),
    "training step, ours, nothing recomputed": lambda size: published_parts.training_step(
        size, "none", stock=False
    ),
    "training step, ours, temporal blocks too": lambda size: published_parts.training_step(
        size, "all", stock=False
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class CostRow:
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


def count_part(part: str, size: ClipSize) -> CostRow:
    """Count one part.

    Args:
        part: One of `PARTS`.
        size: The clip.
    """
    return CostRow(part=part, counts=count_operations(PARTS[part](size)))


def clip_totals(rows: list[CostRow]) -> ClipTotals:
    """Add up what a clip of 25 denoising steps costs.

    Args:
        rows: Every part, by `count_part`.
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, count, print."""
    options = _parse(arguments)
    chosen = [
        name for name in PARTS if not options.part or any(text in name for text in options.part)
    ]
    if not chosen:
        sys.exit(f"No part's name holds {' or '.join(options.part)}. Parts: {'; '.join(PARTS)}.")
    rows = [count_part(name, CLIP_SIZES[options.size]) for name in chosen]
    totals = clip_totals(rows) if len(chosen) == len(PARTS) else None
    if options.json:
        print(json_text(_document(options.size, rows, totals), indent=2))
        return
    print(f"One computation of each part, 16 frames {options.size}, bfloat16\n")
    print("| part | TFLOP | peak GiB | operators |\n|---|---|---|---|")
    for row in rows:
        operators = row.counts.num_operators
        print(f"| {row.part} | {row.tflop:,.3f} | {row.peak_gib:,.2f} | {operators:,} |")
    if totals is not None:
        print("\nA clip of 25 denoising steps, TFLOP by face optimization (10 x 10 gradients)\n")
        print("| off | literal | fast |\n|---|---|---|")
        print(f"| {totals.off:,.0f} | {totals.literal:,.0f} | {totals.fast:,.0f} |")


def _document(size: str, rows: list[CostRow], totals: ClipTotals | None) -> dict[str, Any]:
    parts = [
        {
            "part": row.part,
            "flops": row.counts.flops,
            "peak_bytes": row.counts.peak_bytes,
            "num_operators": row.counts.num_operators,
        }
        for row in rows
    ]
    clip = None
    if totals is not None:
        clip = {
            "off_tflop": totals.off,
            "literal_tflop": totals.literal,
            "fast_tflop": totals.fast,
        }
    return {"size": size, "num_frames": 16, "parts": parts, "clip_of_25_steps": clip}


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=CLIP_SIZES, default="576x1024", help="frame size")
    parser.add_argument("--part", action="append", help="only parts whose name holds this text")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
