"""Take the bytes of withdrawn sources out of a dataset folder.

A withdrawal hides rows at once; compaction rewrites the files that still hold them and deletes
the old ones. Readers of the version before keep working until the old files are deleted, which
happens only after the commit of the new ones.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from animaray.datasets.commit_log import Commit, CommitLog, CommittedFile
from animaray.datasets.shards import write_media_shard, write_shard


def compact(root: Path | str) -> Commit | None:
    """Rewrite every file that holds rows of a withdrawn source, then delete the old files.

    Args:
        root: Dataset folder.

    Returns:
        The commit, or None when no file holds such rows.
    """
    root = Path(root)
    log = CommitLog(root)
    snapshot = log.snapshot()
    clip_rows = {file.path: _rows(root, file) for file in snapshot.of_table("clips")}
    everything = [row for rows in clip_rows.values() for row in rows]
    hidden = {row["clip_id"] for row in everything if row["source_id"] in snapshot.withdrawn}
    added: list[CommittedFile] = []
    removed: list[str] = []
    moved: dict[str, dict[str, Any]] = {}
    for file in snapshot.files:
        if file.table == "clips":
            continue
        rows = _rows(root, file)
        kept = [row for row in rows if not _is_hidden(row, hidden, snapshot.withdrawn)]
        if len(kept) < len(rows):
            removed.append(file.path)
            added += _rewrite(root, file, kept, moved)
    for path, rows in clip_rows.items():
        kept = [{**row, **moved.get(row["clip_id"], {})} for row in rows]
        kept = [row for row in kept if row["clip_id"] not in hidden]
        if kept != rows:
            removed.append(path)
            added += [write_shard(root, "clips", kept)] if kept else []
    if not removed:
        return None
    commit = log.commit(added, removed=removed, inputs=sorted(snapshot.withdrawn), kind="compact")
    for path in removed:
        (root / path).unlink(missing_ok=True)
    return commit


def _rewrite(
    root: Path,
    file: CommittedFile,
    kept: Sequence[dict[str, Any]],
    moved: dict[str, dict[str, Any]],
) -> list[CommittedFile]:
    """Write what is left of a file; note in `moved` where videos went."""
    if not kept:
        return []
    if file.table != "media":
        return [write_shard(root, file.table.split("/")[0], kept, folder=file.table)]
    media, groups = write_media_shard(root, {row["clip_id"]: row["video"]["bytes"] for row in kept})
    for clip_id, group in groups.items():
        moved[clip_id] = {"media_file": media.path, "media_row_group": group}
    return [media]


def _rows(root: Path, file: CommittedFile) -> list[dict[str, Any]]:
    return pq.read_table(root / file.path).to_pylist()


def _is_hidden(
    row: Mapping[str, Any], clip_ids: set[str], sources: Sequence[str] | frozenset[str]
) -> bool:
    return row.get("clip_id") in clip_ids or row.get("source_id") in sources
