"""A folder that is whole or not there: it gets its name when everything in it is written."""

import fcntl
import os
import re
import secrets
from pathlib import Path

from animaray.platform.errors import UsageError
from animaray.platform.removal import remove
from animaray.platform.storage import sync_folder


class new_folder:  # noqa: N801 - used as a context, like contextlib's
    """A folder that gets its name only if everything inside the `with` succeeds.

    What a killed process left of an earlier try is removed; a try that still runs is left alone.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self._folder = out.with_name(f".{out.name}.{secrets.token_hex(4)}.partial")
        self._lock = -1

    def __enter__(self) -> Path:
        """Return the folder to write to.

        Raises:
            UsageError: The final folder exists and has something in it.
        """
        if self._out.exists() and (not self._out.is_dir() or any(self._out.iterdir())):
            raise UsageError(f"{self._out} exists and is not empty.", fix="Name a new folder.")
        self._remove_leftovers()
        self._folder.mkdir(parents=True)
        # The system lets go of it when this process dies, however it dies.
        self._lock = os.open(self._folder, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self._folder

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Give the folder its name, or remove it."""
        os.close(self._lock)
        if kind is not None:
            remove(self._folder, "it was not finished")
            return
        if self._out.is_dir():
            self._out.rmdir()
        self._folder.replace(self._out)
        sync_folder(self._out.parent)

    def _remove_leftovers(self) -> None:
        """Remove what killed processes left of this folder."""
        own = re.compile(rf"\.{re.escape(self._out.name)}\.[0-9a-f]{{8}}\.partial")
        parent = self._out.parent
        for path in sorted(parent.iterdir()) if parent.is_dir() else ():
            if own.fullmatch(path.name) and path.is_dir() and not _is_locked(path):
                remove(path, "the process that wrote it was killed")


def _is_locked(folder: Path) -> bool:
    """Return whether a living process writes to a folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(handle)
