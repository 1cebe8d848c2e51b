"""`animaray ledger`: what each part of the published system costs, counted without hardware."""

import sys
from typing import Annotated, Any

import typer

from animaray.cli.output import JsonOption, print_hint, print_json, print_table
from animaray.platform.errors import UsageError


def ledger(
    size: Annotated[
        str, typer.Option("--size", help="Frame size, WIDTHxHEIGHT: 576x1024 or 512x512")
    ] = "576x1024",
    part: Annotated[
        list[str] | None,
        typer.Option("--part", help="Count only parts whose name holds this text; repeat for more"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Count operations and peak memory of every network at full size (16 frames, bfloat16).

    No weights and no GPU are needed: the networks run on shapes alone. Half a minute in all.

    Raises:
        UsageError: The size or the part is not known.
    """
    from animaray.evaluation.ledger import CLIP_SIZES, clip_totals, count_part, part_names

    if size not in CLIP_SIZES:
        raise UsageError(f"Unknown size {size}.", fix=f"Known: {', '.join(CLIP_SIZES)}.")
    chosen = [name for name in part_names() if not part or any(text in name for text in part)]
    if not chosen:
        raise UsageError(
            f"No part's name holds {' or '.join(part or [])}.",
            fix=f"Parts: {'; '.join(part_names())}.",
        )
    rows = []
    for name in chosen:
        if sys.stderr.isatty():
            print_hint(f"counting {name}")
        rows.append(count_part(name, CLIP_SIZES[size]))
    totals = clip_totals(rows) if len(chosen) == len(part_names()) else None
    if as_json:
        print_json(_document(size, rows, totals))
        return
    print_table(
        f"One computation of each part, 16 frames {size}, bfloat16",
        ["part", "TFLOP", "peak GiB", "operators"],
        [
            [row.part, f"{row.tflop:,.3f}", f"{row.peak_gib:,.2f}", f"{row.counts.num_operators:,}"]
            for row in rows
        ],
    )
    if totals is not None:
        print_table(
            "A clip of 25 denoising steps, TFLOP by face optimization (10 x 10 gradients)",
            ["off", "literal", "fast"],
            [[f"{total:,.0f}" for total in (totals.off, totals.literal, totals.fast)]],
        )


def _document(size: str, rows: list[Any], totals: Any) -> dict[str, Any]:  # noqa: ANN401 - imported late
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
