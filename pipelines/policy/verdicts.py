"""Judge clips: when curation has measured them, and anew whenever a policy changes; no model runs.

`add_verdicts` is a stage. Reads: picture_scores, face_scores, pose_scores, camera_scores,
motion_scores, text_scores and the families' states. Adds: scores, verdicts, stores_media. Drops:
the score columns.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from animaray.datasets.commit_log import CommitLog, CommittedFile
from animaray.datasets.publication import publish
from animaray.datasets.reader import CurationDataset
from animaray.datasets.schemas import FAMILIES, schema_of
from animaray.datasets.shards import write_table
from animaray.datasets.writers import writing
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
from animaray.platform.stores import Store, open_store

READS = (
    *(f"{family}_scores" for family in FAMILIES),
    *(f"{family}_state" for family in FAMILIES),
)
ADDS = ("scores", "verdicts", "stores_media")
_CLIPS_AT_ONCE = 1 << 16
"""Judged, spelled and written at once: what one file of verdicts holds at most."""
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


def reapply_policy(address: str | Path | Store, policy: str | Path | Policy = "standard") -> int:
    """Write new verdicts from the stored scores; no model runs. Return the number of kept clips.

    Args:
        policy: Name of a shipped policy, a policy file, or the policy itself.
    """
    store, policy = open_store(address), find_policy(policy)
    dataset = CurationDataset.open(store)
    clips = dataset.table("clips", ["clip_id", "source_id", *rules.READS])
    folder = f"verdicts/{policy.name}"
    files: list[CommittedFile] = []
    kept = 0
    with writing(store) as writer:
        for start in range(0, len(clips), _CLIPS_AT_ONCE):
            rows = _judged(clips.slice(start, _CLIPS_AT_ONCE), policy)
            kept += pc.sum(rows["keep"]).as_py()
            file = write_table(store, "verdicts", rows, folder=folder, token=writer.token)
            files.append(file)
        _commit_verdicts(CommitLog(store, writer), dataset, files, policy)
    publish(store)
    return kept


def _judged(clips: pa.Table, policy: Policy) -> pa.Table:
    """Return the rows of the verdicts table for some clips."""
    judgement = judge_columns(columns_of_table(clips), policy)
    found = judgement.spelled()
    constant = {"policy": policy.name, "policy_fingerprint": policy_fingerprint(policy)}
    columns = {
        **{name: clips[name] for name in ("clip_id", "source_id")},
        **{name: pa.repeat(value, len(clips)) for name, value in constant.items()},
        **{name: found[name] for name in found.column_names},
        "keep": pa.array(judgement.states == "keep"),
    }
    schema = schema_of("verdicts")
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def _commit_verdicts(
    log: CommitLog, dataset: CurationDataset, files: Sequence[CommittedFile], policy: Policy
) -> None:
    """Replace the verdicts of one policy, unless they are the same."""
    old = {file.path for file in dataset.snapshot.of_table(f"verdicts/{policy.name}")}
    new = {file.path for file in files}
    if old != new:
        log.commit(
            [file for file in files if file.path not in old],
            removed=sorted(old - new),
            kind="verdicts",
            facts={"policy": config_to_dict(policy), "fingerprint": policy_fingerprint(policy)},
        )


def applied_policy(dataset: CurationDataset, name: str) -> Policy:
    """Return the policy of that name with the thresholds that its verdicts were made with.

    A shipped policy is known by name; one of your own by the commit that applied it.

    Raises:
        DatasetError: No commit of the dataset tells the policy's thresholds.
    """
    digests = _fingerprints(dataset, name)
    shipped = POLICIES.get(name)
    if shipped is not None and digests <= {policy_fingerprint(shipped)}:
        return shipped
    for entry in reversed(dataset.snapshot.entries):
        policy = entry.facts.get("policy")
        if isinstance(policy, dict) and policy.get("name") == name:
            return policy_from_dict(policy, f"commit {entry.version} of {dataset.store}")
    raise DatasetError(
        f"Policy {name} was never applied to {dataset.store}; there is "
        f"{', '.join(dataset.policies()) or 'none'}.",
        fix=f"Apply it, no model runs: animaray curate verdicts {dataset.store} --policy FILE",
        reason="no_verdicts",
    )


def renew_stale_verdicts(address: str | Path | Store) -> None:
    """Judge again where a shipped policy has other thresholds by now, or clips lack a verdict."""
    dataset = CurationDataset.open(address)
    clips = dataset.table("clips", ["clip_id"])
    for name in dataset.policies():
        policy = POLICIES.get(name) or applied_policy(dataset, name)
        is_complete = dataset.table(f"verdicts/{name}", ["clip_id"]).equals(clips)
        if not is_complete or _fingerprints(dataset, name) - {policy_fingerprint(policy)}:
            reapply_policy(address, policy)


def _fingerprints(dataset: CurationDataset, name: str) -> set[str]:
    """Return the thresholds, as hashes, that the verdicts of a policy were made with."""
    found = dataset.table(f"verdicts/{name}", ["policy_fingerprint"])["policy_fingerprint"]
    return set(found.unique().to_pylist())
