"""What an entry of the commit log holds, and its bytes."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from animaray.platform.json_text import json_text

FENCE = "fence"
"""Kind of entries that end the right of writers to commit."""


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
    """append, verdicts, withdraw, compact, merge, encode or fence."""
    files: tuple[CommittedFile, ...] = ()
    """Files that this entry adds."""
    removed: tuple[str, ...] = ()
    """Paths of files that no longer count."""
    inputs: tuple[str, ...] = ()
    """Ids of the inputs whose results the files hold, of the sources withdrawn, or of the writers
    fenced."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What made it: code version, configuration fingerprint, reason of a withdrawal."""

    def to_bytes(self) -> bytes:
        """Return the entry as it is stored."""
        return (json_text(asdict(self), indent=1, sort_keys=True) + "\n").encode()


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


def parse_entry(data: bytes) -> Commit:
    """Return the entry that some bytes hold; ValueError, TypeError or KeyError where it is none."""
    found = json.loads(data)
    files = tuple(CommittedFile(**file) for file in found.pop("files"))
    for name in ("removed", "inputs"):
        found[name] = tuple(found[name])
    return Commit(files=files, **found)


def snapshot_of(entries: Sequence[Commit]) -> Snapshot:
    """Return what a reader sees after some entries."""
    files: dict[str, CommittedFile] = {}
    withdrawn: set[str] = set()
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
        entries=tuple(entries),
    )


def digest_of(data: bytes) -> str:
    """Return the SHA-256 of some bytes."""
    return hashlib.sha256(data).hexdigest()
