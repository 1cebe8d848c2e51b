"""Compare two curated datasets row for row and byte for byte, and look for what is left over.

    python -m tests.faults.dataset_difference OLD NEW --ignore clips.media_sha256 preview

OLD and NEW are folders or addresses (s3://...). Which shard a clip's video lies in depends on the
order in which clips were finished, so places are not compared; the videos themselves are. What
may differ on purpose is named with `--ignore`: a table, or `table.column`, where `*` stands for
any table or column. Prints each table's rows and, for every column that differs, in how many rows
and by how much; exits 1 when something differs that was not named.
"""

import argparse
import hashlib
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from animaray.datasets.commit_log import CommitLog
from animaray.datasets.shards import key_of
from animaray.datasets.vacuum import unnamed_files
from animaray.pipelines.reports.validation import validate
from animaray.platform.json_text import json_text
from animaray.platform.stores import Store, open_store

Address = str | Path | Store
Table = dict[str, dict[str, Any]]
"""Rows by id."""

PLACES = ("sources.config",)
"""What differs between equal runs that write to different addresses: a setting is in it."""
_PLACES = ("media_file", "media_row_group")
_MAX_LINES = 20
_MAX_EXAMPLES = 3
_LONG_BYTES = 256


@dataclass(slots=True)
class TableDifference:
    """How one table of two datasets differs."""

    rows: tuple[int, int]
    """Expected and found."""
    missing: list[str] = field(default_factory=list)
    """Ids that only the expected one has."""
    new: list[str] = field(default_factory=list)
    """Ids that only the found one has."""
    columns: dict[str, list[str]] = field(default_factory=dict)
    """Ids of the rows that differ, by column."""
    largest: dict[str, float] = field(default_factory=dict)
    """Largest difference of a number, by column, as a share of the larger one."""
    examples: dict[str, list[str]] = field(default_factory=dict)
    """What stood there and what stands there now, by column."""


def read_tables(address: Address) -> dict[str, Table]:
    """Return the rows of each table of the newest version by id, the newest of each id."""
    store = open_store(address)
    tables: dict[str, Table] = {}
    for file in CommitLog(store).snapshot().files:
        with store.open(file.path) as opened:
            table: pa.Table = pq.read_table(opened)
        kept = table.select([name for name in table.column_names if name not in _PLACES])
        key = key_of(file.table.split("/")[0])
        rows = {row[key]: _shortened(row) for row in kept.to_pylist()}
        tables.setdefault(file.table, {}).update(rows)
    return tables


def _shortened(value: Any) -> Any:
    """Return a value with its digest in place of long bytes, so that a whole dataset fits."""
    if isinstance(value, dict):
        return {name: _shortened(each) for name, each in value.items()}
    if isinstance(value, bytes) and len(value) > _LONG_BYTES:
        return f"{len(value)} bytes, sha256 {hashlib.sha256(value).hexdigest()}"
    return value


def count_rows(address: Address) -> dict[str, int]:
    """Return the number of ids in each table."""
    return {name: len(rows) for name, rows in sorted(read_tables(address).items())}


def find_differences(
    expected: Address, found: Address, ignore: Sequence[str] = ()
) -> dict[str, TableDifference]:
    """Return each table with what differs in it.

    Args:
        ignore: Tables, and columns as `table.column`, that may differ; `*` stands for any.
    """
    theirs, ours = read_tables(expected), read_tables(found)
    names = sorted(theirs.keys() | ours.keys())
    return {
        name: _compare(name, theirs.get(name, {}), ours.get(name, {}), ignore)
        for name in names
        if not _is_ignored(name, ignore)
    }


def _compare(name: str, theirs: Table, ours: Table, ignore: Sequence[str]) -> TableDifference:
    difference = TableDifference(rows=(len(theirs), len(ours)))
    difference.missing = sorted(theirs.keys() - ours.keys())
    difference.new = sorted(ours.keys() - theirs.keys())
    for row_id in sorted(theirs.keys() & ours.keys()):
        old, new = theirs[row_id], ours[row_id]
        for column in sorted(old.keys() | new.keys()):
            if _is_ignored(f"{name}.{column}", ignore):
                continue
            before, after = old.get(column), new.get(column)
            # Two scores that are no number are equal, too.
            if before == after or repr(before) == repr(after):
                continue
            difference.columns.setdefault(column, []).append(row_id)
            size = _relative(before, after)
            difference.largest[column] = max(difference.largest.get(column, 0.0), size)
            examples = difference.examples.setdefault(column, [])
            if len(examples) < _MAX_EXAMPLES:
                examples.append(f"{row_id}: {str(before)[:80]} -> {str(after)[:80]}")
    return difference


