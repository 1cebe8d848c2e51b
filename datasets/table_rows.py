"""Find rows by id: sorted ids in Arrow and where each row lies, never a Python object per row.

`TableRows` is one of the small tables (sources, clips, verdicts), read by column or by row.
`ClipRows` is one of the large ones (tracks, preview): a clip's row is looked for in the files alone
that were committed with the clip's input.
"""

import bisect
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int64

from animaray.datasets.commit_log import Commit, CommittedFile
from animaray.datasets.schemas import concat_versions, schema_of
from animaray.datasets.shards import key_of
from animaray.datasets.table_files import TableFiles, group_sizes

_MIN_BATCH_ROWS = 1024


class _Index(NamedTuple):
    """Which rows of a table count, and where they lie."""

    ids: pa.StringArray
    """Sorted, each once."""
    places: Int64[np.ndarray, " rows"] | None
    """Of each id's row in the files put one after the other; None where every row counts and they
    lie in the order of their ids, as in a file that was merged."""
    group_starts: Int64[np.ndarray, " groups"]
    """Place of the first row of each row group."""
    groups: list[tuple[CommittedFile, int]]
    """File and number of each row group."""


class TableRows:
    """The rows of a small table that count: the newest of each id, of no withdrawn source."""

    def __init__(
        self,
        files: TableFiles,
        committed: Sequence[CommittedFile],
        table: str,
        withdrawn: Iterable[str] = (),
    ) -> None:
        self._files = files
        self._committed = committed
        self._table = table.split("/")[0]
        self._withdrawn = sorted(withdrawn)
        self._columns: dict[str, pa.ChunkedArray] = {}

    @property
    def ids(self) -> pa.StringArray:
        """The ids, sorted; each once."""
        return self._index.ids

    def columns(self, names: Sequence[str] | None = None) -> pa.Table:
        """Return columns in the order of the ids; they stay in memory unless all are wanted."""
        if names is None:
            return self._read(schema_of(self._table).names)
        names = list(dict.fromkeys(names))
        if lacking := [name for name in names if name not in self._columns]:
            found = self._read(lacking)
            self._columns |= {name: found.column(name) for name in lacking}
        return pa.table({name: self._columns[name] for name in names})

    def row(self, key: str) -> dict[str, Any] | None:
        """Return one row, reading the row group that holds it; None where there is none."""
        found = find_id(self.ids, key)
        if found is None:
            return None
        _, places, group_starts, groups = self._index
        place = found if places is None else int(places[found])
        part = int(np.searchsorted(group_starts, place, side="right")) - 1
        rows = self._files.group(*groups[part]).slice(place - int(group_starts[part]), 1)
        return {**dict.fromkeys(schema_of(self._table).names), **rows.to_pylist()[0]}

    def _read(self, names: Sequence[str]) -> pa.Table:
        # With the ids: of a file that has none of the columns only the number of rows is known.
        read = list(dict.fromkeys([*names, key_of(self._table)]))
        found = [rows for rows, _ in self._files.columns(self._committed, read)]
        rows = concat_versions(self._table, found, read).select(list(names))
        places = self._index.places
        return rows if places is None else rows.combine_chunks().take(pa.array(places))

    @cached_property
    def _index(self) -> _Index:
        key = key_of(self._table)
        names = [key, "source_id"] if self._withdrawn else [key]
        found = self._files.columns(self._committed, names)
        sizes = [size for _, groups in found for size in groups]
        rows = concat_versions(self._table, [part for part, _ in found], names).combine_chunks()
        ids, places = newest_rows(one_array(rows.column(key)))
        if self._withdrawn:
            sources = one_array(rows.column("source_id"))
            sources = sources if places is None else sources.take(pa.array(places))
            is_shown = pc.invert(pc.is_in(sources, value_set=pa.array(self._withdrawn)))
            places = np.arange(len(ids)) if places is None else places
            places, ids = places[is_shown.to_numpy(zero_copy_only=False)], ids.filter(is_shown)
        return _Index(
            ids=ids,
            places=places,
            group_starts=np.array([0, *accumulate(sizes)][:-1], dtype=np.int64),
            groups=[
                (file, number)
                for file, (_, groups) in zip(self._committed, found, strict=True)
                for number in range(len(groups))
            ],
        )


def newest_rows(ids: pa.StringArray) -> tuple[pa.StringArray, Int64[np.ndarray, " ids"] | None]:
    """Return ids sorted, each once, and the last place of each; no places where they were so."""
    if len(ids) < 2 or pc.all(pc.less(ids[:-1], ids[1:])).as_py():
        return ids, None
    order = pc.sort_indices(ids)  # stable: of equal ids the newest comes last
    ids = ids.take(order)
    # An input that was tried again replaces what it left before.
    changes = pc.not_equal(ids[:-1], ids[1:]).to_numpy(zero_copy_only=False)
    is_last = np.append(changes, True)
    return ids.filter(pa.array(is_last)), order.to_numpy()[is_last].astype(np.int64)


