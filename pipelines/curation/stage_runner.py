"""Run one stage on one row so that a failure is data: a state and a reason, never an exception.

The engine then has nothing to retry or abort, and every input ends in exactly one state.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from animaray.platform.disk import disk_error
from animaray.platform.errors import AnimarayError, DiskError

Row = dict[str, Any]
Stage = Callable[[Row], Row]


def new_row(path: str, root: str) -> Row:
    """Return the row of one input file before any stage."""
    return {
        "path": path, "root": root, "state": None, "reason": None, "detail": None,
        "seconds": {},
    }  # fmt: skip


def run_stage(name: str, stage: Stage, row: Row) -> Row:
    """Run a stage on a row that is still pending; a failure ends the row as failed.

    Args:
        name: Of the stage, for the reason and the timings.
        stage: Takes and returns a row.
        row: Returned as it is when an earlier stage ended it.
    """
    if row["state"] is not None:
        return row
    started = time.perf_counter()
    try:
        after = stage(row)
    except Exception as error:  # noqa: BLE001 - any failure of one row is data
        _refuse_disk_error(error, row)
        after = {**row, "state": "failed", "reason": name, "detail": describe_error(error)}
    return _with_seconds(after, name, started)


def run_family(
    family: str, stage: Stage, row: Row, *, needs: tuple[str, ...], provenance: str
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
        _refuse_disk_error(error, row)
        note = describe_error(error)
        after = {**row, f"{family}_state": "failed", f"{family}_note": note}
    return _with_seconds(after, family, started)


def describe_error(error: Exception) -> str:
    """Return one line that says what happened."""
    if isinstance(error, AnimarayError):
        return error.message
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


def _refuse_disk_error(error: Exception, row: Row) -> None:
    """Stop the run where our own disk failed: that says nothing about the input.

    Raises:
        DiskError: It did.
    """
    staging = row.get("staging_dir")
    found = disk_error(error, Path(staging) if staging else None)
    if found is not None and (found.reason == "disk_full" or isinstance(error, DiskError)):
        raise found from error


def _with_seconds(row: Row, name: str, started: float) -> Row:
    return {**row, "seconds": {**row["seconds"], name: time.perf_counter() - started}}
