"""Work that kills its worker is given up, and nobody else's."""

import os
import subprocess
import sys
from pathlib import Path

from animaray.pipelines.curation.crash_guard import MAX_WORKER_DEATHS, guard_against_crashes
from animaray.pipelines.curation.rows import Row, new_row

_DEATH = """
import ctypes, os, signal, sys
from animaray.pipelines.curation.rows import new_row
from animaray.pipelines.curation.crash_guard import guard_against_crashes
row = {**new_row("a.mp4", "/"), "staging_dir": sys.argv[1]}
die = lambda row: os.kill(os.getpid(), signal.SIGKILL)
# PyDLL holds the interpreter's lock while it sleeps: no Python thread could help.
sleep = lambda row: ctypes.PyDLL(None).sleep(60)
work = die if sys.argv[2] == "die" else sleep
guard_against_crashes(work, row, "a.scan", what="source", max_s=0.1)
"""


def row_in(folder: Path) -> Row:
    return {**new_row("a.mp4", "/"), "staging_dir": str(folder)}


def test_work_that_killed_three_workers_is_given_up(tmp_path: Path) -> None:
    done: list[Row] = []

    def work(row: Row) -> Row:
        done.append(row)
        return row

    for how, code in (("die", -9), ("sleep", 1), ("die", -9)):
        died = subprocess.run(  # noqa: S603
            [sys.executable, "-c", _DEATH, str(tmp_path), how], stderr=subprocess.PIPE, check=False
        )
        assert died.returncode == code, died.stderr
    row = guard_against_crashes(work, row_in(tmp_path), "a.scan", what="source")
    assert (row["state"], row["reason"]) == ("failed", "worker_died")
    assert row["detail"] == "the worker died or stood still 3 times on this source"
    assert guard_against_crashes(work, row_in(tmp_path), "b.scan", what="source")["state"] is None
    assert len(done) == 1
    assert os.listdir(tmp_path / "crashes") == ["a.scan"]  # noqa: PTH208 - names only


def test_work_that_ends_leaves_no_trace(tmp_path: Path) -> None:
    for _ in range(2 * MAX_WORKER_DEATHS):
        row = guard_against_crashes(dict, row_in(tmp_path), "a.scan", what="source")
        assert row["state"] is None
    assert not list((tmp_path / "crashes").iterdir())


def test_row_that_has_ended_is_left_alone(tmp_path: Path) -> None:
    row = {**row_in(tmp_path), "state": "unreadable"}
    assert guard_against_crashes(dict, row, "a.scan", what="source") is row
