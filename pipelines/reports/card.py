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
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float64

from animaray.datasets.reader import CurationDataset
from animaray.datasets.schemas import FAMILIES
from animaray.datasets.table_rows import one_array
from animaray.models.perception.permissive import rapid_ocr
from animaray.pipelines.policy.policies import Policy, policy_fingerprint
from animaray.pipelines.policy.rules import READS, RULES, columns_of_table, judge_columns
from animaray.pipelines.policy.tuning import BorderClip, border_clips
from animaray.pipelines.policy.verdicts import applied_policy
from animaray.pipelines.reports.show import (
    clips_with_verdicts,
    count_values,
    distinct,
    hours_of,
    kept_clips,
    source_states,
)
from animaray.pipelines.sets.identities import group_clips
from animaray.platform.config import config_to_dict
from animaray.platform.stores import Store
from animaray.platform.weights.table import WEIGHTS

NUM_BINS = 24
_DURATIONS_S = (2.0, 4.0, 8.0, 16.0, 60.0)
_SIDES_PX = (360, 480, 720, 1080, 1440)
_MAX_GROUPED = 20_000
_CLIP_FACTS = (
    "input_id", "file_name", "start_s", "end_s", "duration_s", "width", "height", "pose_framing",
    "splitter", *(f"{family}_producer" for family in FAMILIES),
)  # fmt: skip
_VERDICT_FACTS = ("keep", "reason_codes", "flag_codes")
_PERSON_FACTS = ("source_id", "face_producer", "identity_embedding")
_SOURCE_FACTS = (
    "input_id", "reason", "duration_s", "profile", "code", "config", "licence_claimed",
)  # fmt: skip


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


def dataset_card(
    address: Path | str | Store, policy: str = "standard", *, num_border: int = 4
) -> Card:
    """Read a snapshot and gather its card.

    Args:
        num_border: Clips shown on either side of each limit.

    Raises:
        DatasetError: There is no dataset, or the policy was never applied.
    """
    dataset = CurationDataset.open(address)
    dataset.check_applied(policy)
    rules = applied_policy(dataset, policy)
    clips = clips_with_verdicts(
        dataset, policy, _CLIP_FACTS, ("keep", "reason_codes", "flag_codes")
    )
    sources = dataset.table("sources", _SOURCE_FACTS)
    kept = clips.filter(clips["keep"])
    states = count_values(source_states(dataset, policy)["state"])
    return Card(
        dataset=str(dataset.store),
        version=dataset.snapshot.version,
        policy={**config_to_dict(rules), "fingerprint": policy_fingerprint(rules)},
        totals={
            "inputs": len(sources),
            "clips": len(clips),
            "kept_clips": len(kept),
            "input_hours": hours_of(sources),
            "clip_hours": hours_of(clips),
            "kept_hours": hours_of(kept),
        },
        funnel=_count_funnel(states, clips),
        sources_by_state=states,
        source_reasons=count_values(sources["reason"].drop_null()),
        reasons=count_values(pc.list_flatten(clips["reason_codes"])),
        flags=count_values(pc.list_flatten(kept["flag_codes"])),
        hours_by_policy={name: _hours_under(dataset, clips, name) for name in dataset.policies()},
        readings=_readings(dataset, rules),
        rules=_rule_cards(dataset, clips, rules, num_border),
        balance=_balance(dataset, kept),
        licences=_licences(sources, clips),
        source_licences=_source_licences(sources, kept),
        lineage=_lineage(dataset, clips, sources),
        kept_clips=tuple(kept["clip_id"].to_pylist()),
    )


def _hours_under(dataset: CurationDataset, clips: pa.Table, policy: str) -> dict[str, float | int]:
    kept = kept_clips(dataset, clips, policy)
    return {"clips": len(kept), "hours": hours_of(kept)}


def _readings(dataset: CurationDataset, policy: Policy) -> dict[str, int]:
    columns = columns_of_table(dataset.table("clips", READS))
    share = policy.max_pose_missing
    share = share if share is not None else 0.10
    found = {}
    for name, literal, strict in (("literal", share, None), ("strict", None, share)):
        changed = replace(policy, max_pose_missing=literal, max_pose_missing_strict=strict)
        judged = judge_columns(columns, changed)
        found[name] = int((judged.states == "keep").sum())
    return found


def _rule_cards(
    dataset: CurationDataset, clips: pa.Table, policy: Policy, num_border: int
) -> tuple[RuleCard, ...]:
    judgement = judge_columns(columns_of_table(dataset.table("clips", READS)), policy)
    broken = np.zeros(len(clips), dtype=np.int64)
    for rule, _, fails in judgement.failures:
        broken += fails & (not rule.only_flags(policy))
    cards = []
    for rule, limit, fails in judgement.failures:
        is_judged = rule.judged_clips(judgement.columns)
        values = np.where(is_judged, judgement.columns[rule.score], np.nan).astype(np.float64)
        passes = np.isfinite(values) & ~_is_broken(values, limit, is_minimum=rule.is_minimum)
        edges, passing, failing = histogram(values, limit, is_minimum=rule.is_minimum)
        good, bad = (
            border_clips(
                clips, np.where(side, values, np.nan), judgement.states, rule, limit, num_border
            )
            for side in (passes, ~passes)
        )
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
                good_side=good,
                bad_side=bad,
            )
        )
    return tuple(cards)


