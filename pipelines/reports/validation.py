"""Check that a dataset keeps every promise of its format; each broken one is named with its row.

Nothing is repaired here.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from animaray.datasets.commit_log import CommitLog
from animaray.datasets.reader import CurationDataset
from animaray.datasets.schemas import SCORES, SOURCE_STATES
from animaray.datasets.table_rows import one_array
from animaray.datasets.vacuum import unnamed_files
from animaray.pipelines.policy.policies import Policy, policy_fingerprint
from animaray.pipelines.policy.rules import READS, columns_of_table, judge_columns
from animaray.pipelines.policy.verdicts import applied_policy
from animaray.pipelines.reports.validation_media import (
    check_encoded_clips,
    check_media,
    check_tracks,
)
from animaray.platform.errors import ConfigError, DatasetError
from animaray.platform.storage import content_id
from animaray.platform.stores import Store, open_store

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

_ROWS_AT_ONCE = 1 << 16
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


def validate(
    address: Path | str | Store, *, decode: bool = True, max_problems: int = 1000
) -> Validation:
    """Check every invariant of a dataset.

    Args:
        decode: Whether every stored video is decoded in full; else only its bytes are compared.
        max_problems: Stop listing after so many.

    Raises:
        DatasetError: There is no dataset at all.
    """
    store = open_store(address)
    problems: list[Problem] = []

    def report(invariant: str, subject: str, message: str) -> None:
        if len(problems) < max_problems:
            problems.append(Problem(invariant=invariant, subject=subject, message=message))

    try:
        dataset = CurationDataset.open(store)
    except DatasetError as error:
        if error.reason == "empty":
            raise
        report("log", str(store), error.message)
        return Validation(
            version=0, rows={}, problems=tuple(problems), num_decoded=0, unnamed_files=()
        )
    for line in CommitLog(store).verify():
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
            report("schema", str(store), error.message)
    return Validation(
        version=dataset.snapshot.version,
        rows=rows,
        problems=tuple(problems),
        num_decoded=num_decoded,
        unnamed_files=tuple(unnamed_files(store)),
    )


def _check_tables(dataset: CurationDataset, report: Report) -> dict[str, int]:
    for file in dataset.snapshot.files:
        if file.table.split("/")[0] in {"sources", "clips", "media", "tracks", "preview"}:
            dataset.open_file(file)
    _check_states(dataset, report)
    _check_scores(dataset, report)
    _check_clip_ids(dataset, report)
    clip_ids = dataset.table("clips", ["clip_id"])["clip_id"]
    num_sources = len(dataset.table("sources", ["input_id"]))
    counts = {"sources": num_sources, "clips": len(clip_ids)}
    counts |= _check_large_tables(dataset, clip_ids, report)
    for policy in dataset.policies():
        counts[f"verdicts/{policy}"] = _check_verdicts(dataset, policy, clip_ids, report)
    return counts


def _check_clip_ids(dataset: CurationDataset, report: Report) -> None:
    """Check that clips have sources, and the ids that source and span give them."""
    sources = dataset.table("sources", ["input_id", "source_id", "sha256"])
    known = one_array(sources["input_id"])
    spans = ("start_pts_90k", "end_pts_90k", "splitter")
    clips = dataset.table("clips", ["clip_id", "input_id", "source_id", *spans])
    for batch in clips.to_batches(max_chunksize=_ROWS_AT_ONCE):
        places = pc.index_in(batch["input_id"], value_set=known)
        own = sources.select(["source_id", "sha256"]).take(places)
        columns = [batch[name] for name in ("clip_id", "source_id")]
        columns += [own["source_id"], own["sha256"], *(batch[name] for name in spans)]
        rows = zip(*(column.to_pylist() for column in columns), strict=True)
        for clip_id, source_id, true_source_id, sha256, *span in rows:
            if true_source_id is None or true_source_id != source_id:
                report("references", clip_id, "its source is not in the sources table")
            elif clip_id != (expected := content_id("clip", sha256, *span)):
                report("clip_ids", clip_id, f"source and span make it {expected}")


def _check_large_tables(
    dataset: CurationDataset, clip_ids: pa.ChunkedArray, report: Report
) -> dict[str, int]:
    withdrawn = pa.array(sorted(dataset.withdrawn_clip_ids()), type=pa.string())
    known = pa.concat_arrays([one_array(clip_ids), withdrawn])
    counts = {}
    for table in ("media", "tracks", "preview"):
        found = dataset.large_table_ids(table)
        counts[table] = len(found)
        own = pa.table({"clip_id": found}).group_by("clip_id").aggregate([([], "count_all")])
        is_known = pc.is_in(own["clip_id"], value_set=known)
        for clip_id in sorted(own["clip_id"].filter(pc.invert(is_known)).to_pylist()):
            report("references", clip_id, f"{table} has a row for a clip that does not exist")
        often = own.filter(pc.and_(is_known, pc.greater(own["count_all"], 1)))
        for row in often.to_pylist():
            report("references", row["clip_id"], f"{table} has {row['count_all']} rows for it")
    return counts


def _check_states(dataset: CurationDataset, report: Report) -> None:
    rows = dataset.table("sources", ["input_id", "state", "reason", "num_clips"])
    is_known = pc.is_in(rows["state"], value_set=pa.array(SOURCE_STATES))
    for row in rows.filter(pc.invert(is_known)).to_pylist():
        text = f"state {row['state']!r} is none of {', '.join(SOURCE_STATES)}"
        report("states", row["input_id"], text)
    needs_reason = pc.invert(pc.is_in(rows["state"], value_set=pa.array(["kept", "expanded"])))
    lacks_one = pc.equal(rows["reason"].fill_null(""), "")
    for row in rows.filter(pc.and_(pc.and_(is_known, needs_reason), lacks_one)).to_pylist():
        report("states", row["input_id"], f"it is {row['state']} without a reason")
    own = dataset.table("clips", ["input_id"]).group_by("input_id").aggregate([([], "count_all")])
    places = pc.index_in(rows["input_id"], value_set=one_array(own["input_id"]))
    there = one_array(own["count_all"]).take(places).fill_null(0)
    rows = rows.append_column("there", there)
    differs = pc.not_equal(rows["num_clips"].fill_null(0), there)
    for row in rows.filter(differs).to_pylist():
        text = f"{row['num_clips']} clips declared, {row['there']} there"
        report("states", row["input_id"], text)


def _check_scores(dataset: CurationDataset, report: Report) -> None:
    for family, names in SCORES.items():
        rows = dataset.table("clips", ["clip_id", f"{family}_state", *names])
        is_empty = np.ones(len(rows), dtype=np.bool_)
        for name in names:
            column = rows[name]
            is_empty &= column.is_null().to_numpy()
            if not pa.types.is_integer(column.type) and not pa.types.is_floating(column.type):
                continue
            values = column.cast(pa.float64()).to_numpy()
            is_there = column.is_valid().to_numpy()
            wrong = is_there & ~np.isfinite(values)
            if name.endswith("_share"):
                wrong |= is_there & ~((values >= -1e-6) & (values <= 1.0 + 1e-6))
            for place in np.flatnonzero(wrong).tolist():
                value = column[place].as_py()
                outside = ", outside [0, 1]" if np.isfinite(value) else ""
                report("scores", rows["clip_id"][place].as_py(), f"{name} is {value}{outside}")
        is_empty &= pc.equal(rows[f"{family}_state"].fill_null(""), "ok").to_numpy()
        for place in np.flatnonzero(is_empty).tolist():
            text = f"family {family} is ok but has no score"
            report("scores", rows["clip_id"][place].as_py(), text)


def _check_verdicts(
    dataset: CurationDataset, name: str, clip_ids: pa.ChunkedArray, report: Report
) -> int:
    columns = ("clip_id", "state", "keep", "policy_fingerprint", "reason_codes", "flag_codes")
    rows = dataset.table(f"verdicts/{name}", columns)
    is_judged = pc.is_in(clip_ids, value_set=one_array(rows["clip_id"]))
    for clip_id in clip_ids.filter(pc.invert(is_judged)).to_pylist():
        report("verdicts", clip_id, f"{name} says nothing of it")
    is_known = pc.is_in(rows["clip_id"], value_set=one_array(clip_ids))
    for clip_id in rows["clip_id"].filter(pc.invert(is_known)).to_pylist():
        report("references", clip_id, f"verdicts/{name} judges a clip that does not exist")
    try:
        policy = applied_policy(dataset, name)
    except (DatasetError, ConfigError) as error:
        report("verdicts", name, f"its thresholds are unknown: {error.message}")
        return len(rows)
    # Both are sorted by clip, so what both know stands side by side.
    rows, clips = rows.filter(is_known), dataset.table("clips", READS).filter(is_judged)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        truth = judge_columns(columns_of_table(clips.slice(start, _ROWS_AT_ONCE)), policy)
        _compare_verdicts(rows.slice(start, _ROWS_AT_ONCE), truth.spelled(), policy, report)
    return dataset.table(f"verdicts/{name}", columns).num_rows


def _compare_verdicts(rows: pa.Table, truth: pa.Table, policy: Policy, report: Report) -> None:
    """Compare verdicts with what the scores say; only those that differ are looked at one by one.

    Verdicts of an older version know no flags.
    """
    digest = policy_fingerprint(policy)
    flags = pc.coalesce(rows["flag_codes"], truth["flag_codes"])
    is_same = pc.and_(
        pc.equal(rows["keep"], pc.equal(rows["state"], "keep")),
        pc.and_(
            pc.and_(
                pc.equal(rows["policy_fingerprint"], digest),
                pc.equal(rows["state"], truth["state"]),
            ),
            pc.and_(
                _are_equal(rows["reason_codes"], truth["reason_codes"]),
                _are_equal(flags, truth["flag_codes"]),
            ),
        ),
    )
    differs = ~is_same.to_numpy().astype(np.bool_)  # null, of a row without a state, differs, too
    for place in np.flatnonzero(differs).tolist():
        row, true = (table.slice(place, 1).to_pylist()[0] for table in (rows, truth))
        clip_id = row["clip_id"]
        if row["keep"] != (row["state"] == "keep"):
            text = f"{policy.name} keeps it although it is {row['state']}"
        elif row["policy_fingerprint"] != digest:
            text = f"{policy.name} judged it with other thresholds"
        elif (row["state"], row["reason_codes"]) != (true["state"], true["reason_codes"]):
            text = f"{policy.name} says {row['state']}, its scores say {true['state']}"
        elif row["flag_codes"] and row["flag_codes"] != true["flag_codes"]:
            text = f"{policy.name} flags it otherwise than its scores do"
        else:
            continue
        report("verdicts", clip_id, text)


def _are_equal(ours: pa.ChunkedArray, theirs: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return whether lists of words are equal, place by place."""
    return pc.equal(pc.binary_join(ours, "\n"), pc.binary_join(theirs, "\n"))
