"""Write the Parquet files of a dataset: complete, synced, named by their content.

Equal rows give the same name and bytes, so a task that runs twice leaves one file, and a file that
a commit names is never overwritten by another. Nothing is visible before the commit log names it.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from animaray.datasets.commit_log import CommittedFile
from animaray.datasets.schemas import SCHEMA_VERSION, table_of_rows
from animaray.platform.storage import content_id
from animaray.platform.stores import Store, open_store

_ROWS_PER_GROUP = {"tracks": 16, "preview": 16, "sources": 2048, "clips": 2048, "verdicts": 8192}
"""Small enough to decode one to read a single row: 2048 rows of clips take 10 ms."""
_KEYS = {"sources": "input_id"}


def write_shard(
    address: str | Path | Store,
    table: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    folder: str | None = None,
    token: str = "",
) -> CommittedFile:
    """Write rows as one file of a table.

    Args:
        rows: At least one row; sorted here by id.
        folder: Folder below the root, and the table's name in the commit log; None for `table`.
        token: Of the writer that is going to commit it.
    """
    key = key_of(table)
    ordered = sorted(rows, key=lambda row: row[key])
    return write_table(address, table, table_of_rows(table, ordered), folder=folder, token=token)


def write_table(
    address: str | Path | Store,
    table: str,
    rows: pa.Table,
    *,
    folder: str | None = None,
    token: str = "",
) -> CommittedFile:
    """Write an Arrow table of exactly the declared columns, sorted by id, as one file."""
    data, folder = _to_parquet(table, rows), folder or table
    return write_part(address, folder, data, len(rows), SCHEMA_VERSION, folder, token=token)


def write_part(
    address: str | Path | Store,
    folder: str,
    data: bytes,
    num_rows: int,
    *name_parts: object,
    token: str = "",
) -> CommittedFile:
    """Write a Parquet file below a folder, named by its content and what else makes its name.

    Args:
        token: Of the writer: in an object store no other writer gives the same name, so that
            whoever sweeps up after a dead one cannot hit a file of a living one.
    """
    digest = hashlib.sha256(data).hexdigest()
    own = (token,) if token else ()
    path = f"{folder}/part-{content_id(*name_parts, digest, *own)}.parquet"
    open_store(address).write(path, data)
    return CommittedFile(
        table=folder, path=path, rows=num_rows, size_bytes=len(data), sha256=digest
    )


def key_of(table: str) -> str:
    """Return the column that names the rows of a table."""
    return _KEYS.get(table, "clip_id")


def write_media_shard(
    address: str | Path | Store, videos: Mapping[str, bytes], *, token: str = ""
) -> tuple[CommittedFile, dict[str, int]]:
    """Write one mp4 per row and per row group, as plain byte ranges of the file.

    Args:
        videos: MP4 bytes by clip id.

    Returns:
        The file, and the row group of each clip.
    """
    clip_ids = sorted(videos)
    rows = [
        {"clip_id": clip_id, "video": {"bytes": videos[clip_id], "path": f"{clip_id}.mp4"}}
        for clip_id in clip_ids
    ]
    file = write_shard(address, "media", rows, token=token)
    return file, {clip_id: group for group, clip_id in enumerate(clip_ids)}


def _to_parquet(table: str, rows: pa.Table) -> bytes:
    buffer = io.BytesIO()
    if table == "media":
        # Video does not compress further; one row per group lets a reader take a single clip.
        options: dict[str, Any] = {
            "compression": "none",
            "use_dictionary": False,
            "write_statistics": False,
        }
        group = 1
    else:
        options = {"compression": "zstd", "write_page_checksum": True}
        group = _ROWS_PER_GROUP.get(table, 1 << 16)
    pq.write_table(rows, buffer, row_group_size=group, **options)
    return buffer.getvalue()
