"""Who may write into a dataset: locks on a local folder, leases in an object store.

Every writer holds `writing` from its first file to the commit that names it. On a local folder the
system lets go of the lock when the process dies, however it dies. In an object store each writer is
an object that it renews while it lives:

    _writers/<kind>-<token>.json      kind: shared, only (one such at a time) or vacuum

It first puts its own, then lists the others: of two that begin at once at least one sees the other.
One that was silent for `LEASE_S`, by the store's own clock, is dead to the others; before anybody
relies on that, an entry of the commit log fences it (commit_log.py), so that it can never commit
again, though it may only have been asleep.
"""

import fcntl
import json
import logging
import os
import random
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from animaray.datasets.commit_log import FENCE, CommitLog, Writer
from animaray.platform.errors import AnimarayError, DatasetError
from animaray.platform.json_text import json_text
from animaray.platform.stores import LocalStore, Store, open_store

_log = logging.getLogger("animaray.writers")

WRITERS_DIR = "_writers"
LEASE_S = 60.0
"""A writer that was silent for so long is dead to the others."""
_HEARTBEAT_S = 10.0
_FIRST_TRIES = 3
"""Two that begin at the same moment refuse each other; one of them comes back earlier."""
SHARED, ONLY, VACUUM = "shared", "only", "vacuum"
_WRITING_LOCK = "_writing"
_ONLY_LOCK = "_lock"


@contextmanager
def writing(address: str | Path | Store, *, exclusive: bool = False) -> Iterator[Writer]:
    """Keep the files of this process from being swept before their commit.

    Args:
        exclusive: Whether this is `curate`, of which one at a time may work; others that write,
            such as `dataset encode`, may do so meanwhile.

    Raises:
        DatasetError: Another one of that kind is at work.
    """
    store = open_store(address)
    if isinstance(store, LocalStore):
        with _locked(store, exclusive=exclusive):
            yield Writer()
    else:
        with _lease(store, ONLY if exclusive else SHARED) as writer:
            assert writer is not None  # noqa: S101 - only a vacuum stands back
            yield writer


@contextmanager
def nobody_writing(address: str | Path | Store) -> Iterator[bool]:
    """Yield whether nobody writes; while the answer is yes nobody begins to."""
    store = open_store(address)
    if not isinstance(store, LocalStore):
        with _lease(store, VACUUM) as writer:
            yield writer is not None
        return
    if not store.root.is_dir():
        yield False
        return
    with (store.root / _WRITING_LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


@contextmanager
def _locked(store: LocalStore, *, exclusive: bool) -> Iterator[None]:
    store.root.mkdir(parents=True, exist_ok=True)
    with (store.root / _WRITING_LOCK).open("a") as shared:
        if not exclusive:
            fcntl.flock(shared, fcntl.LOCK_SH)
            yield
            return
        with (store.root / _ONLY_LOCK).open("w") as only:
            try:
                fcntl.flock(only, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _refuse(store)
            fcntl.flock(shared, fcntl.LOCK_SH)
            yield


def _refuse(store: Store, who: str = "Another process") -> NoReturn:
    raise DatasetError(
        f"{who} is curating into {store}.",
        fix="Wait for it, or choose another --out.",
        reason="locked",
    )


@contextmanager
def _lease(store: Store, kind: str) -> Iterator[Writer | None]:
    """Hold a lease in an object store; None is yielded to a vacuum while others write."""
    lease = _Lease(store, kind)
    is_held = lease.take()
    try:
        yield lease.writer if is_held else None
    finally:
        lease.release()


class _Lease:
    """One writer's object, renewed by a thread."""

    def __init__(self, store: Store, kind: str) -> None:
        self._store, self._kind = store, kind
        self.writer = Writer(token=secrets.token_hex(8))
        self._path = f"{WRITERS_DIR}/{kind}-{self.writer.token}.json"
        facts = {"host": socket.gethostname(), "pid": os.getpid(), "began_s": time.time()}
        self._data = json_text(facts).encode()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="writer lease", daemon=True)

    def take(self) -> bool:
        """Begin; return False where a vacuum has to stand back.

        Raises:
            DatasetError: Another writer of kind `only` lives.
        """
        for attempt in range(_FIRST_TRIES):
            self._store.write(self._path, self._data)
            living = self._others()
            if self._kind == VACUUM and living:
                self._store.remove(self._path, "others write")
                return False
            while any(kind == VACUUM for kind, _ in living):
                time.sleep(1.0)
                self._store.write(self._path, self._data)
                living = self._others()
            rivals = [path for kind, path in living if ONLY == kind == self._kind]
            if not rivals:
                self._thread.start()
                return True
            self._store.remove(self._path, "another one is at work")
            if attempt + 1 < _FIRST_TRIES:
                time.sleep(random.uniform(0.5, 2.0))  # noqa: S311 - no secret
        _refuse(self._store, self._who(rivals[0]))

    def release(self) -> None:
        """End: nothing of this writer waits for a commit any more."""
        self._is_over.set()
        if self._thread.is_alive():
            self._thread.join()
        try:
            self._store.remove(self._path, "its writer has ended")
        except AnimarayError as error:
            _log.warning("%s is left to run out: %s", self._path, error.message)

    def _others(self) -> list[tuple[str, str]]:
        """Return kind and path of the others that live; fence those that do not.

        Their age is measured between times of the store's own clock.
        """
        found = {file.path: file.modified_ns for file in self._store.files(WRITERS_DIR)}
        # Where ours is gone, too, this process slept since it was put, and is fenced.
        now_ns = found.pop(self._path, 0)
        silent = {path for path, then_ns in found.items() if now_ns - then_ns > LEASE_S * 1e9}
        if silent:
            tokens = sorted(_split(path)[1] for path in silent)
            CommitLog(self._store).commit(inputs=tokens, kind=FENCE)
            for path in silent:
                self._store.remove(path, f"its writer was silent for over {LEASE_S:.0f} s")
        return [(_split(path)[0], path) for path in sorted(found.keys() - silent)]

    def _who(self, path: str) -> str:
        try:
            facts = json.loads(self._store.read(path))
        except (OSError, ValueError):
            return "Another process"
        return f"Process {facts.get('pid')} of {facts.get('host')}"

    def _renew(self) -> None:
        while not self._is_over.wait(_HEARTBEAT_S):
            try:
                self._store.write(self._path, self._data)
            except AnimarayError as error:
                # The log decides: once fenced, a commit is refused.
                _log.warning("The lease on %s could not be renewed: %s", self._store, error.message)


def _split(path: str) -> tuple[str, str]:
    """Return kind and token of a writer's object."""
    kind, _, token = path.rpartition("/")[2].removesuffix(".json").partition("-")
    return kind, token