def _is_broken(
    values: Float64[np.ndarray, " clips"], limit: float, *, is_minimum: bool
) -> Bool[np.ndarray, " clips"]:
    return values < limit if is_minimum else values > limit


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
    fails = _is_broken(known, limit, is_minimum=is_minimum)
    passing = np.histogram(shown[~fails], edges)[0].tolist()
    return edges, passing, np.histogram(shown[fails], edges)[0].tolist()


def _count_funnel(states: Mapping[str, int], clips: pa.Table) -> tuple[tuple[str, int], ...]:
    """Count what is left after each family's rules, applied in cost order."""
    inputs = sum(states.values())
    readable = inputs - states.get("unreadable", 0)
    steps = [
        ("inputs", inputs),
        ("readable", readable),
        ("not a duplicate", readable - states.get("duplicate", 0)),
        ("clips", len(clips)),
    ]
    family_of = {rule.code: rule.family for rule in RULES}
    codes = one_array(clips["reason_codes"])
    owners, words = pc.list_parent_indices(codes).to_numpy(), codes.flatten().dictionary_encode()
    families = [family_of.get(code, code.split("_")[0]) for code in words.dictionary.to_pylist()]
    left = np.ones(len(clips), dtype=np.bool_)
    for family, label in (
        ("picture", "good picture"),
        ("face", "good face"),
        ("pose", "one person in view"),
        ("camera", "steady camera"),
        ("motion", "moving person"),
        ("text", "not dropped for text"),
    ):
        own = [number for number, name in enumerate(families) if name == family]
        left[owners[np.isin(words.indices.to_numpy(), own)]] = False
        steps.append((label, int(left.sum())))
    steps.append(("kept clips", int(pc.sum(clips["keep"]).as_py() or 0)))
    return tuple(steps)


def _balance(dataset: CurationDataset, kept: pa.Table) -> dict[str, dict[str, int]]:
    people: Counter[str] = Counter()
    if len(kept) <= _MAX_GROUPED:
        known = dataset.table("clips", ["clip_id", *_PERSON_FACTS])
        rows = known.filter(pc.is_in(known["clip_id"], value_set=one_array(kept["clip_id"])))
        people.update(f"person {number + 1}" for number in group_clips(rows.to_pylist()).tolist())
    sides = pc.min_element_wise(kept["width"].fill_null(0), kept["height"].fill_null(0))
    return {
        "person": dict(people.most_common()),
        "source": count_values(kept["file_name"]),
        "duration (s)": _binned(kept["duration_s"].fill_null(0.0), _DURATIONS_S),
        "short side (px)": _binned(sides, _SIDES_PX),
        "framing": count_values(kept["pose_framing"].fill_null("unknown")),
    }


def _binned(values: pa.ChunkedArray, edges: Sequence[float | int]) -> dict[str, int]:
    numbers = values.to_numpy().astype(np.float64)
    places = np.searchsorted(np.array(edges, dtype=float), numbers, "right")
    names = [f"under {edges[0]:g}"]
    names += [f"{a:g} to {b:g}" for a, b in itertools.pairwise(edges)]
    names.append(f"{edges[-1]:g} and more")
    return {name: int((places == place).sum()) for place, name in enumerate(names)}


def _licences(sources: pa.Table, clips: pa.Table) -> tuple[Mapping[str, Any], ...]:
    """Return the licences of the networks that the profile asks for, and of the reader of text."""
    readers = {producer.split("@")[0] for producer in distinct(clips["text_producer"])}
    profiles = set(distinct(sources["profile"]))
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


def _source_licences(sources: pa.Table, kept: pa.Table) -> dict[str, int]:
    has_kept = pc.is_in(sources["input_id"], value_set=one_array(kept["input_id"]))
    claimed = sources["licence_claimed"].filter(has_kept)
    return count_values(pc.if_else(pc.equal(claimed, ""), None, claimed).fill_null("not stated"))


def _lineage(dataset: CurationDataset, clips: pa.Table, sources: pa.Table) -> dict[str, Any]:
    return {
        "commits": dict(Counter(entry.kind for entry in dataset.snapshot.entries)),
        "code": distinct(sources["code"]),
        "configs": distinct(sources["config"]),
        "profiles": distinct(sources["profile"]),
        "producers": {family: distinct(clips[f"{family}_producer"]) for family in FAMILIES},
        "splitters": distinct(clips["splitter"]),
        "withdrawn_sources": len(dataset.snapshot.withdrawn),
    }
