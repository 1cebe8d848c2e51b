"""Which clips were encoded, and where each lies: one small table, no look into every shard.

    conditions/<encoder id>/index/part-<content id>.parquet

One row per encoded clip, per mirrored copy, and per clip that gave no row, with the reason. Shards
become visible in the same commit as their index; small index files are merged as they get many, so
that a table of any size is opened by reading a few files. The index follows the shards, not the
other way round: rows of files that no longer count are passed over, and a shard that no row names
is looked into.
"""

import io
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from animaray.datasets.commit_log import CommitLog, CommittedFile, Snapshot
from animaray.datasets.shards import write_part
from animaray.platform.errors import DatasetError
from animaray.platform.stores import Store

ENCODED_VERSION = 3
"""2: raw identities, further points; 3: posteriors, noisy references. The names of tables tell it;
an older one is encoded anew."""
ENCODED_DIR = "conditions"
COMMIT_KIND = "conditions"
VERSION_KEY = b"animaray_conditions_version"

INDEX_SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("source_id", pa.string(), nullable=False),
        pa.field("is_mirrored", pa.bool_(), nullable=False),
        pa.field("num_frames", pa.int32()),
        pa.field("has_further_points", pa.bool_()),
        pa.field("path", pa.string()),
        pa.field("row_group", pa.int32()),
        pa.field("why_skipped", pa.string()),
    ],
    metadata={VERSION_KEY: str(ENCODED_VERSION)},
)
"""`path` and what is said of it are null where a clip gave no row; `why_skipped` where it did."""
_FILE_COLUMNS = {
    "file_rows": pa.int64(),
    "file_size_bytes": pa.int64(),
    "file_sha256": pa.string(),
}
SHELVED_SCHEMA = pa.schema(
    [*INDEX_SCHEMA, *(pa.field(name, kind) for name, kind in _FILE_COLUMNS.items())]
)
"""What a worker hands back: index rows, and the facts of the file beside each."""
_INDEX_TABLE = "conditions_index"
_SMALL_ROWS = 1 << 16
_MERGED_AT = 32
_READERS = 16
"""Files of an object store that are asked for at once: an answer takes a round trip."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shelved:
    """Complete shards that no commit names yet, and what the index shall say of their clips."""

    files: tuple[CommittedFile, ...]
    rows: pa.Table
    """Of INDEX_SCHEMA."""

    def to_table(self) -> pa.Table:
        """Return index rows with the facts of each row's file beside them, to travel."""
        facts = {file.path: file for file in self.files}
        files = [facts.get(path) for path in self.rows["path"].to_pylist()]
        columns = {
            "file_rows": [file.rows if file else None for file in files],
            "file_size_bytes": [file.size_bytes if file else None for file in files],
            "file_sha256": [file.sha256 if file else None for file in files],
        }
        arrays = [pa.array(columns[name], type=kind) for name, kind in _FILE_COLUMNS.items()]
        return pa.table([*self.rows.columns, *arrays], schema=SHELVED_SCHEMA)

    def num_clips(self) -> int:
        """Return how many clips were tried, mirrored copies not counted."""
        return len(pc.unique(self.rows["clip_id"]))

    def skipped(self) -> dict[str, str]:
        """Return why clips gave no row, by id."""
        rows = self.rows.filter(pc.is_valid(self.rows["why_skipped"]))
        names, reasons = rows["clip_id"].to_pylist(), rows["why_skipped"].to_pylist()
        return dict(zip(names, reasons, strict=True))

    @classmethod
    def from_table(cls, travelled: pa.Table, encoder_id: str) -> "Shelved":
        """Return what `to_table` was called on."""
        names = ["path", "file_rows", "file_size_bytes", "file_sha256"]
        files = {
            row["path"]: CommittedFile(
                table=table_name(encoder_id),
                path=row["path"],
                rows=row["file_rows"],
                size_bytes=row["file_size_bytes"],
                sha256=row["file_sha256"],
            )
            for row in travelled.select(names).to_pylist()
            if row["path"] is not None
        }
        rows = travelled.select(INDEX_SCHEMA.names).cast(INDEX_SCHEMA)
        return cls(files=tuple(files.values()), rows=rows)


