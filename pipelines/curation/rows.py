"""Rows of curation between its stages: Arrow, with every column from the start, null until known.

A stage takes and returns one row as a dict; between stages it is a row of one of these schemas, so
that the engine, its statistics and any other tool can look into a stage while it runs. Videos never
travel: rows carry paths, scores and what was written where.
"""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import pyarrow as pa

from animaray.datasets.commit_log import CommittedFile
from animaray.datasets.schemas import schema_of
from animaray.pipelines.stages import clips as split_stage
from animaray.platform.errors import DatasetError

Row = dict[str, Any]

_HOW = pa.schema([("state", pa.string()), ("reason", pa.string()), ("detail", pa.string())])
_SECONDS = pa.field("seconds", pa.map_(pa.string(), pa.float64()))
_SHOTS = pa.list_(
    pa.struct([("start_s", pa.float64()), ("end_s", pa.float64()), ("cut_before", pa.bool_()),
               ("cut_after", pa.bool_())])
)  # fmt: skip
_TOLD_AT_COMMIT = frozenset({"num_clips", "profile", "policy", "code", "config"})
_TABLE = [field for field in schema_of("sources") if field.name not in _TOLD_AT_COMMIT]

SOURCE = pa.schema(
    [
        *_TABLE,
        ("path", pa.string()),
        ("root", pa.string()),
        ("is_remote", pa.bool_()),
        ("frame_rate_fps", pa.float64()),
        ("is_variable_fps", pa.bool_()),
        ("has_plain_clock", pa.bool_()),
        ("shots", _SHOTS),
        _SECONDS,
    ]
)
"""A source, from its place to its shots: the columns of the table, and what later stages need."""

_DROPPED = frozenset({*split_stage.DROPS, "cut_times_s"})
CLIP = pa.schema(
    [
        *(field for field in SOURCE if field.name not in _DROPPED),
        ("clip_id", pa.string()),
        ("clip_start_s", pa.float64()),
        ("clip_end_s", pa.float64()),
        ("start_pts_90k", pa.int64()),
        ("end_pts_90k", pa.int64()),
        ("splitter", pa.string()),
        ("clip_index", pa.int64()),
        ("num_clips", pa.int64()),
    ]
)
"""A clip that is to be cut out."""
GROUP = pa.schema([("clips", pa.list_(pa.struct(list(CLIP))))])
"""Clips that one worker measures in turn and shelves together."""

_FILE = pa.struct(
    [(each.name, pa.int64() if each.type is int else pa.string()) for each in fields(CommittedFile)]
)
SHELVED = pa.schema(
    [
        *schema_of("clips"),
        *_HOW,
        _SECONDS,
        ("verdicts", pa.list_(pa.struct(list(schema_of("verdicts"))))),
        ("files", pa.list_(_FILE)),
    ]
)
"""A clip that was measured, judged and shelved: its row of the clips table, what every policy says,
and, in the first row of a group, the files that hold the group's videos, tracks and previews."""


def new_row(path: str, root: str) -> Row:
    """Return the row of one input file before any stage."""
    return {
        "path": path, "root": root, "state": None, "reason": None, "detail": None,
        "seconds": {},
    }  # fmt: skip


def table_of(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Return rows as Arrow; what a row lacks is null.

    Raises:
        DatasetError: A row has a column that the schema does not declare, or a value of another
            type.
    """
    rows = [dict(row) for row in rows]
    for row in rows:
        if unknown := sorted(set(row) - set(schema.names)):
            raise DatasetError(f"A row of curation has columns that nobody declared: {unknown}.")
    try:
        return pa.Table.from_pylist(rows, schema=schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DatasetError(f"A row of curation does not fit its columns: {error}") from error


def rows_of(table: pa.Table) -> list[Row]:
    """Return the rows of a stage as dicts."""
    rows: list[Row] = table.to_pylist(maps_as_pydicts="strict")
    return rows
