"""`animaray estimate`: does the published model fit a card, for each recipe and animation size?"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from animaray.cli.output import JsonOption, print_hint, print_json, print_table
from animaray.platform.cards import CARDS, card_named

SIZES = ((512, 512), (576, 1024))
MODES = ("off", "fast", "published")


def estimate(
    card: Annotated[
        list[str] | None,
        typer.Option("--card", help="Name of a card, repeat for more", show_default="all known"),
    ] = None,
    frames: Annotated[int, typer.Option(min=1, help="Length of the animated clip")] = 16,
    measured: Annotated[
        list[Path] | None,
        typer.Option(help="Table of peaks measured on your machine, believed first"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell which animations and trainings of the published model fit a card's memory.

    What was measured is believed first; the rest is estimated, as `animate --dry-run` does. A
    training counts what one of its GPUs holds. Nothing runs, no weights are needed.

    Example: animaray estimate --card a100-40 --card h200
    """
    cards = [card_named(name) for name in card] if card else list(CARDS.values())
    from animaray.evaluation.measured_memory import read_measured

    rows = needs(read_measured(measured or ()), frames)
    if as_json:
        for row in rows:
            row["fits"] = {each.name: row["peak_bytes"] <= each.usable_bytes for each in cards}
        memory = {each.name: each.usable_bytes for each in cards}
        print_json({"usable_bytes": memory, "needs": rows})
        return
    print_table(
        "Memory of one GPU at its peak; what fits",
        ["work", "GiB", "known from", *(each.name for each in cards)],
        [
            [
                row["work"],
                f"{row['peak_bytes'] / 2**30:.1f}",
                row["source"],
                *("yes" if row["peak_bytes"] <= each.usable_bytes else "no" for each in cards),
            ]
            for row in rows
        ],
    )
    usable = ", ".join(f"{each.name} {each.usable_bytes / 2**30:.1f}" for each in cards)
    print_hint(f"GiB for tensors: {usable}. What fits by less than a tenth may not in the end.")


def needs(measured: Sequence[Any], frames: int) -> list[dict[str, Any]]:
    """Return what each animation and recipe needs, and from where that is known.

    Args:
        measured: Rows of measured peaks.
        frames: Length of the animated clip.
    """
    return [*_animations(measured, frames), *_trainings(measured)]


def _animations(measured: Sequence[Any], frames: int) -> list[dict[str, Any]]:
    from animaray.models.animation.memory import estimate_memory
    from animaray.models.networks.animator_config import AnimatorConfig

    config, rows = AnimatorConfig.published(), []
    for width, height in SIZES:
        for mode in MODES:
            estimated = estimate_memory(config, frames, width, height, mode).peak_bytes
            facts = {
                "work": "animation",
                "width_px": width,
                "height_px": height,
                "num_frames": frames,
                "mode": mode,
                "precision": "float32",
            }
            title = f"animate {frames} frames {width}x{height}, face optimization {mode}"
            rows.append(_row(title, facts, measured, estimated))
    return rows


def _trainings(measured: Sequence[Any]) -> list[dict[str, Any]]:
    from animaray.training.configs import AnimatorTrainingConfig
    from animaray.training.memory import estimate_training_memory
    from animaray.training.recipes import RECIPES

    rows = []
    for name, build in RECIPES.items():
        config = build()
        if not isinstance(config, AnimatorTrainingConfig) or not config.scale.use_gpu:
            continue
        for width, height in SIZES:
            animator = replace(config.animator, width_px=width, height_px=height)
            facts = {
                "work": "training",
                "width_px": width,
                "height_px": height,
                "num_frames": config.window.num_frames,
                "mode": config.activation_checkpointing,
                "precision": config.scale.precision,
                "num_workers": config.scale.num_workers,
            }
            estimated = estimate_training_memory(replace(config, animator=animator)).peak_bytes
            title = f"train {name}, {config.window.num_frames} frames {width}x{height}"
            rows.append(_row(title, facts, measured, estimated))
    return rows


def _row(
    title: str, facts: dict[str, Any], measured: Sequence[Any], estimated_bytes: int
) -> dict[str, Any]:
    """Return one line: the measured peak where there is one, else the estimate."""
    found = next((row for row in measured if row.is_of(**facts)), None)
    return {
        "work": title,
        "peak_bytes": estimated_bytes if found is None else found.peak_bytes,
        "source": "estimated" if found is None else f"measured: {found.on}",
        "estimated_bytes": estimated_bytes,
    }
