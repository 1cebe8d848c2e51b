"""Open a dataset of many commits: the first time in a process, again, and after one more commit.

    python -m benchmarks.scale.long_log ADDRESS --commits 100000

ADDRESS is a new folder or an address in an object store. Each commit names four files, as those of
`curate` do, of which no bytes are written.
"""

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from animaray.datasets.commit_entries import Commit, CommittedFile, digest_of
from animaray.datasets.commit_history import COMMITS_DIR, History, entry_path, history_of
from animaray.datasets.commit_log import CommitLog
from animaray.platform.json_text import json_text
from animaray.platform.storage import content_id
from animaray.platform.stores import LocalStore, Store, open_store

_TABLES = ("sources", "clips", "tracks", "media")
_AT_ONCE = 32


def write_long_log(store: Store, num_commits: int) -> None:
    """Write the entries of a log as commits would, side by side and without a sync."""
    if isinstance(store, LocalStore):
        (store.root / COMMITS_DIR).mkdir(parents=True)
    parent = ""
    pending: list[tuple[str, bytes]] = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for version in range(1, num_commits + 1):
            data = replace(_commit(version), parent=parent).to_bytes()
            parent = digest_of(data)
            pending.append((entry_path(version), data))
            if len(pending) == 1000 or version == num_commits:
                list(pool.map(lambda each: _put(store, *each), pending))
                pending.clear()


def _put(store: Store, path: str, data: bytes) -> None:
    if isinstance(store, LocalStore):
        (store.root / path).write_bytes(data)
    else:
        store.write(path, data)


def _commit(version: int) -> Commit:
    files = tuple(
        CommittedFile(
            table=table,
            path=f"{table}/part-{content_id(table, version)}.parquet",
            rows=4,
            size_bytes=10_000,
            sha256=digest_of(f"{table}{version}".encode()),
        )
        for table in _TABLES
    )
    inputs = tuple(content_id("input", version, number) for number in range(4))
    return Commit(version=version, parent="", kind="append", files=files, inputs=inputs)


def _seconds(work: Callable[[], Any]) -> float:
    started = time.monotonic()
    work()
    return round(time.monotonic() - started, 3)


def main() -> None:
    """Write the log, open it in all ways, print the seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address")
    parser.add_argument("--commits", type=int, default=100_000)
    arguments = parser.parse_args()
    store = open_store(arguments.address)
    found: dict[str, Any] = {"commits": arguments.commits}
    found["write_log_s"] = _seconds(lambda: write_long_log(store, arguments.commits))
    found["open_without_checkpoints_s"] = _seconds(CommitLog(store).snapshot)
    found["write_checkpoints_s"] = _seconds(
        lambda: history_of(store).write_checkpoints(arguments.commits)
    )
    found["open_s"] = _seconds(History(store).snapshot)
    found["open_again_s"] = _seconds(CommitLog(store).snapshot)
    found["withdraw_s"] = _seconds(lambda: CommitLog(store).withdraw(["a"], "asked to"))
    found["open_after_a_commit_s"] = _seconds(CommitLog(store).snapshot)
    print(json_text(found, indent=2))


if __name__ == "__main__":
    main()
