"""The commit log of a dataset folder: numbered JSON entries, appended only.

    _commits/00000001.json   {"version", "parent", "kind", "files", "removed", "inputs", ...}

Readers see only files that an entry names. Files are complete and synced before their entry is;
the entry is put only if its number is free, so of two writers one wins and the other tries again
on top of it. `parent` is the SHA-256 of the entry before, so that a changed history shows.

Where no lock holds, in an object store, an entry of kind `fence` ends the right of writers that
were silent for too long (datasets/writers.py): a commit reads what was added since its writer
began, and takes a number only if it is free, so no writer commits after its fence.
"""

import hashlib
import json
import secrets
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from animaray.platform.errors import DatasetError
from animaray.platform.json_text import json_text
from animaray.platform.stores import LocalStore, Store, open_store

COMMITS_DIR = "_commits"
FENCE = "fence"
_MAX_ATTEMPTS = 50
_READERS = 16
"""Entries that are asked for at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CommittedFile:
    """One complete file of a dataset."""

    table: str
    """Name of the table it belongs to; `verdicts/<policy>` for verdicts."""
    path: str
    """Relative to the dataset folder, with forward slashes."""
    rows: int
    """Number of rows."""
    size_bytes: int
    """Length of the file, bytes."""
    sha256: str
    """Of the file's bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    """One entry of the log."""

    version: int
    """1 for the first; also the file name."""
    parent: str
    """SHA-256 of the entry before; empty for the first."""
    kind: str
    """append, verdicts, withdraw or compact."""
    files: tuple[CommittedFile, ...] = ()
    """Files that this entry adds."""
    removed: tuple[str, ...] = ()
    """Paths of files that no longer count."""
    inputs: tuple[str, ...] = ()
    """Ids of the inputs whose results the files hold, or of the sources withdrawn."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What made it: code version, configuration fingerprint, reason of a withdrawal."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """What a reader sees at one version."""

    version: int
    """0 for an empty dataset."""
    files: tuple[CommittedFile, ...]
    """Files that count, in the order in which they were committed."""
    withdrawn: frozenset[str]
    """Ids of sources whose rows readers must skip."""
    entries: tuple[Commit, ...] = ()
    """The entries up to this version, oldest first."""

    def of_table(self, table: str) -> list[CommittedFile]:
        """Return the files of one table."""
        return [file for file in self.files if file.table == table]


@dataclass(slots=True)
class Writer:
    """Who writes files and commits them; `datasets.writers.writing` hands it out."""

    token: str = ""
    """Part of the names of its files; empty where the system's locks hold."""
    seen: int = 0
    """Entries up to this number do not fence it."""