class ClipRows:
    """The rows of a large table, one a clip; no file is opened before one of its clips is asked."""

    def __init__(
        self, files: TableFiles, committed: Sequence[CommittedFile], entries: Sequence[Commit]
    ) -> None:
        """Note which inputs each file holds.

        Args:
            committed: The table's files that count.
            entries: The log's entries: an `append` names the inputs whose rows its files hold.
        """
        self._files = files
        self._committed = committed
        counting = {file.path: file for file in committed}
        self._by_input: dict[str, list[CommittedFile]] = {}
        listed: set[str] = set()
        for entry in entries:
            own = [counting[file.path] for file in entry.files if file.path in counting]
            if own and entry.kind == "append" and entry.inputs:
                listed.update(file.path for file in own)
                for input_id in entry.inputs:
                    self._by_input[input_id] = own + self._by_input.get(input_id, [])
        # What was rewritten since then may hold clips of any input.
        self._rewritten = [file for file in committed if file.path not in listed]
        self._ids: dict[str, tuple[pa.StringArray, list[int]]] = {}

    def row(self, clip_id: str, input_id: str | None) -> dict[str, Any] | None:
        """Return the row of a clip, of a row group that is decoded once; None where there is none.

        Raises:
            DatasetError: A file is damaged.
        """
        found = self._find(clip_id, input_id)
        if found is None:
            return None
        file, place = found
        starts = [0, *accumulate(self._ids[file.path][1])]
        group = bisect.bisect_right(starts, place) - 1
        rows = self._files.group(file, group).slice(place - starts[group], 1)
        return {**dict.fromkeys(schema_of(file.table).names), **rows.to_pylist()[0]}

    def has(self, clip_id: str, input_id: str | None) -> bool:
        """Return whether there is a row for a clip."""
        return self._find(clip_id, input_id) is not None

    def batches(self, names: Sequence[str]) -> Iterator[pa.Table]:
        """Yield columns of all rows as they lie, about a thousand rows at a time."""
        for file in self._committed:
            with self._files.open(file) as parquet:
                numbers: list[int] = []
                for number, size in enumerate(sizes := group_sizes(parquet)):
                    numbers.append(number)
                    if number == len(sizes) - 1 or len(numbers) * size >= _MIN_BATCH_ROWS:
                        found = parquet.read_row_groups(numbers, columns=list(names))
                        yield concat_versions(file.table, [found], names)
                        numbers = []

    def _find(self, clip_id: str, input_id: str | None) -> tuple[CommittedFile, int] | None:
        """Return the newest file with a clip, and the place of its row there."""
        for file in self._by_input.get(input_id or "", ()):
            if (place := find_id(self._ids_of([file])[0], clip_id)) is not None:
                return file, place
        if not self._rewritten:
            return None
        ids, places, starts = self._rewritten_ids
        if (found := find_id(ids, clip_id)) is None:
            return None
        place = found if places is None else int(places[found])
        number = bisect.bisect_right(starts, place) - 1
        return self._rewritten[number], place - starts[number]

    @cached_property
    def _rewritten_ids(
        self,
    ) -> tuple[pa.StringArray, Int64[np.ndarray, " ids"] | None, list[int]]:
        """The ids of files that no entry lists by input, and where each file's rows begin."""
        found = self._ids_of(self._rewritten)
        return *newest_rows(pa.concat_arrays(found)), [0, *accumulate(len(ids) for ids in found)]

    def _ids_of(self, files: Sequence[CommittedFile]) -> list[pa.StringArray]:
        """Return the ids of each file, sorted as our writers leave them."""
        lacking = [file for file in files if file.path not in self._ids]
        read = self._files.columns(lacking, ["clip_id"])
        for file, (rows, sizes) in zip(lacking, read, strict=True):
            self._ids[file.path] = (one_array(rows.column("clip_id")), sizes)
        return [self._ids[file.path][0] for file in files]


def find_id(ids: pa.StringArray, wanted: str) -> int | None:
    """Return the place of an id among sorted ones; None where there is none."""
    place = bisect.bisect_left(ids, wanted, key=lambda scalar: scalar.as_py())
    return place if place < len(ids) and ids[place].as_py() == wanted else None


def one_array(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array."""
    found = column.combine_chunks()
    return found if isinstance(found, pa.Array) else pa.concat_arrays(found.chunks)