def _is_ignored(name: str, ignore: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in ignore)


def _relative(before: object, after: object) -> float:
    """Return how far two numbers, or lists of them, lie apart; infinite where that says nothing."""
    try:
        one, other = np.asarray(before, dtype=float), np.asarray(after, dtype=float)
    except (TypeError, ValueError):
        return float("inf")
    if one.shape != other.shape or one.size == 0 or not np.isfinite(one - other).all():
        return float("inf")
    scale = max(float(np.abs(one).max()), float(np.abs(other).max()), 1e-12)
    return float(np.abs(one - other).max()) / scale


def describe_differences(
    expected: Address, found: Address, ignore: Sequence[str] = ()
) -> list[str]:
    """Return one line for each row that is missing, too many or different; at most twenty."""
    lines = []
    for table, difference in find_differences(expected, found, ignore).items():
        lines += [f"{table}: {row_id} is missing" for row_id in difference.missing]
        lines += [f"{table}: {row_id} is new" for row_id in difference.new]
        lines += [
            f"{table}.{column} differs in {len(row_ids)} rows: {difference.examples[column][0]}"
            for column, row_ids in difference.columns.items()
        ]
    return lines[:_MAX_LINES]


def find_left_overs(address: Address) -> list[str]:
    """Return rows that are there twice, files that nobody names, and every broken promise."""
    store = open_store(address)
    lines = []
    ids: dict[str, Counter[str]] = {}
    for file in CommitLog(store).snapshot().files:
        key = key_of(file.table.split("/")[0])
        with store.open(file.path) as opened:
            column = pq.read_table(opened, columns=[key])[key].to_pylist()
        ids.setdefault(file.table, Counter()).update(column)
    for name, counts in ids.items():
        lines += [f"{name}: {row_id} is there {n} times" for row_id, n in counts.items() if n > 1]
    inputs = Counter(
        input_id
        for entry in CommitLog(store).commits()
        if entry.kind == "append"
        for input_id in entry.inputs
    )
    lines += [
        f"input {input_id} was committed {n} times" for input_id, n in inputs.items() if n > 1
    ]
    lines += [f"left: {path}" for path in unnamed_files(store)]
    lines += sorted({f"left: {_top(file.path)}" for file in store.files("_staging")})
    if isinstance(address, Path):
        lines += [f"left: {path.name}" for path in address.glob("_staging*")]
    lines += [f"{p.invariant}: {p.subject} {p.message}" for p in validate(store).problems]
    return lines[:_MAX_LINES]


def _top(path: str) -> str:
    return "/".join(path.split("/")[:2])


def as_document(differences: Mapping[str, TableDifference]) -> dict[str, Any]:
    """Return differences as a JSON document that a person can read; equal tables are one word."""
    return {table: _as_document(difference) for table, difference in differences.items()}


def _as_document(difference: TableDifference) -> dict[str, Any] | str:
    expected, found = difference.rows
    if not (difference.missing or difference.new or difference.columns):
        return f"{expected} rows, equal"
    columns = {
        column: {
            "rows": len(row_ids),
            "by_at_most": round(size, 6) if np.isfinite(size := difference.largest[column]) else "",
            "examples": difference.examples[column],
        }
        for column, row_ids in difference.columns.items()
    }
    return {
        "rows": f"{expected}, found {found}",
        "missing": len(difference.missing), "new": len(difference.new),
        "such as": [*difference.missing[:_MAX_EXAMPLES], *difference.new[:_MAX_EXAMPLES]],
        "columns": columns,
    }  # fmt: skip


def main() -> int:
    """Print what differs; 0 when nothing does."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("expected", help="A folder or an address")
    parser.add_argument("found", help="A folder or an address")
    parser.add_argument("--ignore", nargs="*", default=[], help="Tables, or table.column, with *")
    arguments = parser.parse_args()
    differences = find_differences(arguments.expected, arguments.found, arguments.ignore)
    print(json_text(as_document(differences), indent=1))
    differing = [n for n, d in differences.items() if d.missing or d.new or d.columns]
    rows = sum(difference.rows[0] for difference in differences.values())
    print(f"{rows} rows compared; differing tables: {', '.join(differing) or 'none'}")
    return int(bool(differing) or rows == 0)


if __name__ == "__main__":
    sys.exit(main())
