"""Count how often a worker process died on one item, in files that outlive the worker.

The engine gives the work of a dead worker to another one for ever, and waits for ever for one that
stands still; an item that does that to each of them would hold up the run. So a try that takes too
long ends its process, and a try that ends, however it ends, leaves no file behind.
"""

import faulthandler
import sys
from collections.abc import Callable
from pathlib import Path

from animaray.pipelines.curation.rows import Row

MAX_WORKER_DEATHS = 3
MAX_ITEM_S = 3600.0
"""Longest time for one source or clip; a clip takes seconds, an hour of video minutes."""
_CRASHES_DIR = "crashes"


def guard_against_crashes(
    work: Callable[[Row], Row], row: Row, key: str, *, what: str, max_s: float = MAX_ITEM_S
) -> Row:
    """Do some work on a row, unless workers died of it before: then the row ends as failed.

    Args:
        work: Takes and returns a row.
        row: Returned as it is when an earlier stage ended it; has staging_dir.
        key: Names the work in a file name: which item, and what is done with it.
        what: The item in words, for the reason: source or clip.
        max_s: Longest time that it may take, seconds; then this process ends.
    """
    if row["state"] is not None:
        return row
    mark = Path(row["staging_dir"]) / _CRASHES_DIR / key
    count = mark.stat().st_size if mark.exists() else 0
    if count >= MAX_WORKER_DEATHS:
        detail = f"the worker died or stood still {count} times on this {what}"
        return {**row, "state": "failed", "reason": "worker_died", "detail": detail}
    mark.parent.mkdir(parents=True, exist_ok=True)
    with mark.open("ab") as file:
        file.write(b"x")
    # A thread of its own in C: it fires though native code holds the interpreter's lock.
    faulthandler.dump_traceback_later(max_s, exit=True, file=sys.__stderr__ or sys.stderr)
    try:
        return work(row)
    finally:
        faulthandler.cancel_dump_traceback_later()
        mark.unlink(missing_ok=True)
