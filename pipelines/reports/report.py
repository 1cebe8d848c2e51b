"""Turn a dataset into what a report page shows: funnel, contact sheet, scores, reasons."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from animaray.datasets.reader import CurationDataset
from animaray.datasets.schemas import SCORES, SOURCE_STATES
from animaray.pipelines.curation.commit import state_of_clips
from animaray.pipelines.policy.policies import POLICIES, Policy
from animaray.pipelines.policy.rules import RULES


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportItem:
    """One clip, or one input that gave no clip."""

    item_id: str
    """Clip id, or input id; safe as a file name."""
    title: str
    """File name, and the span for clips."""
    kept: bool
    """Whether the policy keeps it."""
    state: str
    """keep, drop, undetermined, failed for clips; unreadable, duplicate, dropped, failed else."""
    reasons: tuple[str, ...]
    """Why, in words with value and threshold."""
    flags: tuple[str, ...]
    """What the policy marks and does not drop it for, in the same words."""
    poster: bytes | None
    """JPEG of the clip's middle frame; None without a clip."""
    scores: Mapping[str, Any]
    """Raw scores; empty without a clip."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreHistogram:
    """The values of one score over all clips, and where the policy cuts."""

    score: str
    """Name of the score."""
    values: tuple[float, ...]
    """One per clip that has it."""
    threshold: float | int | None
    """The policy's limit; None where it depends on the clip."""
    is_minimum: bool
    """Whether values below the limit fail."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetReport:
    """Everything a page needs."""

    items: tuple[ReportItem, ...]
    """Clips and clipless inputs, kept ones first, then by title."""
    funnel: tuple[tuple[str, int], ...]
    """What was left after each step; clips count from "clips" on."""
    sources_by_state: Mapping[str, int]
    """Inputs per final state under this policy; they add up to all inputs."""
    reasons: Mapping[str, int]
    """Clips per reason code."""
    kept_by_policy: Mapping[str, int]
    """Kept clips under each policy that was applied."""
    histograms: tuple[ScoreHistogram, ...]
    """One per score with a rule."""


def dataset_report(root: Path | str, policy: str = "standard") -> DatasetReport:
    """Read a dataset and gather its report under one applied policy."""
    dataset = CurationDataset.open(root)
    verdicts = {row["clip_id"]: row for row in dataset.verdicts(policy)}
    clips = dataset.clips()
    states = source_states(dataset, verdicts)
    items = [_clip_item(dataset, clip, verdicts[clip["clip_id"]]) for clip in clips]
    items += [_source_item(row, states) for row in dataset.sources() if not row["num_clips"]]
    kept_by_policy = {
        name: sum(row["keep"] for row in dataset.verdicts(name)) for name in dataset.policies()
    }
    return DatasetReport(
        items=tuple(sorted(items, key=lambda item: (not item.kept, item.title))),
        funnel=count_funnel(states, clips, verdicts),
        sources_by_state={
            state: sum(found == state for found in states.values()) for state in SOURCE_STATES
        },
        reasons=dict(
            Counter(code for row in verdicts.values() for code in row["reason_codes"]).most_common()
        ),
        kept_by_policy=kept_by_policy,
        histograms=_histograms(clips, POLICIES.get(policy)),
    )


def source_states(
    dataset: CurationDataset, verdicts: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """Return each input's final state under a policy's verdicts, by input id."""
    by_input: dict[str, list[Mapping[str, Any]]] = {}
    for clip in dataset.clips():
        by_input.setdefault(clip["input_id"], []).append(verdicts[clip["clip_id"]])
    return {
        row["input_id"]: state_of_clips([v["state"] for v in by_input[row["input_id"]]])
        if row["input_id"] in by_input
        else row["state"]
        for row in dataset.sources()
    }


def _clip_item(
    dataset: CurationDataset, clip: Mapping[str, Any], verdict: Mapping[str, Any]
) -> ReportItem:
    has_preview = clip["num_frames"] is not None
    return ReportItem(
        item_id=clip["clip_id"],
        title=f"{clip['file_name']} {clip['start_s']:.2f} to {clip['end_s']:.2f} s",
        kept=verdict["keep"],
        state=verdict["state"],
        reasons=tuple(verdict["reasons"]),
        flags=tuple(verdict["flags"] or ()),
        poster=dataset.preview(clip["clip_id"])["poster"] if has_preview else None,
        scores={name: clip[name] for scores in SCORES.values() for name in scores},
    )


def _source_item(row: Mapping[str, Any], states: Mapping[str, str]) -> ReportItem:
    reasons = [text for text in (row["reason"], row["detail"]) if text]
    return ReportItem(
        item_id=row["input_id"],
        title=row["uri"],
        kept=False,
        state=states[row["input_id"]],
        reasons=tuple(reasons),
        flags=(),
        poster=None,
        scores={},
    )


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


def _histograms(
    clips: Sequence[Mapping[str, Any]], policy: Policy | None
) -> tuple[ScoreHistogram, ...]:
    found = []
    for rule in RULES:
        values = [float(clip[rule.score]) for clip in clips if clip[rule.score] is not None]
        limits = set()
        if policy is not None:
            limits = {rule.limit(policy)}
        found.append(
            ScoreHistogram(
                score=rule.score,
                values=tuple(values),
                threshold=limits.pop() if len(limits) == 1 else None,
                is_minimum=rule.is_minimum,
            )
        )
    return tuple(found)
