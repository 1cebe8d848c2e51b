"""Delete files that no commit names: a process that was killed before its commit leaves them.

Every writer holds `writing` from its first file to the commit that names it; `sweep` deletes only
while nobody does.
"""

import fcntl
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from animaray.datasets.commit_log import COMMITS_DIR, CommitLog

_LOCK_FILE = "_writing"
_HALF_WRITTEN = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Keep the files of this process from being swept before their commit; many may write at once.

    The system lets go of it when the process dies, however it dies.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / _LOCK_FILE).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def unnamed_files(root: Path) -> list[str]:
    """Return tables' files that no entry of the log names, and files that were never finished."""
    named = {file.path for entry in CommitLog(root).commits() for file in entry.files}
    folders = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith("_")]
    found = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    left_over = {
        path.relative_to(root).as_posix()
        for path in found
        if path.suffix == ".parquet" or _HALF_WRITTEN.fullmatch(path.name)
    }
    commits = root / COMMITS_DIR
    entries = commits.iterdir() if commits.is_dir() else ()
    half_entries = {
        f"{COMMITS_DIR}/{path.name}" for path in entries if _HALF_WRITTEN.fullmatch(path.name)
    }
    return sorted((left_over - named) | half_entries)


def sweep(root: Path) -> list[str]:
    """Delete what a killed process left; nothing is done while somebody writes.

    Args:
        root: Dataset folder.

    Returns:
        Paths of the deleted files, relative to the folder.
    """
    with (root / _LOCK_FILE).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return []
        swept = unnamed_files(root)
        for path in swept:
            (root / path).unlink(missing_ok=True)
        return swept
