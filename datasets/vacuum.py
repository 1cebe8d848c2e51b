"""Delete files that no commit names: a process that was killed before its commit leaves them.

Every writer holds `writing` from its first file to the commit that names it; `vacuum` deletes only
while nobody does.
"""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from animaray.datasets.commit_log import COMMITS_DIR, CommitLog
from animaray.datasets.schemas import TABLES
from animaray.platform.removal import remove, remove_own

_LOCK_FILE = "_writing"
_PART = re.compile(r"part-[0-9a-f]{20}\.parquet")
_HALF_WRITTEN = re.compile(r"\.part-[0-9a-f]{20}\.parquet\.[0-9a-f]{8}\.tmp")
_HALF_ENTRY = re.compile(r"\.\d{8}\.[0-9a-f]{8}\.tmp")
_FOLDERS = (*TABLES, "conditions")
"""Where the tables' files lie, or in folders below: of a policy, of an encoder."""


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
    """Return tables' files that no entry of the log names, and files that were never finished.

    Only names that our writers give count; a dataset folder may hold other people's files, too.
    """
    named = {file.path for entry in CommitLog(root).commits() for file in entry.files}
    left_over = {
        path.relative_to(root).as_posix()
        for name in _FOLDERS
        if not (root / name).is_symlink()
        for folder, _, files in os.walk(root / name)  # follows no symbolic link
        for path in (Path(folder, file) for file in files)
        if not path.is_symlink()
    }
    left_over = {path for path in left_over if is_own_file(path)}
    return sorted(left_over - named)


def is_own_file(path: str) -> bool:
    """Return whether a path, relative to the dataset folder, is one that our writers give."""
    first, *between, name = path.split("/")
    is_inside = first in _FOLDERS and not {"", ".", ".."} & set(between)
    return is_inside and bool(_PART.fullmatch(name) or _HALF_WRITTEN.fullmatch(name))


def vacuum(root: Path) -> list[str]:
    """Delete what a killed process left; nothing is done while somebody writes.

    Returns:
        Paths of the deleted files, relative to the folder.
    """
    with (root / _LOCK_FILE).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return []
        why = "a writer was killed before it committed it"
        swept = [path for path in unnamed_files(root) if remove(root / path, why)]
        entries = remove_own(root / COMMITS_DIR, _HALF_ENTRY, why)
        return [*swept, *(f"{COMMITS_DIR}/{path.name}" for path in entries)]
