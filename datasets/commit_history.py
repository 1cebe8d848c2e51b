"""Read the entries of a commit log, each once in a process, and follow their chain of hashes.

    _commits/00000001.json             an entry
    _commits/checkpoint-00001000.zst   the bytes of entries 1 to 1000, on object stores

A checkpoint saves a request per entry where a request takes a round trip. Nothing in it is trusted:
the entries' hashes are computed anew, and the chain must end in the entry that follows.
"""

import json
import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from animaray.datasets.commit_entries import (
    FENCE,
    Commit,
    Snapshot,
    digest_of,
    parse_entry,
    snapshot_of,
)
from animaray.platform.errors import DatasetError, StoreError
from animaray.platform.json_text import json_text
from animaray.platform.stores import LocalStore, Store

COMMITS_DIR = "_commits"
CHECKPOINT_ENTRIES = 1000
_ENTRY = re.compile(r"_commits/(\d{8})\.json")
_CHECKPOINT = re.compile(r"_commits/checkpoint-(\d{8})\.zst")
_REQUESTS = 32
"""Entries of an object store that are asked for at once."""
_MAX_HISTORIES = 4
_log = logging.getLogger("animaray.datasets")


def entry_path(version: int) -> str:
    """Return the path of an entry below the dataset's address."""
    return f"{COMMITS_DIR}/{version:08d}.json"


