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
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from animaray.datasets.commit_log import Commit, CommitLog, CommittedFile, Snapshot, Writer
from animaray.datasets.encoded_index import ENCODED_DIR
from animaray.datasets.schemas import concat_versions, schema_of
from animaray.datasets.shards import key_of, write_media_shard, write_part, write_shard, write_table
from animaray.datasets.vacuum import is_own_file
from animaray.datasets.writers import writing
from animaray.platform.stores import Store, open_store

MERGED_TABLES = ("sources", "clips", "verdicts")
_SMALL_ROWS = 4096


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
    clip_rows = {file.path: _rows(store, file) for file in snapshot.of_table("clips")}
    everything = [row for rows in clip_rows.values() for row in rows]
    hidden = {row["clip_id"] for row in everything if row["source_id"] in snapshot.withdrawn}
    store.check_room(_rewritten_bytes(snapshot, everything, hidden), "Compacting")
    added: list[CommittedFile] = []
    removed: list[str] = []
    moved: dict[str, dict[str, Any]] = {}
    for file in snapshot.files:
        if file.table == "clips":
            continue
        if file.path.startswith(f"{ENCODED_DIR}/"):
            added_now = _without(store, file, hidden, snapshot.withdrawn, writer.token)
            removed += [] if added_now is None else [file.path]
            added += added_now or []
            continue
        rows = _rows(store, file)
        kept = [row for row in rows if not _is_hidden(row, hidden, snapshot.withdrawn)]
        if len(kept) < len(rows):
            removed.append(file.path)
            added += _rewrite(store, file, kept, moved, writer.token)
    for path, rows in clip_rows.items():
        kept = [{**row, **moved.get(row["clip_id"], {})} for row in rows]
        kept = [row for row in kept if row["clip_id"] not in hidden]
        if kept != rows:
            removed.append(path)
            added += [write_shard(store, "clips", kept, token=writer.token)] if kept else []
    commit = None
    if removed:
        withdrawn = sorted(snapshot.withdrawn)
        commit = log.commit(added, removed=removed, inputs=withdrawn, kind="compact")
    if snapshot.withdrawn:
        _delete_replaced(store, log)
    return commit


def _rewritten_bytes(
    snapshot: Snapshot, clips: Sequence[Mapping[str, Any]], hidden: set[str]
) -> int:
    """Return how large the files are that hold hidden clips, which are there twice for a while."""
    media = {clip["media_file"] for clip in clips if clip["clip_id"] in hidden}
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
    newest = {key: place for place, key in enumerate(rows[key_of(name)].to_pylist())}
    order = pa.array([newest[key] for key in sorted(newest)], type=pa.int64())
    merged = rows.take(order).replace_schema_metadata(schema_of(name).metadata)
    return write_table(store, name, merged, folder=table, token=token)


def _rewrite(
    store: Store,
    file: CommittedFile,
    kept: Sequence[dict[str, Any]],
    moved: dict[str, dict[str, Any]],
    token: str,
) -> list[CommittedFile]:
    """Write what is left of a file; note in `moved` where videos went."""
    if not kept:
        return []
    if file.table != "media":
        name = file.table.split("/")[0]
        return [write_shard(store, name, kept, folder=file.table, token=token)]
    videos = {row["clip_id"]: row["video"]["bytes"] for row in kept}
    media, groups = write_media_shard(store, videos, token=token)
    for clip_id, group in groups.items():
        moved[clip_id] = {"media_file": media.path, "media_row_group": group}
    return [media]


def _without(
    store: Store,
    file: CommittedFile,
    clip_ids: set[str],
    sources: frozenset[str],
    token: str,
) -> list[CommittedFile] | None:
    """Write encoded clips, or their index, without hidden ones; None where there are none.

    Row groups stay as they are: a reader takes one clip by its own.
    """
    with store.open(file.path) as source:
        parquet = pq.ParquetFile(source)
        facts = parquet.read(columns=["clip_id", "source_id"]).to_pylist()
        is_hidden = [_is_hidden(row, clip_ids, sources) for row in facts]
        if not any(is_hidden):
            return None
        buffer = io.BytesIO()
        with pq.ParquetWriter(
            buffer, parquet.schema_arrow, compression="none", use_dictionary=False
        ) as writer:
            start = 0
            for number in range(parquet.num_row_groups):
                rows = parquet.read_row_group(number)
                own = is_hidden[start : start + len(rows)]
                start += len(rows)
                kept = rows.filter(pa.array([not hidden for hidden in own]))
                if len(kept):
                    writer.write_table(kept)
    num_kept = is_hidden.count(False)
    if not num_kept:
        return []
    folder = file.path.rpartition("/")[0]
    new = write_part(store, folder, buffer.getvalue(), num_kept, file.table, token=token)
    return [replace(new, table=file.table)]


def _rows(store: Store, file: CommittedFile) -> list[dict[str, Any]]:
    return _table(store, file).to_pylist()


def _table(store: Store, file: CommittedFile) -> pa.Table:
    with store.open(file.path) as source:
        return pq.ParquetFile(source).read()


def _is_hidden(
    row: Mapping[str, Any], clip_ids: set[str], sources: Sequence[str] | frozenset[str]
) -> bool:
    return row.get("clip_id") in clip_ids or row.get("source_id") in sources
