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
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from animaray.datasets.commit_entries import FENCE, Commit, CommittedFile, Snapshot
from animaray.datasets.commit_history import COMMITS_DIR, entry_path, history_of
from animaray.platform.errors import DatasetError
from animaray.platform.stores import LocalStore, Store, open_store

__all__ = [
    "COMMITS_DIR", "FENCE", "Commit", "CommitLog", "CommittedFile", "Snapshot", "Writer",
]  # fmt: skip

_MAX_ATTEMPTS = 50


@dataclass(slots=True)
class Writer:
    """Who writes files and commits them; `datasets.writers.writing` hands it out."""

    token: str = ""
    """Part of the names of its files; empty where the system's locks hold."""


class CommitLog:
    """Append to and read the log of one dataset."""

    def __init__(self, address: str | Path | Store, writer: Writer | None = None) -> None:
        self.store = open_store(address)
        self._writer = writer or Writer()
        self._history = history_of(self.store)

    def head(self) -> int:
        """Return the newest version; 0 when there is none."""
        return self._history.newest()

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
            head, digest, fenced = self._history.tip()
            self._check_fences(fenced)
            self._check_removals(removed)
            commit = Commit(
                version=head + 1,
                parent=digest,
                kind=kind,
                files=tuple(files),
                removed=removed,
                inputs=tuple(inputs),
                facts=facts,
            )
            if self.store.write_if_absent(entry_path(commit.version), commit.to_bytes()):
                self._history.write_checkpoints(commit.version)
                return commit
        raise DatasetError(
            f"Could not append to {self.store}/{COMMITS_DIR}: {_MAX_ATTEMPTS} other writers came "
            "first.",
            fix="Let one writer work at a time.",
            reason="conflict",
        )

    def withdraw(self, source_ids: Iterable[str], reason: str) -> Commit:
        """Hide every row of some sources from now on (a takedown); bytes go at compaction."""
        return self.commit(inputs=source_ids, kind="withdraw", facts={"reason": reason})

    def commits(self, version: int | None = None) -> list[Commit]:
        """Return all entries up to a version, oldest first.

        Args:
            version: Newest entry wanted; None for all. DatasetError where an entry is missing or
                damaged, or its parent is another one.
        """
        return self._history.entries(version)

    def snapshot(self, version: int | None = None) -> Snapshot:
        """Return what a reader sees at a version; None for the newest."""
        return self._history.snapshot(version)

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

    def _sha256(self, path: str) -> str:
        with self.store.open(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

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

    def _check_fences(self, fenced: frozenset[str]) -> None:
        """Refuse to commit for a writer that another one took over from.

        Raises:
            DatasetError: One did.
        """
        if self._writer.token in fenced:
            raise DatasetError(
                f"This process gave no sign of life to {self.store} for so long that another "
                "one took over from it; nothing of what it was about to commit counts.",
                fix="Run the same command again: it goes on after what is committed.",
                reason="fenced",
            )