class History:
    """The entries of one log, as far as this process has read them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._entries: list[Commit] = []
        self._digests: list[str] = []
        self._marks: list[tuple[int, int] | None] = []
        """Size and time of each entry's file; None where its bytes came from a checkpoint."""
        self._fenced: set[str] = set()
        self._snapshot: Snapshot | None = None
        self._lock = threading.RLock()

    def newest(self) -> int:
        """Return the number of the newest entry; 0 when there is none. Reads no entry."""
        with self._lock:
            known = len(self._entries)
            found = self._listed(entry_path(known - 1)) if known else {}
            return max(found or self._listed(), default=0)

    def tip(self) -> tuple[int, str, frozenset[str]]:
        """Read what is new; return the newest number, its digest and the tokens fenced so far."""
        with self._lock:
            self._read_new(is_whole=False)
            digest = self._digests[-1] if self._digests else ""
            return len(self._entries), digest, frozenset(self._fenced)

    def entries(self, version: int | None = None) -> list[Commit]:
        """Return the entries up to a version, oldest first; None for all."""
        with self._lock:
            self._read_new(is_whole=True, version=version)
            return self._entries[:version]

    def snapshot(self, version: int | None = None) -> Snapshot:
        """Return what a reader sees at a version; None for the newest."""
        with self._lock:
            self._read_new(is_whole=True, version=version)
            if version is not None and version < len(self._entries):
                return snapshot_of(self._entries[:version])
            if self._snapshot is None:
                self._snapshot = snapshot_of(self._entries)
            return self._snapshot

    def write_checkpoints(self, version: int) -> None:
        """Put the checkpoints that are due after a commit; what fails is tried at the next one."""
        if version % CHECKPOINT_ENTRIES or isinstance(self._store, LocalStore):
            return
        with self._lock:
            try:
                self._read_new(is_whole=False)
                there = {number for number, _ in self._checkpoints()}
                due = range(CHECKPOINT_ENTRIES, len(self._entries) + 1, CHECKPOINT_ENTRIES)
                for last in set(due) - there:
                    numbers = range(last - CHECKPOINT_ENTRIES + 1, last + 1)
                    with ThreadPoolExecutor(_REQUESTS) as pool:
                        raws = pool.map(self._bytes, numbers)
                    texts = json_text([raw.decode() for raw in raws]).encode()
                    sink = pa.BufferOutputStream()
                    with pa.CompressedOutputStream(sink, "zstd") as packed:
                        packed.write(texts)
                    path = f"{COMMITS_DIR}/checkpoint-{last:08d}.zst"
                    self._store.write(path, sink.getvalue().to_pybytes())
            except (StoreError, DatasetError) as error:
                _log.warning("No checkpoint of the log was written: %s", error)

    def _read_new(self, *, is_whole: bool, version: int | None = None) -> None:
        """Read the entries that this process does not know.

        Args:
            is_whole: Look whether the files of known entries are as they were, too. Of an object
                store only the last one is looked at: a listing gives 1000 names a request.
            version: Newest entry wanted; None for all.
        """
        is_local = isinstance(self._store, LocalStore)
        if not self._entries and not is_local:
            self._read_checkpoints()
        known = len(self._entries)
        is_whole = is_local and is_whole
        found = self._listed(entry_path(known - 1) if known and not is_whole else "")
        kept = self._unchanged(found) if is_whole else known
        if known and not is_whole and not self._is_same(known, found.get(known)):
            kept, found = 0, self._listed()
        self._keep(kept)
        newest = version if version is not None else max(found, default=0)
        self._append(range(kept + 1, newest + 1), found)

    def _unchanged(self, found: dict[int, tuple[int, int]]) -> int:
        for number, mark in enumerate(self._marks, start=1):
            if found.get(number) != mark:
                return number - 1
        return len(self._marks)

    def _is_same(self, number: int, mark: tuple[int, int] | None) -> bool:
        """Return whether the last known entry is still there, as it was."""
        if mark is None:
            return False
        if self._marks[number - 1] is None:
            if digest_of(self._bytes(number)) != self._digests[number - 1]:
                return False
            self._marks[number - 1] = mark
        return self._marks[number - 1] == mark

    def _keep(self, number: int) -> None:
        """Forget entries after a number."""
        if number < len(self._entries):
            for values in (self._entries, self._digests, self._marks):
                del values[number:]
            self._fenced = {token for e in self._entries if e.kind == FENCE for token in e.inputs}
            self._snapshot = None

    def _append(self, numbers: range, found: dict[int, tuple[int, int]]) -> None:
        if isinstance(self._store, LocalStore) or len(numbers) < 2:
            self._add(numbers, map(self._bytes, numbers), found)
        else:
            with ThreadPoolExecutor(_REQUESTS) as pool:
                self._add(numbers, pool.map(self._bytes, numbers), found)

    def _add(
        self, numbers: range, raws: Iterable[bytes], found: dict[int, tuple[int, int]]
    ) -> None:
        """Take entries in after those that are known.

        Raises:
            DatasetError: An entry is damaged, or its parent is another one.
        """
        for number, raw in zip(numbers, raws, strict=True):
            try:
                entry = parse_entry(raw)
            except (ValueError, TypeError, KeyError) as error:
                raise self._damaged(number, str(error)) from error
            if entry.parent != (self._digests[-1] if self._digests else ""):
                raise DatasetError(
                    f"Entry {number} of {self._store}/{COMMITS_DIR} follows another history than "
                    "the one here.",
                    fix="Restore the _commits folder from a backup.",
                    reason="history",
                )
            self._entries.append(entry)
            self._digests.append(digest_of(raw))
            self._marks.append(found.get(number))
            if entry.kind == FENCE:
                self._fenced.update(entry.inputs)
            self._snapshot = None

    def _read_checkpoints(self) -> None:
        """Take in what checkpoints hold, as far as they follow each other."""
        paths: list[str] = []
        for number, path in sorted(self._checkpoints()):
            if number != (len(paths) + 1) * CHECKPOINT_ENTRIES:
                break
            paths.append(path)
        with ThreadPoolExecutor(_REQUESTS // 4) as pool:
            for place, packed in enumerate(pool.map(self._store.read, paths)):
                first = place * CHECKPOINT_ENTRIES + 1
                try:
                    raws = _unpacked(packed)
                    self._add(range(first, first + CHECKPOINT_ENTRIES), raws, {})
                except (ValueError, OSError, DatasetError) as error:
                    # It is derived data; the entries are there.
                    _log.warning("%s/%s is left aside: %s", self._store, paths[place], error)
                    self._keep(first - 1)
                    return

    def _checkpoints(self) -> list[tuple[int, str]]:
        files = self._store.files(COMMITS_DIR, after=f"{COMMITS_DIR}/checkpoint")
        found = [(_CHECKPOINT.fullmatch(file.path), file.path) for file in files]
        return [(int(match[1]), path) for match, path in found if match]

    def _listed(self, after: str = "") -> dict[int, tuple[int, int]]:
        return {
            int(match[1]): (file.size_bytes, file.modified_ns)
            for file in self._store.files(COMMITS_DIR, after=after)
            if (match := _ENTRY.fullmatch(file.path))
        }

    def _bytes(self, number: int) -> bytes:
        """Return an entry's bytes.

        Raises:
            DatasetError: There is none, or it cannot be read.
        """
        try:
            return self._store.read(entry_path(number))
        except OSError as error:
            raise self._damaged(number, error.strerror or "there is no such file") from error

    def _damaged(self, number: int, why: str) -> DatasetError:
        return DatasetError(
            f"Entry {number} of {self._store}/{COMMITS_DIR} is missing or damaged: {why}.",
            fix="Restore the _commits folder from a backup.",
            reason="history",
        )


_HISTORIES: "OrderedDict[str, History]" = OrderedDict()
_HISTORIES_LOCK = threading.Lock()


def history_of(store: Store) -> History:
    """Return what this process knows of a store's log; the last few logs are kept."""
    key = str(store.root.absolute()) if isinstance(store, LocalStore) else store.address
    with _HISTORIES_LOCK:
        history = _HISTORIES.setdefault(key, History(store))
        _HISTORIES.move_to_end(key)
        while len(_HISTORIES) > _MAX_HISTORIES:
            _HISTORIES.popitem(last=False)
        return history


def _unpacked(packed: bytes) -> Sequence[bytes]:
    with pa.CompressedInputStream(pa.BufferReader(packed), "zstd") as stream:
        texts = json.loads(stream.read())
    return [text.encode() for text in texts]
