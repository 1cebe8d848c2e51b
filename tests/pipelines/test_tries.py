"""Work that kills its worker is given up, and nobody else's."""

import os
import subprocess
import sys
from pathlib import Path

from animaray.pipelines.stage_runner import Row, new_row
from animaray.pipelines.tries import MAX_WORKER_TRIES, give_up_after_deaths

_DEATH = """
import os, signal, sys
from animaray.pipelines.stage_runner import new_row
from animaray.pipelines.tries import give_up_after_deaths
row = {**new_row("a.mp4", "/"), "staging_dir": sys.argv[1]}
give_up_after_deaths(lambda row: os.kill(os.getpid(), signal.SIGKILL), row, "a.scan", what="source")
"""


def row_in(folder: Path) -> Row:
    return {**new_row("a.mp4", "/"), "staging_dir": str(folder)}


def test_work_that_killed_three_workers_is_given_up(tmp_path: Path) -> None:
    done: list[Row] = []

    def work(row: Row) -> Row:
        done.append(row)
        return row

    for _ in range(MAX_WORKER_TRIES):
        died = subprocess.run([sys.executable, "-c", _DEATH, str(tmp_path)], check=False)  # noqa: S603
        assert died.returncode == -9
    row = give_up_after_deaths(work, row_in(tmp_path), "a.scan", what="source")
    assert (row["state"], row["reason"]) == ("failed", "worker_died")
    assert row["detail"] == "the worker died 3 times on this source"
    assert give_up_after_deaths(work, row_in(tmp_path), "b.scan", what="source")["state"] is None
    assert len(done) == 1
    assert os.listdir(tmp_path / "tries") == ["a.scan"]  # noqa: PTH208 - names only


def test_work_that_ends_leaves_no_trace(tmp_path: Path) -> None:
    for _ in range(2 * MAX_WORKER_TRIES):
        row = give_up_after_deaths(dict, row_in(tmp_path), "a.scan", what="source")
        assert row["state"] is None
    assert not list((tmp_path / "tries").iterdir())


def test_row_that_has_ended_is_left_alone(tmp_path: Path) -> None:
    row = {**row_in(tmp_path), "state": "unreadable"}
    assert give_up_after_deaths(dict, row, "a.scan", what="source") is row
