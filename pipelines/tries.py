"""Count how often a worker process died on one item, in files that outlive the worker.

The engine gives the work of a dead worker to another one for ever; an item that kills each of them
would hold up the run. A try that ends, however it ends, leaves no file behind.
"""

from collections.abc import Callable
from pathlib import Path

from animaray.pipelines.stage_runner import Row

MAX_WORKER_TRIES = 3
_TRIES_DIR = "tries"


def give_up_after_deaths(
    work: Callable[[Row], Row], row: Row, key: str, *, what: str, tries: int = MAX_WORKER_TRIES
) -> Row:
    """Do some work on a row, unless workers died of it before: then the row ends as failed.

    Args:
        work: Takes and returns a row.
        row: Returned as it is when an earlier stage ended it; has staging_dir.
        key: Names the work in a file name: which item, and what is done with it.
        what: The item in words, for the reason: source or clip.
        tries: Deaths after which nobody tries again.
    """
    if row["state"] is not None:
        return row
    mark = Path(row["staging_dir"]) / _TRIES_DIR / key
    count = mark.stat().st_size if mark.exists() else 0
    if count >= tries:
        detail = f"the worker died {count} times on this {what}"
        return {**row, "state": "failed", "reason": "worker_died", "detail": detail}
    mark.parent.mkdir(parents=True, exist_ok=True)
    with mark.open("ab") as file:
        file.write(b"x")
    try:
        return work(row)
    finally:
        mark.unlink(missing_ok=True)
