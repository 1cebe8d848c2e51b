"""The one guard around every stage: whatever a row does, it ends in a state and a reason.

A failure is data, never an exception, so the engine has nothing to retry or abort. The engine gives
the work of a dead worker to another one for ever, and waits for ever for one that stands still: so
a try that takes too long ends its process, and a row that ended three processes is given up. What
our own disk or store refuses says nothing about a row: it stops the run.
"""

import faulthandler
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path

from animaray.pipelines.curation.rows import Row
from animaray.pipelines.curation.workplace import Marks, Workplace
from animaray.platform.disk import disk_error
from animaray.platform.errors import AnimarayError, DiskError, StoreError

MAX_WORKER_DEATHS = 3
WORKER_DIED = "worker_died"
MAX_ITEM_S = 3600.0
"""Longest time for one source or clip; a clip takes seconds, an hour of video minutes."""


Stage = Callable[[Row, Workplace], Row]


def guarded(
    name: str, *, max_s: float = MAX_ITEM_S, is_timed: bool = True
) -> Callable[[Stage], Stage]:
    """Guard a stage; a row that has ended passes by.

    Args:
        name: Of the stage, for the reason and the seconds.
        is_timed: Whether its seconds count; what is made of stages has theirs.
        max_s: Longest time for one row, seconds; then this process ends.
    """

    def guard(stage: Stage) -> Stage:
        @wraps(stage)
        def run(row: Row, place: Workplace) -> Row:
            if row["state"] is not None:
                return row
            clip_id = row.get("clip_id")
            key = f"{clip_id or row['path']}.{name}"
            what = "source" if clip_id is None else "clip"
            with one_try(place.marks, key, what, max_s=max_s) as died:
                if died is not None:
                    return {**row, "state": "failed", "reason": WORKER_DIED, "detail": died}
                return run_stage(name, lambda one: stage(one, place), row, is_timed=is_timed)

        return run

    return guard


@contextmanager
def one_try(
    marks: Marks, key: str, what: str, *, max_s: float = MAX_ITEM_S
) -> Iterator[str | None]:
    """Yield None for a try that counts unless it ends, or why the work is given up by now.

    Args:
        key: Names the work: which item, and what is done with it.
        what: The item in words: source or clip.
        max_s: Longest time that it may take, seconds; then this process ends.
    """
    deaths = marks.begin(key)
    if deaths >= MAX_WORKER_DEATHS:
        yield f"the worker died or stood still {deaths} times on this {what}"
        return
    # A thread of its own in C: it fires though native code holds the interpreter's lock.
    faulthandler.dump_traceback_later(max_s, exit=True, file=sys.__stderr__ or sys.stderr)
    try:
        yield None
    finally:
        faulthandler.cancel_dump_traceback_later()
        marks.end(key)


def run_stage(name: str, stage: Callable[[Row], Row], row: Row, *, is_timed: bool = True) -> Row:
    """Run a stage on a row that is still pending; a failure ends the row as failed.

    Args:
        name: Of the stage, for the reason and the seconds.
        stage: Takes and returns a row.
        row: Returned as it is when an earlier stage ended it.
        is_timed: Whether its seconds count.
    """
    if row["state"] is not None:
        return row
    started = time.perf_counter()
    try:
        after = stage(row)
    except Exception as error:  # noqa: BLE001 - any failure of one row is data
        refuse_own_failure(error, row.get("staging_dir"))
        after = {**row, "state": "failed", "reason": name, "detail": describe_error(error)}
    return {**after, "seconds": _with_seconds(after, name, started)} if is_timed else after


def run_family(
    family: str, stage: Callable[[Row], Row], row: Row, *, needs: tuple[str, ...], provenance: str
) -> Row:
    """Measure one family of scores; a failure marks the family and later ones that need it.

    Args:
        family: Of scores: picture, face, pose, camera or motion.
        stage: Takes and returns a row.
        row: Returned as it is when an earlier stage ended it.
        needs: Families that must have run before.
        provenance: Networks and settings that measure it, for the record.
    """
    if row["state"] is not None:
        return row
    row = {**row, f"{family}_producer": provenance}
    missing = [need for need in needs if row.get(f"{need}_state") != "ok"]
    if missing:
        return {**row, f"{family}_state": "not_run", f"{family}_note": f"needs {missing[0]}"}
    started = time.perf_counter()
    try:
        after = {**stage(row), f"{family}_state": "ok", f"{family}_note": None}
    except Exception as error:  # noqa: BLE001 - any failure of one clip is data
        refuse_own_failure(error, row.get("staging_dir"))
        note = describe_error(error)
        after = {**row, f"{family}_state": "failed", f"{family}_note": note}
    return {**after, "seconds": _with_seconds(after, family, started)}


def describe_error(error: Exception) -> str:
    """Return one line that says what happened."""
    if isinstance(error, AnimarayError):
        return error.message
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


def refuse_own_failure(error: Exception, staging_dir: str | None) -> None:
    """Stop the run where our own disk or store failed: that says nothing about the input.

    Raises:
        DiskError: The disk did.
        StoreError: The store did.
    """
    if isinstance(error, StoreError):
        raise error
    found = disk_error(error, Path(staging_dir) if staging_dir else None)
    if found is not None and (found.reason == "disk_full" or isinstance(error, DiskError)):
        raise found from error


def _with_seconds(row: Row, name: str, started: float) -> dict[str, float]:
    return {**row["seconds"], name: time.perf_counter() - started}
