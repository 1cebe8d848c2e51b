"""Open the Parquet files of a dataset: few at a time, checked, each group of rows decoded once."""

import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from animaray.datasets.commit_log import CommittedFile
from animaray.datasets.schemas import check_schema
from animaray.platform.errors import DatasetError
from animaray.platform.stores import LocalStore, Store, is_remote

_MAX_OPEN = 32
_MAX_GROUPS = 4
_READERS = 16
"""Files of an object store that are asked for at once: an answer takes a round trip."""
_Found = TypeVar("_Found")
_Key = TypeVar("_Key", bound=Hashable)


class TableFiles:
    """Read row groups and columns of committed files; threads may share one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open: OrderedDict[str, pq.ParquetFile] = OrderedDict()
        self._groups: OrderedDict[tuple[str, int], pa.Table] = OrderedDict()
        self._lock = threading.RLock()

    def open(self, file: CommittedFile) -> pq.ParquetFile:
        """Open a file, refusing one that is damaged or of another schema than its table's.

        Raises:
            DatasetError: It is.
        """
        with self._reading(file) as where:
            if isinstance(self._store, LocalStore):
                source: Path | io.BufferedReader = self._store.root / file.path
            else:
                source = self._store.open(file.path)
            parquet = pq.ParquetFile(source, page_checksum_verification=True)
        check_schema(file.table.split("/")[0], parquet.schema_arrow, where)
        return parquet

    def group(self, file: CommittedFile, number: int) -> pa.Table:
        """Return all columns of a row group; the last few stay decoded.

        Raises:
            DatasetError: The file is damaged.
        """
        with self._lock:
            key = (file.path, number)
            if key not in self._groups:
                with self._reading(file):
                    self._groups[key] = self._kept_open(file).read_row_group(number)
            return _use(self._groups, key, _MAX_GROUPS)

    def uncached_group(self, file: CommittedFile, number: int) -> pa.Table:
        """Return a row group that is wanted once.

        Raises:
            DatasetError: The file is damaged, or has no such row group.
        """
        with self._lock, self._reading(file):
            return self._kept_open(file).read_row_group(number)

    def columns(
        self, files: Sequence[CommittedFile], columns: Sequence[str]
    ) -> list[tuple[pa.Table, list[int]]]:
        """Return some columns of files, those that a file has, and the sizes of its row groups."""

        def read(file: CommittedFile) -> tuple[pa.Table, list[int]]:
            parquet = self.open(file)
            with self._reading(file):
                return parquet.read(columns=list(columns)), group_sizes(parquet)

        return self.for_each(files, read)

    def for_each(
        self, files: Iterable[CommittedFile], read: Callable[[CommittedFile], _Found]
    ) -> list[_Found]:
        """Return what a function reads of each file, in order; side by side where it pays."""
        if not is_remote(self._store.address):
            return [read(file) for file in files]
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(read, files))

    def _kept_open(self, file: CommittedFile) -> pq.ParquetFile:
        if file.path not in self._open:
            self._open[file.path] = self.open(file)
        return _use(self._open, file.path, _MAX_OPEN)

    @contextmanager
    def _reading(self, file: CommittedFile) -> Iterator[str]:
        """Name the file where it cannot be read.

        Raises:
            DatasetError: It is missing or damaged.
        """
        where = f"{self._store}/{file.path}"
        try:
            yield where
        except (OSError, IndexError, pa.ArrowInvalid) as error:
            raise DatasetError(
                f"{where} is named by the commit log but missing or damaged: {error}.",
                fix="Restore it, or curate again into a new folder.",
                reason="damaged",
            ) from error


def group_sizes(parquet: pq.ParquetFile) -> list[int]:
    """Return the number of rows in each row group."""
    metadata = parquet.metadata
    return [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]


def _use(cache: "OrderedDict[_Key, _Found]", key: _Key, most: int) -> _Found:
    """Return an entry of a cache and forget those that were not used for longest."""
    cache.move_to_end(key)
    while len(cache) > most:
        cache.popitem(last=False)
    return cache[key]
