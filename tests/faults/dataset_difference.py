"""Compare two curated datasets row for row and byte for byte, and look for what is left over.

Which shard a clip's video lies in depends on the order in which clips were finished, so places are
not compared; the videos themselves are. Nothing else may differ.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from animaray.datasets.commit_log import CommitLog
from animaray.datasets.shards import key_of
from animaray.datasets.vacuum import unnamed_files
from animaray.pipelines.reports.validation import validate

_PLACES = ("media_file", "media_row_group")
_MAX_LINES = 20


def read_tables(root: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the rows of each table of the newest version by id, the newest of each id."""
    tables: dict[str, dict[str, dict[str, Any]]] = {}
    for file in CommitLog(root).snapshot().files:
        table: pa.Table = pq.read_table(root / file.path)
        kept = table.select([name for name in table.column_names if name not in _PLACES])
        key = key_of(file.table.split("/")[0])
        tables.setdefault(file.table, {}).update({row[key]: row for row in kept.to_pylist()})
    return tables


def count_rows(root: Path) -> dict[str, int]:
    """Return the number of ids in each table."""
    return {name: len(rows) for name, rows in sorted(read_tables(root).items())}


def describe_differences(expected: Path, found: Path) -> list[str]:
    """Return one line for each row that is missing, too many or different; at most twenty."""
    ours, theirs = read_tables(found), read_tables(expected)
    lines = []
    for table in sorted(ours.keys() | theirs.keys()):
        mine, other = ours.get(table, {}), theirs.get(table, {})
        lines += [f"{table}: {row_id} is missing" for row_id in sorted(other.keys() - mine.keys())]
        lines += [f"{table}: {row_id} is new" for row_id in sorted(mine.keys() - other.keys())]
        for row_id in sorted(mine.keys() & other.keys()):
            columns = [
                column
                for column, value in other[row_id].items()
                # Two scores that are no number are equal, too.
                if mine[row_id][column] != value and repr(mine[row_id][column]) != repr(value)
            ]
            if columns:
                texts = [
                    f"{name} {str(other[row_id][name])[:60]} -> {str(mine[row_id][name])[:60]}"
                    for name in columns[:3]
                ]
                lines.append(f"{table}: {row_id} differs in {len(columns)}: {'; '.join(texts)}")
    return lines[:_MAX_LINES]


def find_left_overs(root: Path) -> list[str]:
    """Return rows that are there twice, files that nobody names, and every broken promise."""
    lines = []
    ids: dict[str, Counter[str]] = {}
    for file in CommitLog(root).snapshot().files:
        key = key_of(file.table.split("/")[0])
        column = pq.read_table(root / file.path, columns=[key])[key].to_pylist()
        ids.setdefault(file.table, Counter()).update(column)
    for name, counts in ids.items():
        lines += [f"{name}: {row_id} is there {n} times" for row_id, n in counts.items() if n > 1]
    inputs = Counter(
        input_id
        for entry in CommitLog(root).commits()
        if entry.kind == "append"
        for input_id in entry.inputs
    )
    lines += [
        f"input {input_id} was committed {n} times" for input_id, n in inputs.items() if n > 1
    ]
    lines += [f"left: {path}" for path in unnamed_files(root)]
    lines += [f"left: {path.name}" for path in root.glob("_staging*")]
    lines += [f"{p.invariant}: {p.subject} {p.message}" for p in validate(root).problems]
    return lines[:_MAX_LINES]
