"""What a training run measured, as curves: a line of bars in the terminal, a picture on disk."""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from animaray.cli.output import refuse_usage

SUFFIXES = (".png", ".svg", ".pdf")
NUM_BARS = 48
_BARS = "▁▂▃▄▅▆▇█"
_NOT_DRAWN = {"step", "trained_s", "skipped_steps", "not_finite"}

Metrics = Sequence[Mapping[str, Any]]


def read_series(metrics: Metrics) -> dict[str, list[tuple[int, float]]]:
    """Return (step, value) of everything measured more than never, loss first.

    Args:
        metrics: Lines of metrics.jsonl; what was not finite stands there as null.
    """
    series: dict[str, list[tuple[int, float]]] = {}
    for line in metrics:
        for name, value in line.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if name not in _NOT_DRAWN and is_number and math.isfinite(value):
                series.setdefault(name, []).append((int(line["step"]), float(value)))
    return dict(sorted(series.items(), key=lambda item: (item[0] != "loss", item[0])))


def curve_lines(metrics: Metrics) -> list[str]:
    """Return a line for each series: bars between its extremes, first and last value."""
    series = read_series(metrics)
    width = max(map(len, series), default=0)
    lines = []
    for name, points in series.items():
        values = [value for _, value in points]
        steps = f"steps {points[0][0]} to {points[-1][0]}"
        bars = _bars(values)
        lines.append(f"{name:<{width}}  {bars}  {values[0]:.4g} -> {values[-1]:.4g}  ({steps})")
    return lines


def write_curves(path: Path, metrics: Metrics) -> Path | None:
    """Draw every series over the steps, those of one kind together; None where there is none."""
    if path.suffix.lower() not in SUFFIXES:
        refuse_usage(
            f"Curves are drawn as {', '.join(SUFFIXES)}, got {path.name}.",
            fix="As in: animaray runs show RUN --curves curves.png",
        )
    series = read_series(metrics)
    if not series:
        return None
    from animaray.cli.figures import save_curves

    groups: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for name, points in series.items():
        groups.setdefault(name.split("_")[0], {})[name] = points
    path.parent.mkdir(parents=True, exist_ok=True)
    save_curves(path, groups)
    return path


def _bars(values: Sequence[float]) -> str:
    count = min(NUM_BARS, len(values))
    edges = [round(place * len(values) / count) for place in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, high = min(means), max(means)
    span = (high - low) or 1.0
    return "".join(_BARS[round((mean - low) / span * (len(_BARS) - 1))] for mean in means)
