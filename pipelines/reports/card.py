"""The facts of a dataset card: what one snapshot holds under one policy, and why.

Funnel, every rule with its histogram and the clips beside its limit, balance, licences, lineage.
"""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from animaray.datasets.commit_log import CommitLog
from animaray.datasets.reader import CurationDataset
from animaray.datasets.schemas import FAMILIES
from animaray.models.perception.permissive import rapid_ocr
from animaray.pipelines.curation.summary import count_flags
from animaray.pipelines.policy.policies import Policy, policy_fingerprint
from animaray.pipelines.policy.rules import RULES, columns_of_table, judge_columns
from animaray.pipelines.policy.tuning import BorderClip, border_clips
from animaray.pipelines.policy.verdicts import applied_policy
from animaray.pipelines.reports.show import distinct, source_states
from animaray.pipelines.sets.identities import group_clips
from animaray.platform.config import config_to_dict
from animaray.platform.weights.table import WEIGHTS

NUM_BINS = 24
_DURATIONS_S = (2.0, 4.0, 8.0, 16.0, 60.0)
_SIDES_PX = (360, 480, 720, 1080, 1440)
_MAX_GROUPED = 20_000


@dataclass(frozen=True, kw_only=True, slots=True)
class RuleCard:
    """One rule: the values of its score, the limit, and the clips nearest to it."""

    code: str
    score: str
    family: str
    threshold: str
    limit: float
    is_minimum: bool
    framing: str | None
    num_scored: int
    num_broken: int
    """Clips that break it."""
    num_only: int
    """Of these, clips that break no other rule: what the rule alone costs, or would."""
    only_flags: bool
    """Whether the policy marks such clips and drops none."""
    edges: tuple[float, ...]
    """Borders of the histogram's bins; values beyond the outer ones count in the last bins."""
    passing: tuple[int, ...]
    """Clips per bin on the good side."""
    failing: tuple[int, ...]
    """Clips per bin on the bad side."""
    good_side: tuple[BorderClip, ...]
    """Clips just on the good side."""
    bad_side: tuple[BorderClip, ...]
    """Clips just on the bad side."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """Everything that the card shows but the pictures."""

    dataset: str
    version: int
    policy: Mapping[str, Any]
    """Name, description, fingerprint and thresholds."""
    totals: Mapping[str, float | int]
    funnel: tuple[tuple[str, int], ...]
    sources_by_state: Mapping[str, int]
    source_reasons: Mapping[str, int]
    reasons: Mapping[str, int]
    """Clips per reason code."""
    flags: Mapping[str, int]
    """Kept clips per flag."""
    hours_by_policy: Mapping[str, Mapping[str, float | int]]
    readings: Mapping[str, int]
    """Clips kept under both readings of the 70 % rule, all other rules of this policy unchanged."""
    rules: tuple[RuleCard, ...]
    balance: Mapping[str, Mapping[str, int]]
    """Kept clips by person, source, duration, resolution and framing."""
    licences: tuple[Mapping[str, Any], ...]
    """Networks of the profile: id, purpose, licence, commercial_use."""
    source_licences: Mapping[str, int]
    """What the inputs of kept clips claim about themselves, and how many say so."""
    lineage: Mapping[str, Any]
    kept_clips: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for --json."""
        return asdict(self)


def dataset_card(root: Path | str, policy: str = "standard", *, num_border: int = 4) -> Card:
    """Read a snapshot and gather its card.

    Args:
        num_border: Clips shown on either side of each limit.

    Raises:
        DatasetError: There is no dataset, or the policy was never applied.
    """
    dataset = CurationDataset.open(root)
    verdicts = {row["clip_id"]: row for row in dataset.verdicts(policy)}
    rules = applied_policy(dataset, policy)
    clips, sources = dataset.clips(), dataset.sources()
    states = source_states(dataset, verdicts)
    kept = [clip for clip in clips if verdicts[clip["clip_id"]]["keep"]]
    reasons = Counter(code for row in verdicts.values() for code in row["reason_codes"])
    return Card(
        dataset=str(root),
        version=dataset.snapshot.version,
        policy={**config_to_dict(rules), "fingerprint": policy_fingerprint(rules)},
        totals={
            "inputs": len(sources),
            "clips": len(clips),
            "kept_clips": len(kept),
            "input_hours": sum(row["duration_s"] or 0.0 for row in sources) / 3600,
            "clip_hours": _hours(clips),
            "kept_hours": _hours(kept),
        },
        funnel=count_funnel(states, clips, verdicts),
        sources_by_state=dict(Counter(states.values()).most_common()),
        source_reasons=dict(
            Counter(row["reason"] for row in sources if row["reason"]).most_common()
        ),
        reasons=dict(reasons.most_common()),
        flags=count_flags(row for row in verdicts.values() if row["keep"]),
        hours_by_policy=_hours_by_policy(dataset, clips),
        readings=_readings(dataset, rules),
        rules=_rule_cards(dataset, clips, rules, num_border),
        balance=_balance(kept),
        licences=_licences(sources, clips),
        source_licences=_source_licences(sources, {clip["input_id"] for clip in kept}),
        lineage=_lineage(dataset, clips, sources),
        kept_clips=tuple(clip["clip_id"] for clip in kept),
    )