def table_name(encoder_id: str) -> str:
    """Return the name of a table of encoded clips in the commit log; also its folder."""
    return f"{ENCODED_DIR}/{encoder_id}"


def skipped_clip(clip_id: str, source_id: str, why: str) -> Shelved:
    """Return what is kept of a clip that gave no row."""
    row = {"clip_id": clip_id, "source_id": source_id, "is_mirrored": False, "why_skipped": why}
    return Shelved(files=(), rows=pa.Table.from_pylist([row], schema=INDEX_SCHEMA))


def join_shelved(parts: Iterable[Shelved]) -> Shelved:
    """Return several as one."""
    parts = list(parts)
    tables = [part.rows for part in parts] or [INDEX_SCHEMA.empty_table()]
    return Shelved(
        files=tuple(file for part in parts for file in part.files),
        rows=pa.concat_tables(tables),
    )


class EncodedCommits:
    """Makes shelved clips of one encoder visible, each commit with its part of the index."""

    def __init__(self, log: CommitLog, encoder_id: str, *, token: str = "") -> None:
        """Open the table of one encoder.

        Args:
            token: Of the log's writer, in the names of its files.
        """
        self._log = log
        self._encoder_id = encoder_id
        self._token = token
        self._small = self._small_files()

    def commit(self, shelved: Shelved) -> None:
        """Commit shards and index rows, all or none; small index files are merged on the way.

        Raises:
            DatasetError: The log cannot be written.
        """
        if len(self._small) < _MERGED_AT:
            self._append(shelved, shelved.rows, ())
            return
        try:
            merged = pa.concat_tables([*read_parts(self._log.store, self._small), shelved.rows])
            self._append(shelved, merged, [file.path for file in self._small])
        except DatasetError as error:
            if error.reason != "conflict":
                raise
            # Another run of the same encoder merged them first; ours is then one more small file.
            self._small = self._small_files()
            self._append(shelved, shelved.rows, ())

    def _append(self, shelved: Shelved, rows: pa.Table, removed: Sequence[str]) -> None:
        index = self._write(rows)
        self._log.commit(
            [*shelved.files, index],
            removed=removed,
            inputs=dict.fromkeys(shelved.rows["clip_id"].to_pylist()),
            kind=COMMIT_KIND,
            facts={"encoder_id": self._encoder_id, "skipped": shelved.skipped()},
        )
        small = [] if removed else self._small
        self._small = [*small, index] if index.rows < _SMALL_ROWS else small

    def _write(self, rows: pa.Table) -> CommittedFile:
        ordered = rows.sort_by([("clip_id", "ascending"), ("is_mirrored", "ascending")])
        buffer = io.BytesIO()
        pq.write_table(ordered, buffer, compression="zstd", write_page_checksum=True)
        folder = f"{table_name(self._encoder_id)}/index"
        data, store = buffer.getvalue(), self._log.store
        file = write_part(store, folder, data, len(rows), ENCODED_VERSION, token=self._token)
        return replace(file, table=_index_table(self._encoder_id))

    def _small_files(self) -> list[CommittedFile]:
        files = self._log.snapshot().of_table(_index_table(self._encoder_id))
        return [file for file in files if file.rows < _SMALL_ROWS]


