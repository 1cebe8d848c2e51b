"""Show what a threshold does: hours kept against each value, and the clips beside the line."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Shaped

from animaray.datasets.reader import CurationDataset
from animaray.pipelines.policy.policies import POLICIES, THRESHOLDS, Policy
from animaray.pipelines.policy.rules import READS, RULES, Rule, columns_of_table, judge_columns
from animaray.platform.errors import ConfigError

_NUM_STEPS = 17
_BARS = " \u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
_FACTS = ("clip_id", "file_name", "start_s", "end_s", "duration_s")


@dataclass(frozen=True, kw_only=True, slots=True)
class TuneStep:
    """What one value of the threshold would keep, all other rules as they are."""

    threshold: float | None
    """The value; None switches the rule off."""
    hours_kept: float
    """Hours of video kept."""
    num_kept: int
    """Clips kept."""
    marks: tuple[str, ...]
    """Names of shipped policies with this value, and `now` for the policy's own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BorderClip:
    """A clip beside the line."""

    clip_id: str
    """Its id."""
    title: str
    """File name and span."""
    value: float
    """Its score."""
    passes: bool
    """Whether it is on the good side."""
    state: str
    """What the policy says of it as a whole."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TuneCurve:
    """Hours kept against each threshold of one rule."""

    rule: str
    """Name of the threshold, as in policy files."""
    code: str
    """Reason that its failures give."""
    score: str
    """Score that it cuts."""
    is_minimum: bool
    """True when smaller scores fail."""
    policy: str
    """The policy whose other rules hold."""
    current: float | None
    """The policy's own value."""
    only_flags: bool
    """Whether the policy only flags for it; the steps show what dropping would keep."""
    hours_total: float
    """Hours of all clips."""
    num_scored: int
    """Clips that have the score."""
    steps: tuple[TuneStep, ...]
    """From the strictest value to the laxest."""
    below: tuple[BorderClip, ...]
    """Clips below the current value, nearest first."""
    above: tuple[BorderClip, ...]
    """Clips at or above it, nearest first."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for --json."""
        return asdict(self)

    def sparkline(self) -> str:
        """Return the hours as a row of bars, strictest value first."""
        hours = np.array([step.hours_kept for step in self.steps])
        top = hours.max() if hours.size and hours.max() > 0 else 1.0
        return "".join(_BARS[round(float(value / top) * (len(_BARS) - 1))] for value in hours)


def find_rule(name: str) -> Rule:
    """Return a rule by its threshold's name, or by code or score where only one has it.

    Raises:
        ConfigError: No rule, or several, go by the name.
    """
    by_threshold = {rule.threshold: rule for rule in RULES}
    if name in by_threshold:
        return by_threshold[name]
    found = [rule for rule in RULES if name in {rule.code, rule.score}]
    if len(found) == 1:
        return found[0]
    names = ", ".join(rule.threshold for rule in found or RULES)
    if found:
        raise ConfigError(f"`{name}` has {len(found)} thresholds.", fix=f"Name one: {names}.")
    raise ConfigError(f"There is no rule `{name}`.", fix=f"Known thresholds: {names}.")


def change_policy(policy: Policy, threshold: str, value: float | None, name: str) -> Policy:
    """Return a policy under a new name with one threshold changed.

    Raises:
        ConfigError: The threshold is unknown, or the name is that of a shipped policy.
    """
    if threshold not in THRESHOLDS:
        raise ConfigError(f"There is no threshold `{threshold}`.", fix=f"Known: {THRESHOLDS}.")
    if name in POLICIES:
        raise ConfigError(f"`{name}` is a shipped policy.", fix="Choose another file name.")
    changes: dict[str, Any] = {threshold: value, "name": name}
    text = f"{policy.name} with {threshold} {value if value is not None else 'off'}"
    return replace(policy, description=text, **changes)


