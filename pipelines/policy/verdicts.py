"""Judge clips: when curation has measured them, and anew whenever a policy changes; no model runs.

`add_verdicts` is a stage. Reads: picture_scores, face_scores, pose_scores, camera_scores,
motion_scores, text_scores and the families' states. Adds: scores, verdicts, stores_media. Drops:
the score columns.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from animaray.datasets.commit_log import CommitLog
from animaray.datasets.reader import CurationDataset
from animaray.datasets.schemas import FAMILIES
from animaray.datasets.shards import write_shard
from animaray.datasets.vacuum import writing
from animaray.pipelines.policy import rules
from animaray.pipelines.policy.policies import (
    POLICIES,
    Policy,
    find_policy,
    policy_fingerprint,
    policy_from_dict,
)
from animaray.pipelines.policy.rules import Verdict, columns_of_table, judge, judge_columns
from animaray.platform.config import config_to_dict
from animaray.platform.errors import DatasetError

READS = (
    *(f"{family}_scores" for family in FAMILIES),
    *(f"{family}_state" for family in FAMILIES),
)
ADDS = ("scores", "verdicts", "stores_media")
DROPS = tuple(f"{family}_scores" for family in FAMILIES)


def add_verdicts(
    row: Mapping[str, Any], policies: Sequence[Policy], store_media: str
) -> dict[str, Any]:
    """Judge one clip.

    Args:
        row: The clip, with what every family measured.
        policies: All policies to apply; the first is the run's own.
        store_media: kept (by the run's policy), shipped (not dropped by every policy) or all.
    """
    scores: dict[str, Any] = {}
    for family in FAMILIES:
        scores |= row.get(f"{family}_scores") or {}
        scores[f"{family}_state"] = row.get(f"{family}_state") or "not_run"
        scores[f"{family}_note"] = row.get(f"{family}_note")
        scores[f"{family}_producer"] = row.get(f"{family}_producer")
    if row.get("state") == "failed":
        # The clip could not even be cut out: the first family carries the reason.
        scores["picture_state"] = "failed"
        scores["picture_note"] = f"{row['reason']}: {row['detail']}"
    verdicts = {policy.name: judge(scores, policy) for policy in policies}
    states = [verdict.state for verdict in verdicts.values()]
    stores = {
        "kept": states[0] == "keep",
        "shipped": any(state in {"keep", "undetermined"} for state in states),
        "all": True,
    }[store_media]
    rest = {name: value for name, value in row.items() if name not in DROPS}
    has_media = row.get("media_path") is not None
    return {
        **rest, "scores": scores, "verdicts": verdicts, "stores_media": stores and has_media,
    }  # fmt: skip


def verdict_row(clip_id: str, source_id: str, policy: Policy, verdict: Verdict) -> dict[str, Any]:
    """Return a row of the verdicts table."""
    return {
        "clip_id": clip_id,
        "source_id": source_id,
        "policy": policy.name,
        "policy_fingerprint": policy_fingerprint(policy),
        "state": verdict.state,
        "keep": verdict.keep,
        "reasons": list(verdict.reasons),
        "reason_codes": list(verdict.codes),
        "flags": list(verdict.flags),
        "flag_codes": list(verdict.flag_codes),
    }


def reapply_policy(root: Path | str, policy: str | Path | Policy = "standard") -> int:
    """Write new verdicts from the stored scores; no model runs. Return the number of kept clips.

    Args:
        policy: Name of a shipped policy, a policy file, or the policy itself.
    """
    root, policy = Path(root), find_policy(policy)
    dataset = CurationDataset.open(root)
    clips = dataset.table("clips", ["clip_id", "source_id", *rules.READS])
    judgement = judge_columns(columns_of_table(clips), policy)
    digest = policy_fingerprint(policy)
    rows = [
        verdict_row(clip_id, source_id, policy, verdict)
        for clip_id, source_id, verdict in zip(
            clips["clip_id"].to_pylist(),
            clips["source_id"].to_pylist(),
            judgement.verdicts(),
            strict=True,
        )
    ]
    folder = f"verdicts/{policy.name}"
    with writing(root):
        _commit_verdicts(
            dataset, rows, folder, {"policy": config_to_dict(policy), "fingerprint": digest}
        )
    return sum(row["keep"] for row in rows)


def _commit_verdicts(
    dataset: CurationDataset, rows: list[dict[str, Any]], folder: str, facts: dict[str, Any]
) -> None:
    """Replace the verdicts of one policy, unless they are the same."""
    root = dataset.root
    old = {file.path for file in dataset.snapshot.of_table(folder)}
    files = [write_shard(root, "verdicts", rows, folder=folder)] if rows else []
    if old != {file.path for file in files}:
        CommitLog(root).commit(
            [file for file in files if file.path not in old],
            removed=sorted(old - {file.path for file in files}),
            kind="verdicts",
            facts=facts,
        )


def applied_policy(dataset: CurationDataset, name: str) -> Policy:
    """Return the policy of that name with the thresholds that its verdicts were made with.

    A shipped policy is known by name; one of your own by the commit that applied it.

    Raises:
        DatasetError: No commit of the dataset tells the policy's thresholds.
    """
    found = dataset.table(f"verdicts/{name}", ["policy_fingerprint"])
    digests = set(found["policy_fingerprint"].to_pylist())
    shipped = POLICIES.get(name)
    if shipped is not None and digests <= {policy_fingerprint(shipped)}:
        return shipped
    for entry in reversed(CommitLog(dataset.root).commits(dataset.snapshot.version)):
        policy = entry.facts.get("policy")
        if isinstance(policy, dict) and policy.get("name") == name:
            return policy_from_dict(policy, f"commit {entry.version} of {dataset.root}")
    raise DatasetError(
        f"Policy {name} was never applied to {dataset.root}; there is "
        f"{', '.join(dataset.policies()) or 'none'}.",
        fix=f"Apply it, no model runs: animaray curate verdicts {dataset.root} --policy FILE",
        reason="no_verdicts",
    )


def renew_stale_verdicts(root: Path) -> None:
    """Judge again where a shipped policy has other thresholds by now, or clips lack a verdict."""
    dataset = CurationDataset.open(root)
    clips = set(dataset.table("clips", ["clip_id"])["clip_id"].to_pylist())
    for name in dataset.policies():
        policy = POLICIES.get(name) or applied_policy(dataset, name)
        found = dataset.table(f"verdicts/{name}", ["clip_id", "policy_fingerprint"])
        digests = set(found["policy_fingerprint"].to_pylist())
        if clips != set(found["clip_id"].to_pylist()) or digests - {policy_fingerprint(policy)}:
            reapply_policy(root, policy)
