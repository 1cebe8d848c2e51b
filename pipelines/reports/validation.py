"""Check that a dataset keeps every promise of its format; each broken one is named with its row.

Nothing is repaired here.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from animaray.datasets.commit_log import CommitLog
from animaray.datasets.reader import CurationDataset
from animaray.datasets.schemas import FAMILIES, SCORES, SOURCE_STATES
from animaray.datasets.vacuum import unnamed_files
from animaray.pipelines.policy.policies import policy_fingerprint
from animaray.pipelines.policy.rules import columns_of_table, judge_columns
from animaray.pipelines.policy.verdicts import applied_policy
from animaray.pipelines.reports.validation_media import (
    check_encoded_clips,
    check_media,
    check_tracks,
)
from animaray.platform.errors import ConfigError, DatasetError
from animaray.platform.storage import content_id

INVARIANTS = {
    "log": "the commit log is whole and each entry follows the one before",
    "files": "every committed file is there, with its bytes",
    "schema": "every table has the declared columns and version",
    "states": "every input ends in exactly one final state, with a reason unless it is kept",
    "clip_ids": "a clip's id is the hash of its source, span and splitter",
    "references": "no row stands alone: clips have sources, other rows have clips",
    "scores": "scores are finite, shares lie in [0, 1], a family that ran has scores",
    "verdicts": "each clip has one verdict per policy, true to its scores; doubt is never kept",
    "media": "one video per row group, uncompressed, with the bytes that its clip declares",
    "frames": "declared frames, decoded frames and poses agree, in number and in time",
    "faces": "a missing face is marked as such, never a zero vector; embeddings are unit vectors",
    "masks": "no face box, hence no mask, covers the whole picture",
    "conditions": "encoded clips are whole, and belong to clips of the dataset",
}
"""What is checked, by the code that names it."""

Report = Callable[[str, str, str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One broken promise."""

    invariant: str
    """Key of `INVARIANTS`."""
    subject: str
    """File, or id of the row."""
    message: str
    """What was expected and what is there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Validation:
    """The outcome of a check."""

    version: int
    """Version of the dataset that was checked."""
    rows: Mapping[str, int]
    """Rows per table."""
    problems: tuple[Problem, ...]
    """Empty when all is well."""
    num_decoded: int
    """Videos that were decoded in full."""
    unnamed_files: tuple[str, ...]
    """Files that no commit names: left by a killed run, harmless; the next run deletes them."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for --json."""
        return {**asdict(self), "sound": not self.problems, "invariants": INVARIANTS}


def validate(root: Path | str, *, decode: bool = True, max_problems: int = 1000) -> Validation:
    """Check every invariant of a dataset folder.

    Args:
        decode: Whether every stored video is decoded in full; else only its bytes are compared.
        max_problems: Stop listing after so many.

    Raises:
        DatasetError: The folder holds no dataset at all.
    """
    root = Path(root)
    problems: list[Problem] = []

    def report(invariant: str, subject: str, message: str) -> None:
        if len(problems) < max_problems:
            problems.append(Problem(invariant=invariant, subject=subject, message=message))

    try:
        dataset = CurationDataset.open(root)
    except DatasetError as error:
        if error.reason == "empty":
            raise
        report("log", str(root), error.message)
        return Validation(
            version=0, rows={}, problems=tuple(problems), num_decoded=0, unnamed_files=()
        )
    for line in CommitLog(root).verify():
        report("files", line.split(":", 1)[0], line)
    rows: dict[str, int] = {}
    num_decoded = 0
    if not problems:
        try:
            rows = _check_tables(dataset, report)
            num_decoded = check_media(dataset, report, decode=decode)
            check_tracks(dataset, report)
            check_encoded_clips(dataset, report)
        except DatasetError as error:
            report("schema", str(root), error.message)
    return Validation(
        version=dataset.snapshot.version,
        rows=rows,
        problems=tuple(problems),
        num_decoded=num_decoded,
        unnamed_files=tuple(unnamed_files(root)),
    )


def _check_tables(dataset: CurationDataset, report: Report) -> dict[str, int]:
    sources, clips = dataset.sources(), dataset.clips()
    for file in dataset.snapshot.files:
        if file.table.split("/")[0] in {"sources", "clips", "media", "tracks", "preview"}:
            dataset.check_file(file)
    _check_states(sources, clips, report)
    _check_clips(sources, clips, report)
    clip_ids = {clip["clip_id"] for clip in clips}
    counts = {"sources": len(sources), "clips": len(clips)}
    counts |= _check_large_tables(dataset, clip_ids, report)
    for policy in dataset.policies():
        counts[f"verdicts/{policy}"] = _check_verdicts(dataset, policy, clip_ids, report)
    return counts


