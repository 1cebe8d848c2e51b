"""List every input of a dataset with its clips, for programs: what became of each, and why."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from animaray.datasets.reader import CurationDataset
from animaray.datasets.schemas import FAMILIES, SCORES
from animaray.pipelines.reports.report import source_states


def list_sources(root: Path | str, policy: str = "standard") -> list[dict[str, Any]]:
    """Return one object per input ever tried, in the order of their names.

    `file` or `url` names the input; `state`, `reason` and `detail` say what became of it under the
    policy; `clips` holds each clip with `start` and `end` (seconds of the input), `keep`, `state`,
    `reasons` (code, value and threshold), `reason_codes`, `flags` and `scores`.

    Args:
        root: Dataset folder.
        policy: An applied policy.

    Raises:
        DatasetError: There is no dataset, or the policy was never applied.
    """
    dataset = CurationDataset.open(root)
    verdicts = {row["clip_id"]: row for row in dataset.verdicts(policy)}
    states = source_states(dataset, verdicts)
    clips: dict[str, list[dict[str, Any]]] = {}
    for clip in sorted(dataset.clips(), key=lambda row: (row["start_s"], row["clip_id"])):
        item = _clip_object(clip, verdicts[clip["clip_id"]])
        clips.setdefault(clip["input_id"], []).append(item)
    return [
        _source_object(row, states[row["input_id"]], clips.get(row["input_id"], []))
        for row in dataset.sources()
    ]


def _source_object(
    row: Mapping[str, Any], state: str, clips: list[dict[str, Any]]
) -> dict[str, Any]:
    codes = [code for clip in clips for code in clip["reason_codes"]]
    reason = row["reason"]
    if clips:  # the policy decides, not what was stored when another one was in force
        reason = max(codes, key=codes.count) if codes and state != "kept" else None
    return {
        "url" if "://" in row["uri"] else "file": row["uri"],
        "input_id": row["input_id"],
        "source_id": row["source_id"],
        "state": state,
        "reason": reason,
        "detail": row["detail"],
        "duplicate_of": row["duplicate_of"],
        "sha256": row["sha256"],
        "duration": row["duration_s"],
        "clips": clips,
    }


def _clip_object(clip: Mapping[str, Any], verdict: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "clip_id": clip["clip_id"],
        "start": clip["start_s"],
        "end": clip["end_s"],
        "keep": verdict["keep"],
        "state": verdict["state"],
        "reasons": verdict["reasons"],
        "reason_codes": verdict["reason_codes"],
        "flags": verdict["flags"] or [],
        "scores": {name: clip[name] for scores in SCORES.values() for name in scores},
        "families": {family: clip[f"{family}_state"] for family in FAMILIES},
    }
