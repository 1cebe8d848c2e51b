"""Watch a dataset's commit log while runs are broken, and say what of it was lost.

An entry that anybody could read was acknowledged: it must stay as it is, and so must the files
that it names, whatever is killed afterwards.
"""

import hashlib
import threading
from types import TracebackType

from animaray.datasets.commit_log import COMMITS_DIR, CommitLog
from animaray.platform.errors import AnimarayError
from animaray.platform.stores import open_store

_INTERVAL_S = 0.5


class CommitWitness:
    """Reads every entry as soon as it is there; use as a context."""

    def __init__(self, address: str) -> None:
        self._store = open_store(address)
        self._seen: dict[str, str] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def num_seen(self) -> int:
        """How many entries were seen."""
        return len(self._seen)

    def __enter__(self) -> "CommitWitness":
        """Begin to watch."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """End watching."""
        self._over.set()
        self._thread.join(timeout=180)

    def _watch(self) -> None:
        while not self._over.wait(_INTERVAL_S):
            try:
                self._read_new()
            except (AnimarayError, OSError):
                continue  # the store is away just now

    def _read_new(self) -> None:
        for file in self._store.files(COMMITS_DIR):
            if file.path.endswith(".json") and file.path not in self._seen:
                self._seen[file.path] = hashlib.sha256(self._store.read(file.path)).hexdigest()

    def describe_losses(self) -> list[str]:
        """Return a line for each entry that is gone or changed, and each committed file so."""
        lines = []
        for path, digest in sorted(self._seen.items()):
            if self._store.size(path) is None:
                lines.append(f"lost: {path} was there and is gone")
            elif hashlib.sha256(self._store.read(path)).hexdigest() != digest:
                lines.append(f"lost: {path} was another one")
        return lines + [f"lost: {line}" for line in CommitLog(self._store).verify()]