def _check_clips(
    sources: Sequence[Mapping[str, Any]], clips: Sequence[Mapping[str, Any]], report: Report
) -> None:
    by_input = {row["input_id"]: row for row in sources}
    for clip in clips:
        for message in _score_problems(clip):
            report("scores", clip["clip_id"], message)
        source = by_input.get(clip["input_id"])
        if source is None or source["source_id"] != clip["source_id"]:
            report("references", clip["clip_id"], "its source is not in the sources table")
            continue
        spans = (clip["start_pts_90k"], clip["end_pts_90k"], clip["splitter"])
        expected = content_id("clip", source["sha256"], *spans)
        if clip["clip_id"] != expected:
            report("clip_ids", clip["clip_id"], f"source and span make it {expected}")


def _check_large_tables(
    dataset: CurationDataset, clip_ids: set[str], report: Report
) -> dict[str, int]:
    known = clip_ids | dataset.withdrawn_clip_ids()
    counts = {}
    for table in ("media", "tracks", "preview"):
        own = Counter(dataset.large_table_ids(table))
        counts[table] = own.total()
        for clip_id, times in own.items():
            if clip_id not in known:
                report("references", clip_id, f"{table} has a row for a clip that does not exist")
            elif times > 1:
                report("references", clip_id, f"{table} has {times} rows for it")
    return counts


def _check_states(
    sources: Sequence[Mapping[str, Any]], clips: Sequence[Mapping[str, Any]], report: Report
) -> None:
    num_clips = Counter(clip["input_id"] for clip in clips)
    for row in sources:
        name = row["input_id"]
        if row["state"] not in SOURCE_STATES:
            report("states", name, f"state {row['state']!r} is none of {', '.join(SOURCE_STATES)}")
        elif row["state"] not in {"kept", "expanded"} and not row["reason"]:
            report("states", name, f"it is {row['state']} without a reason")
        if (row["num_clips"] or 0) != num_clips[name]:
            report("states", name, f"{row['num_clips']} clips declared, {num_clips[name]} there")


def _score_problems(clip: Mapping[str, Any]) -> Iterator[str]:
    for family in FAMILIES:
        values = {name: clip[name] for name in SCORES[family]}
        numbers = {name: v for name, v in values.items() if isinstance(v, float | int)}
        for name, value in numbers.items():
            if not np.isfinite(value):
                yield f"{name} is {value}"
            elif name.endswith("_share") and not -1e-6 <= value <= 1.0 + 1e-6:
                yield f"{name} is {value}, outside [0, 1]"
        if clip[f"{family}_state"] == "ok" and all(value is None for value in values.values()):
            yield f"family {family} is ok but has no score"


def _check_verdicts(dataset: CurationDataset, name: str, clip_ids: set[str], report: Report) -> int:
    rows = {row["clip_id"]: row for row in dataset.verdicts(name)}
    for clip_id in sorted(clip_ids - set(rows)):
        report("verdicts", clip_id, f"{name} says nothing of it")
    for clip_id in sorted(set(rows) - clip_ids):
        report("references", clip_id, f"verdicts/{name} judges a clip that does not exist")
    try:
        policy = applied_policy(dataset, name)
    except (DatasetError, ConfigError) as error:
        report("verdicts", name, f"its thresholds are unknown: {error.message}")
        return len(rows)
    digest = policy_fingerprint(policy)
    clips = dataset.table("clips")
    truth = judge_columns(columns_of_table(clips), policy).verdicts()
    for clip_id, verdict in zip(clips["clip_id"].to_pylist(), truth, strict=True):
        row = rows.get(clip_id)
        if row is None:
            continue
        if row["keep"] != (row["state"] == "keep"):
            report("verdicts", clip_id, f"{name} keeps it although it is {row['state']}")
        elif row["policy_fingerprint"] != digest:
            report("verdicts", clip_id, f"{name} judged it with other thresholds")
        elif (row["state"], tuple(row["reason_codes"])) != (verdict.state, verdict.codes):
            report(
                "verdicts", clip_id, f"{name} says {row['state']}, its scores say {verdict.state}"
            )
        elif tuple(row["flag_codes"] or verdict.flag_codes) != verdict.flag_codes:
            report("verdicts", clip_id, f"{name} flags it otherwise than its scores do")
    return len(rows)