def tune(root: Path | str, rule_name: str, policy: Policy, *, num_clips: int = 8) -> TuneCurve:
    """Judge a dataset at many values of one threshold; no model runs and nothing is written.

    Args:
        rule_name: Threshold, reason code or score.
        policy: The policy whose other rules hold; if it only flags for this one, the steps show
            what it would keep by dropping.
        num_clips: How many clips to show on either side of the line.
    """
    rule = find_rule(rule_name)
    only_flags = rule.only_flags(policy)
    others = tuple(name for name in policy.only_flag if name != rule.threshold)
    policy = replace(policy, only_flag=others)
    clips = CurationDataset.open(root).table("clips", [*_FACTS, *READS])
    columns = columns_of_table(clips)
    hours = np.nan_to_num(clips["duration_s"].to_numpy(zero_copy_only=False).astype(float)) / 3600
    values = np.where(rule.judged_clips(columns), columns[rule.score], np.nan)
    steps = []
    for value, marks in _candidates(rule, policy, values):
        changes: dict[str, Any] = {rule.threshold: value}
        kept = judge_columns(columns, replace(policy, **changes)).states == "keep"
        steps.append(
            TuneStep(
                threshold=value,
                hours_kept=float(hours[kept].sum()),
                num_kept=int(kept.sum()),
                marks=marks,
            )
        )
    current = rule.limit(policy)
    states = judge_columns(columns, policy).states
    scored = values[np.isfinite(values)]
    line = current if current is not None else float(np.median(scored)) if scored.size else 0.0
    below, above = (
        border_clips(clips, np.where(side, values, np.nan), states, rule, line, num_clips)
        for side in (values < line, values >= line)
    )
    return TuneCurve(
        rule=rule.threshold,
        code=rule.code,
        score=rule.score,
        is_minimum=rule.is_minimum,
        policy=policy.name,
        current=current,
        only_flags=only_flags,
        hours_total=float(hours.sum()),
        num_scored=len(scored),
        steps=tuple(steps),
        below=below,
        above=above,
    )


def _candidates(
    rule: Rule, policy: Policy, values: Float64[np.ndarray, " clips"]
) -> list[tuple[float | None, tuple[str, ...]]]:
    """Return thresholds worth a look, strictest first: quantiles and those of known policies."""
    marks: dict[float | None, list[str]] = {}
    scored = values[np.isfinite(values)]
    if scored.size:
        for value in np.quantile(scored, np.linspace(0.0, 1.0, _NUM_STEPS)):
            marks.setdefault(float(f"{value:.4g}"), [])
    for name, known in {**POLICIES, "now": policy}.items():
        marks.setdefault(rule.limit(known), []).append(name)
    marks.setdefault(None, []).append("off")
    order = sorted((value for value in marks if value is not None), reverse=rule.is_minimum)
    return [(value, tuple(marks[value])) for value in [*order, None]]


def border_clips(
    clips: pa.Table,
    values: Float64[np.ndarray, " clips"],
    states: Shaped[np.ndarray, " clips"],
    rule: Rule,
    line: float,
    num_clips: int,
) -> tuple[BorderClip, ...]:
    """Return the clips that have a score and lie nearest to a line, nearest first.

    Args:
        clips: With clip_id, file_name, start_s and end_s.
        values: The rule's score of each; NaN where a clip has none.
        states: What the policy says of each as a whole.
        rule: Says which side is good.
        line: A value of the score.
        num_clips: How many at most.
    """
    scored = np.flatnonzero(np.isfinite(values))
    away = np.abs(values[scored] - line)
    order = scored[np.argsort(away, kind="stable")[:num_clips]]
    rows = clips.select(("clip_id", "file_name", "start_s", "end_s")).take(pa.array(order))
    return tuple(
        BorderClip(
            clip_id=row["clip_id"],
            title="{file_name} {start_s:.2f} to {end_s:.2f} s".format(**row),
            value=float(values[place]),
            passes=rule.passes(float(values[place]), line),
            state=str(states[place]),
        )
        for place, row in zip(order.tolist(), rows.to_pylist(), strict=True)
    )
