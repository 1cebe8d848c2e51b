"""Take the bytes of withdrawn sources out of a dataset folder; merge its many small files.

A withdrawal hides rows at once; compaction rewrites the files that still hold them and deletes
the old ones. Readers of the version before keep working until the old files are deleted, which
happens only after the commit of the new ones.
"""

import io
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from animaray.datasets.commit_log import Commit, CommitLog, CommittedFile, Snapshot, Writer
from animaray.datasets.encoded_index import ENCODED_DIR
from animaray.datasets.schemas import concat_versions, schema_of
from animaray.datasets.shards import key_of, write_media_shard, write_part, write_table
from animaray.datasets.table_rows import newest_rows, one_array
from animaray.datasets.vacuum import is_own_file
from animaray.datasets.writers import writing
from animaray.platform.stores import Store, open_store

MERGED_TABLES = ("sources", "clips", "verdicts")
_SMALL_ROWS = 4096
_IDS = ("clip_id", "source_id")
_PLACES = ("media_file", "media_row_group")


def compact(address: Path | str | Store) -> Commit | None:
    """Rewrite every file that holds rows of a withdrawn source, then delete the old files.

    Returns:
        The commit, or None when no file holds such rows.
    """
    store = open_store(address)
    with writing(store) as writer:
        return _compact(store, writer)


def _compact(store: Store, writer: Writer) -> Commit | None:
    log = CommitLog(store, writer)
    snapshot = log.snapshot()
    sources = pa.array(sorted(snapshot.withdrawn), type=pa.string())
    clips = {
        file: _table(store, file, ("clip_id", "source_id", "media_file"))
        for file in snapshot.of_table("clips")
    }
    own = [rows.filter(pc.is_in(rows["source_id"], value_set=sources)) for rows in clips.values()]
    hidden = pa.array([name for rows in own for name in rows["clip_id"].to_pylist()], pa.string())
    media = {name for rows in own for name in rows["media_file"].to_pylist() if name}
    store.check_room(_rewritten_bytes(snapshot, media), "Compacting")
    added: list[CommittedFile] = []
    removed: list[str] = []
    moved: dict[str, tuple[str, int]] = {}
    for file in snapshot.files:
        if file.table == "clips" or not _holds(store, file, hidden, sources):
            continue
        removed.append(file.path)
        if file.path.startswith(f"{ENCODED_DIR}/"):
            added += _rewrite_encoded(store, file, hidden, sources, writer.token)
        else:
            kept = _without(_table(store, file), hidden, sources)
            added += _rewrite(store, file, kept, moved, writer.token)
    away = pa.array(removed, type=pa.string())
    for file, facts in clips.items():
        is_changed = pc.is_in(facts["media_file"], value_set=away)
        is_changed = pc.or_(is_changed, pc.is_in(facts["clip_id"], value_set=hidden))
        if pc.any(is_changed).as_py():
            kept = _moved(_without(_table(store, file), hidden, sources), moved)
            removed.append(file.path)
            added += _rewrite(store, file, kept, moved, writer.token)
    commit = None
    if removed:
        withdrawn = sorted(snapshot.withdrawn)
        commit = log.commit(added, removed=removed, inputs=withdrawn, kind="compact")
    if snapshot.withdrawn:
        _delete_replaced(store, log)
    return commit


def _rewritten_bytes(snapshot: Snapshot, media: set[str]) -> int:
    """Return how large the files are that hold hidden clips, which are there twice for a while."""
    return sum(f.size_bytes for f in snapshot.files if f.table != "media" or f.path in media)


def _delete_replaced(store: Store, log: CommitLog) -> None:
    """Delete files that no longer count: they may hold rows of withdrawn sources, too."""
    counting = {file.path for file in log.snapshot().files}
    for entry in log.commits():
        for file in entry.files:
            # A log from elsewhere may name any path.
            if file.path not in counting and is_own_file(file.path):
                store.remove(file.path, "it was replaced, and may hold withdrawn rows")


def merge_small_files(
    address: Path | str | Store, *, min_files: int = 256, writer: Writer | None = None
) -> Commit | None:
    """Put the rows of many small files into one file per table, so that scans stay fast.

    A curation run commits every few sources and so leaves thousands of files; opening one costs as
    much as reading a thousand rows. Old files stay on disk for readers of earlier versions. Media,
    tracks and previews are read clip by clip and stay as they are.

    Args:
        min_files: Tables with fewer small files than this are left alone.
        writer: Who already writes; None takes the right to.

    Returns:
        The commit, or None when no table has so many small files.
    """
    store = open_store(address)
    by_table: dict[str, list[CommittedFile]] = {}
    for file in CommitLog(store).snapshot().files:
        if file.table.split("/")[0] in MERGED_TABLES and file.rows < _SMALL_ROWS:
            by_table.setdefault(file.table, []).append(file)
    many = {table: files for table, files in by_table.items() if len(files) >= min_files}
    if not many:
        return None
    with nullcontext(writer) if writer else writing(store) as mine:
        added = [_merge(store, table, files, mine.token) for table, files in many.items()]
        removed = [file.path for files in many.values() for file in files]
        return CommitLog(store, mine).commit(added, removed=removed, kind="merge")