def read_index(store: Store, snapshot: Snapshot, encoder_id: str) -> pa.Table:
    """Return the index of a table, one row a clip and copy, by clip id: withdrawn ones too.

    Raises:
        DatasetError: It is of another version, or damaged.
    """
    shards = {file.path: file for file in snapshot.of_table(table_name(encoder_id))}
    parts = read_parts(store, snapshot.of_table(_index_table(encoder_id)))
    known = pa.concat_tables([*parts, INDEX_SCHEMA.empty_table()])
    counts = pc.is_in(known["path"], value_set=pa.array(shards, type=pa.string()))
    known = known.filter(pc.or_(counts, pc.is_null(known["path"])))
    named = set(pc.unique(known["path"]).to_pylist())
    unnamed = [file for path, file in shards.items() if path not in named]
    rows = pa.concat_tables([known, *_for_each(_look_into, store, unnamed)])
    # Two runs at a time may have encoded one clip twice: one of the rows will do.
    keys = ["clip_id", "is_mirrored"]
    rows = rows.sort_by([(name, "ascending") for name in [*keys, "path"]]).combine_chunks()
    if len(rows) < 2:
        return rows
    same = [pc.equal(rows[name].chunk(0)[1:], rows[name].chunk(0)[:-1]) for name in keys]
    is_first = pc.invert(pc.and_(*same))
    return rows.filter(pa.concat_arrays([pa.array([True]), is_first]))


def read_parts(store: Store, files: Sequence[CommittedFile]) -> list[pa.Table]:
    """Return the rows of index files.

    Raises:
        DatasetError: One is of another version, or damaged.
    """
    return _for_each(_read_part, store, files)


def check_version(schema: pa.Schema, where: str) -> None:
    """Refuse a shard, or the index of shards, of another version.

    Raises:
        DatasetError: It is one.
    """
    found = (schema.metadata or {}).get(VERSION_KEY, b"none").decode()
    if found != str(ENCODED_VERSION):
        raise DatasetError(
            f"{where} has conditions version {found}, expected {ENCODED_VERSION}.",
            fix="Encode the dataset again; encoded clips can always be made anew.",
        )


def _index_table(encoder_id: str) -> str:
    return f"{_INDEX_TABLE}/{encoder_id}"


def _read_part(store: Store, file: CommittedFile) -> pa.Table:
    where = f"{store}/{file.path}"
    try:
        table = pq.read_table(io.BytesIO(store.read(file.path)))
    except (OSError, pa.ArrowInvalid) as error:
        raise DatasetError(
            f"{where} is named by the commit log but missing or damaged: {error}.",
            fix="Restore it, or encode again into a new folder.",
            reason="damaged",
        ) from error
    check_version(table.schema, where)
    return table.cast(INDEX_SCHEMA)


def _look_into(store: Store, file: CommittedFile) -> pa.Table:
    """Return the index rows of a shard that the index does not know."""
    with store.open(file.path) as source:
        shard = pq.ParquetFile(source)
        check_version(shard.schema_arrow, f"{store}/{file.path}")
        names = ["clip_id", "source_id", "is_mirrored", "num_frames", "further_points_shape"]
        rows = shard.read(columns=names)
    return index_rows(rows.select(names[:-1]), pc.is_valid(rows["further_points_shape"]), file.path)


def index_rows(facts: pa.Table, has_further_points: pa.ChunkedArray, path: str) -> pa.Table:
    """Return the index rows of a shard.

    Args:
        facts: clip_id, source_id, is_mirrored and num_frames of its rows, one a row group.
    """
    number = len(facts)
    others = {
        "has_further_points": has_further_points,
        "path": pa.array([path] * number),
        "row_group": pa.array(range(number)),
        "why_skipped": pa.nulls(number, pa.string()),
    }
    for name, column in others.items():
        facts = facts.append_column(name, column)
    return facts.select(INDEX_SCHEMA.names).replace_schema_metadata(None).cast(INDEX_SCHEMA)


def _for_each(
    read: Callable[[Store, CommittedFile], pa.Table],
    store: Store,
    files: Sequence[CommittedFile],
) -> list[pa.Table]:
    if len(files) < 2:
        return [read(store, file) for file in files]
    with ThreadPoolExecutor(min(_READERS, len(files))) as pool:
        return list(pool.map(lambda file: read(store, file), files))
