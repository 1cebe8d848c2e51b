"""Print what each value of a threshold would keep."""

from animaray.cli.output import print_lines, print_table
from animaray.pipelines.policy.tuning import BorderClip, TuneCurve
from animaray.platform.errors import UsageError
from animaray.platform.quantities import spell_hours

_BAR_CELLS = 24


def read_limit(text: str) -> float | None:
    """Read the value of a threshold; `off` switches its rule off.

    Raises:
        UsageError: It is neither a number nor `off`.
    """
    if text in {"off", "none", "null"}:
        return None
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"Expected a number or `off` for --set, got `{text}`.") from error


def print_tune_curve(curve: TuneCurve) -> None:
    """Print the length kept per threshold, and the clips on either side of the line."""
    sign = ">=" if curve.is_minimum else "<="
    print_lines(
        f"{curve.rule}: {curve.score} {sign} threshold, else {curve.code}; policy {curve.policy}, "
        f"{curve.num_scored} clips scored, {spell_hours(curve.hours_total)} in all",
        f"length kept, strictest value first: {curve.sparkline()}",
    )
    if curve.only_flags:
        print_lines(f"{curve.policy} only flags for it: this is what dropping would keep")
    top = max([step.hours_kept for step in curve.steps] or [0.0]) or 1.0
    print_table(
        "",
        ("threshold", "kept", "clips", "", "policies"),
        [
            (
                "off" if step.threshold is None else f"{step.threshold:g}",
                spell_hours(step.hours_kept),
                step.num_kept,
                "\u2588" * round(step.hours_kept / top * _BAR_CELLS),
                ", ".join(step.marks),
            )
            for step in curve.steps
        ],
    )
    for title, clips in (("Just below the line", curve.below), ("Just above it", curve.above)):
        print_table(title, ("clip", "value", "side", "verdict", "where"), [_row(c) for c in clips])


def _row(clip: BorderClip) -> tuple[str, str, str, str, str]:
    side = "good" if clip.passes else "bad"
    return clip.clip_id, f"{clip.value:.4g}", side, clip.state, clip.title
