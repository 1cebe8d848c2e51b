"""Delete files that no commit names: a process that was killed before its commit leaves them."""

import re
from pathlib import Path

from animaray.datasets.commit_log import COMMITS_DIR, CommitLog
from animaray.datasets.delta_log import DELTA_LOG
from animaray.datasets.schemas import TABLES
from animaray.datasets.writers import nobody_writing
from animaray.platform.stores import Store, open_store

_PART = re.compile(r"part-[0-9a-f]{20}\.parquet")
_HALF_WRITTEN = re.compile(r"\.part-[0-9a-f]{20}\.parquet\.[0-9a-f]{8}\.tmp")
_HALF_DELTA = re.compile(r"\.\d{20}\.[0-9a-f]{8}\.tmp")
_HALF_ENTRY = re.compile(r"\.\d{8}\.[0-9a-f]{8}\.tmp")
_FOLDERS = (*TABLES, "conditions")
"""Where the tables' files lie, or in folders below: of a policy, of an encoder."""
_WHY = "a writer was killed before it committed it"


def unnamed_files(address: str | Path | Store) -> list[str]:
    """Return tables' files that no entry of the log names, and files that were never finished.

    Only names that our writers give count; a dataset folder may hold other people's files, too.
    """
    store = open_store(address)
    # Listed before the log is read: what a living writer commits meanwhile is named.
    found = {file.path for name in _FOLDERS for file in store.files(name)}
    named = {file.path for entry in CommitLog(store).commits() for file in entry.files}
    return sorted(path for path in found - named if is_own_file(path))


def is_own_file(path: str) -> bool:
    """Return whether a path, relative to the dataset folder, is one that our writers give."""
    first, *between, name = path.split("/")
    if first not in _FOLDERS or {"", ".", ".."} & set(between):
        return False
    if between[-1:] == [DELTA_LOG]:
        return bool(_HALF_DELTA.fullmatch(name))
    return bool(_PART.fullmatch(name) or _HALF_WRITTEN.fullmatch(name))


def vacuum(address: str | Path | Store) -> list[str]:
    """Delete what a killed process left; nothing is done while somebody writes.

    Returns:
        Paths of the deleted files, relative to the folder.
    """
    store = open_store(address)
    with nobody_writing(store) as is_quiet:
        if not is_quiet:
            return []
        entries = [
            file.path
            for file in store.files(COMMITS_DIR)
            if _HALF_ENTRY.fullmatch(file.path.removeprefix(f"{COMMITS_DIR}/"))
        ]
        left_over = [*unnamed_files(store), *sorted(entries)]
        return [path for path in left_over if store.remove(path, _WHY)]