def _hours(clips: Sequence[Mapping[str, Any]]) -> float:
    return sum(clip["duration_s"] or 0.0 for clip in clips) / 3600


def _hours_by_policy(
    dataset: CurationDataset, clips: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, float | int]]:
    found: dict[str, dict[str, float | int]] = {}
    for name in dataset.policies():
        kept = {row["clip_id"] for row in dataset.verdicts(name) if row["keep"]}
        own = [clip for clip in clips if clip["clip_id"] in kept]
        found[name] = {"clips": len(own), "hours": _hours(own)}
    return found


def _readings(dataset: CurationDataset, policy: Policy) -> dict[str, int]:
    columns = columns_of_table(dataset.table("clips"))
    share = policy.max_pose_missing
    share = share if share is not None else 0.10
    found = {}
    for name, literal, strict in (("literal", share, None), ("strict", None, share)):
        changed = replace(policy, max_pose_missing=literal, max_pose_missing_strict=strict)
        judged = judge_columns(columns, changed)
        found[name] = int((judged.states == "keep").sum())
    return found


def _rule_cards(
    dataset: CurationDataset, clips: Sequence[Mapping[str, Any]], policy: Policy, num_border: int
) -> tuple[RuleCard, ...]:
    judgement = judge_columns(columns_of_table(dataset.table("clips")), policy)
    broken = np.zeros(len(clips), dtype=np.int64)
    for rule, _, fails in judgement.failures:
        broken += fails & (not rule.only_flags(policy))
    cards = []
    for rule, limit, fails in judgement.failures:
        is_judged = [rule.judges(clip["pose_framing"]) for clip in clips]
        values = np.where(is_judged, judgement.columns[rule.score], np.nan).astype(np.float64)
        edges, passing, failing = histogram(values, limit, is_minimum=rule.is_minimum)
        nearest = border_clips(clips, values, judgement.states.tolist(), rule, limit)
        cards.append(
            RuleCard(
                code=rule.code,
                score=rule.score,
                family=rule.family,
                threshold=rule.threshold,
                limit=float(limit),
                is_minimum=rule.is_minimum,
                framing=rule.framing,
                num_scored=int(np.isfinite(values).sum()),
                num_broken=int(fails.sum()),
                num_only=int((fails & (broken == int(not rule.only_flags(policy)))).sum()),
                only_flags=rule.only_flags(policy),
                edges=tuple(edges.tolist()),
                passing=tuple(passing),
                failing=tuple(failing),
                good_side=tuple(clip for clip in nearest if clip.passes)[:num_border],
                bad_side=tuple(clip for clip in nearest if not clip.passes)[:num_border],
            )
        )
    return tuple(cards)


def histogram(
    values: Float64[np.ndarray, " clips"], limit: float, *, is_minimum: bool
) -> tuple[Float64[np.ndarray, " edges"], list[int], list[int]]:
    """Count values in equal bins around a limit, which is always inside the range shown.

    Args:
        values: One per clip; NaN where a clip has none.
        is_minimum: Whether values below it fail.

    Returns:
        Borders of the bins, and the counts of passing and of failing clips.
    """
    known = values[np.isfinite(values)]
    low, high = (limit, limit) if known.size == 0 else np.quantile(known, [0.01, 0.99])
    low, high = min(float(low), limit), max(float(high), limit)
    room = (high - low) * 0.05 or abs(limit) * 0.1 or 1.0
    low = low - room if low < 0 else max(0.0, low - room)
    edges = np.linspace(low, high + room, NUM_BINS + 1)
    shown = np.clip(known, edges[0], np.nextafter(edges[-1], edges[0]))
    fails: Bool[np.ndarray, " known"] = known < limit if is_minimum else known > limit
    passing = np.histogram(shown[~fails], edges)[0].tolist()
    return edges, passing, np.histogram(shown[fails], edges)[0].tolist()


