"""Read single rows of shards: from where they lie, or from copies on this machine's own disk.

A cache holds whole shards under the SHA-256 that their commit names, each checked when it comes,
up to a size; what was not used for longest goes first. All processes of a machine share one.
"""

import fcntl
import hashlib
import io
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import platformdirs
import pyarrow as pa
import pyarrow.parquet as pq

from animaray.datasets.commit_log import CommittedFile
from animaray.platform.errors import DatasetError, DiskError
from animaray.platform.removal import remove, remove_own
from animaray.platform.storage import make_folder, write_bytes_atomic
from animaray.platform.stores import LocalStore, Store

_MAX_OPEN = 256
_SHARD_NAME = re.compile(r"[0-9a-f]{64}\.parquet")
_OWN_NAME = re.compile(
    r"[0-9a-f]{64}\.parquet|\.[0-9a-f]{64}\.parquet\.[0-9a-f]{8}\.tmp|[0-9a-f]{2}\.lock|room\.lock"
)


def shard_cache_dir() -> Path:
    """Return the folder for copies of shards where no setting names one."""
    base = os.environ.get("ANIMARAY_CACHE_DIR") or platformdirs.user_cache_dir("animaray")
    return Path(base) / "shards"


def prune_shard_cache() -> list[Path]:
    """Remove every copy of a shard from the usual folder; return what was removed."""
    return remove_own(shard_cache_dir(), _OWN_NAME, "the shard cache is pruned")


class ShardCache:
    """Copies of shards in a local folder, at most so many bytes together."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def fetch(self, store: Store, file: CommittedFile) -> Path | None:
        """Return a copy of a shard, made now unless it is there; None where it has no room.

        The copy may be gone a moment later, when another process needs its room.

        Raises:
            DatasetError: The shard is not what its commit says.
        """
        if file.size_bytes > self._max_bytes:
            return None
        copy = self._folder / f"{file.sha256}.parquet"
        if self._is_there(copy, file):
            return copy
        try:
            make_folder(self._folder)
            # The processes of a machine wait for the one that fetches what they want, too.
            with self._lock(f"{file.sha256[:2]}.lock"):
                if not self._is_there(copy, file):
                    data = store.read(file.path)
                    _check(data, file, f"{store}/{file.path}")
                    with self._lock("room.lock"):
                        self._make_room(len(data))
                        write_bytes_atomic(copy, data)
        except DiskError:
            return None  # it is read where it lies
        return copy

    @staticmethod
    def _is_there(copy: Path, file: CommittedFile) -> bool:
        try:
            is_whole = copy.stat().st_size == file.size_bytes
            if is_whole:
                os.utime(copy)  # what was used last goes last
        except FileNotFoundError:
            return False
        return is_whole

    def _make_room(self, needed: int) -> None:
        copies = []
        with os.scandir(self._folder) as found:
            for entry in found:
                if _SHARD_NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    status = entry.stat()
                    copies.append((status.st_mtime_ns, status.st_size, entry.name))
        total = sum(size for _, size, _ in copies)
        for _, size, name in sorted(copies):
            if total + needed <= self._max_bytes:
                break
            if remove(self._folder / name, "the shard cache is full"):
                total -= size

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        with (self._folder / name).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


class ShardRows:
    """Read row groups of one row each from the shards of one table; threads may share one."""

    def __init__(
        self, store: Store, files: Iterable[CommittedFile], cache: ShardCache | None = None
    ) -> None:
        self._store = store
        self._cache = cache
        self._files = {file.path: file for file in files}
        self._open: OrderedDict[str, tuple[pq.ParquetFile, threading.Lock]] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: str, group: int) -> tuple[pa.Schema, dict[str, Any]]:
        """Return the schema of a shard, and the row of one of its groups.

        Raises:
            DatasetError: The shard is missing or damaged.
        """
        try:
            shard, lock = self._shard(path)
            with lock:
                row = shard.read_row_group(group).to_pylist()[0]
        except (OSError, pa.ArrowInvalid) as error:
            raise DatasetError(
                f"{self._store}/{path} is named by the commit log but missing or damaged: {error}.",
                fix="Restore it; or encode again into a copy of the dataset without conditions/.",
                reason="damaged",
            ) from error
        return shard.schema_arrow, row

    def _shard(self, path: str) -> tuple[pq.ParquetFile, threading.Lock]:
        with self._lock:
            if path in self._open:
                self._open.move_to_end(path)
                return self._open[path]
        opened = self._open_shard(self._files[path]), threading.Lock()
        with self._lock:
            self._open[path] = opened
            while len(self._open) > _MAX_OPEN:
                self._open.popitem(last=False)
        return opened

    def _open_shard(self, file: CommittedFile) -> pq.ParquetFile:
        source: Path | io.BufferedReader | None = None
        if self._cache is not None:
            source = self._cache.fetch(self._store, file)
            if source is not None:
                try:
                    return pq.ParquetFile(source, memory_map=True)
                except FileNotFoundError:  # another process needed its room
                    source = None
        if isinstance(self._store, LocalStore):
            return pq.ParquetFile(self._store.root / file.path, memory_map=True)
        # All columns of a row group lie side by side: together they are one range.
        return pq.ParquetFile(self._store.open(file.path), pre_buffer=True)


def _check(data: bytes, file: CommittedFile, where: str) -> None:
    if len(data) != file.size_bytes or hashlib.sha256(data).hexdigest() != file.sha256:
        raise DatasetError(
            f"{where} is not what its commit names: {len(data)} bytes, or another checksum.",
            fix="Restore it, or encode the dataset again.",
            reason="damaged",
        )