def _merge(store: Store, table: str, files: Sequence[CommittedFile], token: str) -> CommittedFile:
    """Write the rows of files, the newest of each id, as one file."""
    name = table.split("/")[0]
    parts = [_table(store, file) for file in files]
    rows = concat_versions(name, parts, schema_of(name).names)
    _, places = newest_rows(one_array(rows[key_of(name)]))
    rows = rows if places is None else rows.take(pa.array(places))
    merged = rows.replace_schema_metadata(schema_of(name).metadata)
    return write_table(store, name, merged, folder=table, token=token)


def _rewrite(
    store: Store,
    file: CommittedFile,
    kept: pa.Table,
    moved: dict[str, tuple[str, int]],
    token: str,
) -> list[CommittedFile]:
    """Write what is left of a file; note in `moved` where videos went."""
    if not len(kept):
        return []
    name = file.table.split("/")[0]
    if name != "media":
        whole = concat_versions(name, [kept], schema_of(name).names)
        whole = whole.replace_schema_metadata(schema_of(name).metadata)
        return [write_table(store, name, whole, folder=file.table, token=token)]
    videos = {row["clip_id"]: row["video"]["bytes"] for row in kept.to_pylist()}
    media, groups = write_media_shard(store, videos, token=token)
    moved |= {clip_id: (media.path, group) for clip_id, group in groups.items()}
    return [media]


def _rewrite_encoded(
    store: Store,
    file: CommittedFile,
    clip_ids: pa.StringArray,
    sources: pa.StringArray,
    token: str,
) -> list[CommittedFile]:
    """Write encoded clips, or their index, without hidden ones.

    Row groups stay as they are: a reader takes one clip by its own.
    """
    buffer = io.BytesIO()
    num_kept = 0
    options = {"compression": "none", "use_dictionary": False}
    with store.open(file.path) as source:
        parquet = pq.ParquetFile(source)
        with pq.ParquetWriter(buffer, parquet.schema_arrow, **options) as writer:
            for number in range(parquet.num_row_groups):
                kept = _without(parquet.read_row_group(number), clip_ids, sources)
                num_kept += len(kept)
                if len(kept):
                    writer.write_table(kept)
    if not num_kept:
        return []
    folder = file.path.rpartition("/")[0]
    new = write_part(store, folder, buffer.getvalue(), num_kept, file.table, token=token)
    return [replace(new, table=file.table)]


def _moved(clips: pa.Table, moved: Mapping[str, tuple[str, int]]) -> pa.Table:
    """Say of clips where their videos went."""
    facts = zip(
        *(clips[name].to_pylist() for name in ("clip_id", *_PLACES)),
        strict=True,
    )
    places = [moved.get(clip_id, place) for clip_id, *place in facts]
    for number, name in enumerate(_PLACES):
        column = pa.array([place[number] for place in places], clips.schema.field(name).type)
        clips = clips.set_column(clips.schema.get_field_index(name), name, column)
    return clips


def _table(store: Store, file: CommittedFile, columns: Sequence[str] | None = None) -> pa.Table:
    with store.open(file.path) as source:
        return pq.ParquetFile(source).read(columns=columns)


def _holds(
    store: Store, file: CommittedFile, clip_ids: pa.StringArray, sources: pa.StringArray
) -> bool:
    """Return whether a file holds hidden rows; only its ids are read."""
    with store.open(file.path) as source:
        parquet = pq.ParquetFile(source)
        names = [name for name in _IDS if name in parquet.schema_arrow.names]
        ids = parquet.read(columns=names)
    return len(_without(ids, clip_ids, sources)) < len(ids)


def _without(rows: pa.Table, clip_ids: pa.StringArray, sources: pa.StringArray) -> pa.Table:
    """Return the rows that are not hidden."""
    for name, hidden in zip(_IDS, (clip_ids, sources), strict=True):
        if name in rows.column_names:
            rows = rows.filter(pc.invert(pc.is_in(rows[name], value_set=hidden)))
    return rows