def count_funnel(
    states: Mapping[str, str],
    clips: Sequence[Mapping[str, Any]],
    verdicts: Mapping[str, Mapping[str, Any]],
) -> tuple[tuple[str, int], ...]:
    """Count what is left after each family's rules, applied in cost order."""
    counts = Counter(states.values())
    readable = len(states) - counts["unreadable"]
    steps = [
        ("inputs", len(states)),
        ("readable", readable),
        ("not a duplicate", readable - counts["duplicate"]),
        ("clips", len(clips)),
    ]
    family_of = {rule.code: rule.family for rule in RULES}
    left = [verdicts[clip["clip_id"]] for clip in clips]
    for family, label in (
        ("picture", "good picture"),
        ("face", "good face"),
        ("pose", "one person in view"),
        ("camera", "steady camera"),
        ("motion", "moving person"),
        ("text", "not dropped for text"),
    ):
        left = [
            row
            for row in left
            if not any(
                family_of.get(code, code.split("_")[0]) == family for code in row["reason_codes"]
            )
        ]
        steps.append((label, len(left)))
    steps.append(("kept clips", sum(row["keep"] for row in verdicts.values())))
    return tuple(steps)


def _balance(kept: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    people: Counter[str] = Counter()
    if len(kept) <= _MAX_GROUPED:
        people.update(f"person {number + 1}" for number in group_clips(kept).tolist())
    sides = [min(clip["width"] or 0, clip["height"] or 0) for clip in kept]
    return {
        "person": dict(people.most_common()),
        "source": dict(Counter(clip["file_name"] for clip in kept).most_common()),
        "duration (s)": _binned([clip["duration_s"] or 0.0 for clip in kept], _DURATIONS_S),
        "short side (px)": _binned(sides, _SIDES_PX),
        "framing": dict(Counter(clip["pose_framing"] or "unknown" for clip in kept).most_common()),
    }


def _binned(values: Sequence[float | int], edges: Sequence[float | int]) -> dict[str, int]:
    places = np.searchsorted(np.array(edges, dtype=float), np.array(values, dtype=float), "right")
    names = [f"under {edges[0]:g}"]
    names += [f"{a:g} to {b:g}" for a, b in itertools.pairwise(edges)]
    names.append(f"{edges[-1]:g} and more")
    return {name: int((places == place).sum()) for place, name in enumerate(names)}


def _licences(
    sources: Sequence[Mapping[str, Any]], clips: Sequence[Mapping[str, Any]]
) -> tuple[Mapping[str, Any], ...]:
    """Return the licences of the networks that the profile asks for, and of the reader of text."""
    readers = {str(clip["text_producer"]).split("@")[0] for clip in clips if clip["text_producer"]}
    profiles = {row["profile"] for row in sources if row["profile"]}
    return tuple(
        {
            "id": entry.id,
            "purpose": entry.purpose,
            "licence": entry.licence,
            "commercial_use": entry.commercial_use,
        }
        for entry in WEIGHTS.values()
        if profiles & set(entry.needed_by)
    ) + tuple(rapid_ocr.LICENCE for _ in readers & {rapid_ocr.PACKAGE})


def _source_licences(sources: Sequence[Mapping[str, Any]], inputs: set[str]) -> dict[str, int]:
    claimed = (row.get("licence_claimed") for row in sources if row["input_id"] in inputs)
    return dict(Counter(licence or "not stated" for licence in claimed).most_common())


def _lineage(
    dataset: CurationDataset,
    clips: Sequence[Mapping[str, Any]],
    sources: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    commits = CommitLog(dataset.root).commits(dataset.snapshot.version)
    return {
        "commits": dict(Counter(entry.kind for entry in commits)),
        "code": distinct(sources, "code"),
        "configs": distinct(sources, "config"),
        "profiles": distinct(sources, "profile"),
        "producers": {family: distinct(clips, f"{family}_producer") for family in FAMILIES},
        "splitters": distinct(clips, "splitter"),
        "withdrawn_sources": len(dataset.snapshot.withdrawn),
    }