class CommitLog:
    """Append to and read the log of one dataset."""

    def __init__(self, address: str | Path | Store, writer: Writer | None = None) -> None:
        self.store = open_store(address)
        self._writer = writer or Writer()

    def head(self) -> int:
        """Return the newest version; 0 when there is none."""
        return max(self._versions(), default=0)

    def commit(
        self,
        files: Sequence[CommittedFile] = (),
        *,
        inputs: Iterable[str] = (),
        removed: Iterable[str] = (),
        kind: str = "append",
        facts: dict[str, Any] | None = None,
    ) -> Commit:
        """Make files visible, all or none.

        Args:
            files: Complete and synced files, as the shard writers return them.
            inputs: Ids of the inputs whose results they hold.
            removed: Paths of files that no longer count; they must count until now.
            kind: append, verdicts, withdraw or compact.
            facts: What made it, for people and for reproduction.

        Raises:
            DatasetError: Another writer removed the same files, this one was silent for so long
                that another took over, or the log cannot be written.
        """
        self.store.settle(sorted({file.path.rpartition("/")[0] for file in files}))
        removed = tuple(removed)
        facts = dict(facts or {})
        if not isinstance(self.store, LocalStore):
            # An entry whose answer was lost is told from another writer's by its bytes.
            facts |= {"writer": self._writer.token, "nonce": secrets.token_hex(8)}
        for _ in range(_MAX_ATTEMPTS):
            head = self.head()
            self._check_fences(head)
            self._check_removals(removed)
            commit = Commit(
                version=head + 1,
                parent=self._digest(head),
                kind=kind,
                files=tuple(files),
                removed=removed,
                inputs=tuple(inputs),
                facts=facts,
            )
            data = (json_text(asdict(commit), indent=1, sort_keys=True) + "\n").encode()
            if self.store.write_if_absent(self._path(commit.version), data):
                return commit
        raise DatasetError(
            f"Could not append to {self._place}: {_MAX_ATTEMPTS} other writers came first.",
            fix="Let one writer work at a time.",
            reason="conflict",
        )

    def withdraw(self, source_ids: Iterable[str], reason: str) -> Commit:
        """Hide every row of some sources from now on (a takedown); bytes go at compaction."""
        return self.commit(inputs=source_ids, kind="withdraw", facts={"reason": reason})

    def commits(self, version: int | None = None) -> list[Commit]:
        """Return all entries up to a version, oldest first.

        Args:
            version: Newest entry wanted; None for all.

        Raises:
            DatasetError: An entry is missing or damaged, or its parent is another one.
        """
        head = self.head() if version is None else version
        entries = []
        parent = ""
        for number, data in self._bytes_of(range(1, head + 1)):
            entry = self._parse(number, data)
            if entry.parent != parent:
                raise DatasetError(
                    f"Entry {number} of {self._place} follows another history than the one here.",
                    fix="Restore the _commits folder from a backup.",
                    reason="history",
                )
            parent = hashlib.sha256(data).hexdigest()
            entries.append(entry)
        return entries

    def snapshot(self, version: int | None = None) -> Snapshot:
        """Return what a reader sees at a version; None for the newest."""
        files: dict[str, CommittedFile] = {}
        withdrawn: set[str] = set()
        entries = tuple(self.commits(version))
        for entry in entries:
            for path in entry.removed:
                files.pop(path, None)
            files.update({file.path: file for file in entry.files})
            if entry.kind == "withdraw":
                withdrawn.update(entry.inputs)
        return Snapshot(
            version=entries[-1].version if entries else 0,
            files=tuple(files.values()),
            withdrawn=frozenset(withdrawn),
            entries=entries,
        )

    def verify(self) -> list[str]:
        """Return one line per file that is missing or whose bytes changed; empty when sound."""
        problems = []
        for file in self.snapshot().files:
            size = self.store.size(file.path)
            if size is None:
                problems.append(f"{file.path}: missing")
            elif size != file.size_bytes:
                problems.append(f"{file.path}: {size} bytes, not {file.size_bytes}")
            elif self._sha256(file.path) != file.sha256:
                problems.append(f"{file.path}: checksum differs")
        return problems

    @property
    def _place(self) -> str:
        return f"{self.store}/{COMMITS_DIR}"

    def _sha256(self, path: str) -> str:
        with self.store.open(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _versions(self) -> list[int]:
        names = (file.path.rpartition("/")[2] for file in self.store.files(COMMITS_DIR))
        return [int(name[:8]) for name in names if len(name) == 13 and name.endswith(".json")]

    def _path(self, version: int) -> str:
        return f"{COMMITS_DIR}/{version:08d}.json"

    def _digest(self, version: int) -> str:
        return hashlib.sha256(self._bytes(version)).hexdigest() if version else ""

    def _bytes_of(self, versions: range) -> Iterable[tuple[int, bytes]]:
        if isinstance(self.store, LocalStore):
            return ((number, self._bytes(number)) for number in versions)
        with ThreadPoolExecutor(_READERS) as pool:
            return list(zip(versions, pool.map(self._bytes, versions), strict=True))

    def _bytes(self, version: int) -> bytes:
        try:
            return self.store.read(self._path(version))
        except OSError as error:
            raise DatasetError(
                f"Entry {version} of {self._place} is missing or damaged: "
                f"{error.strerror or 'it is not there'}.",
                fix="Restore the _commits folder from a backup.",
                reason="history",
            ) from error

    def _parse(self, version: int, raw: bytes) -> Commit:
        try:
            data = json.loads(raw)
            files = tuple(CommittedFile(**file) for file in data.pop("files"))
            for name in ("removed", "inputs"):
                data[name] = tuple(data[name])
            return Commit(files=files, **data)
        except (ValueError, TypeError, KeyError) as error:
            raise DatasetError(
                f"Entry {version} of {self._place} is missing or damaged: {error}.",
                fix="Restore the _commits folder from a backup.",
                reason="history",
            ) from error

    def _check_removals(self, removed: Sequence[str]) -> None:
        if not removed:
            return
        counting = {file.path for file in self.snapshot().files}
        if gone := sorted(set(removed) - counting):
            raise DatasetError(
                f"Another writer already replaced {gone[0]}.",
                fix="Run the command again on the newest version.",
                reason="conflict",
            )

    def _check_fences(self, head: int) -> None:
        """Refuse to commit for a writer that another one took over from.

        Raises:
            DatasetError: One did.
        """
        writer = self._writer
        if not writer.token:
            return
        for number, data in self._bytes_of(range(writer.seen + 1, head + 1)):
            entry = self._parse(number, data)
            if entry.kind == FENCE and writer.token in entry.inputs:
                raise DatasetError(
                    f"This process gave no sign of life to {self.store} for so long that another "
                    "one took over from it; nothing of what it was about to commit counts.",
                    fix="Run the same command again: it goes on after what is committed.",
                    reason="fenced",
                )
        writer.seen = head
