"""The guard: failures are data, seconds are kept, what kills its worker is given up alone."""

import subprocess
import sys

import pytest

from animaray.pipelines.curation.config import CurationConfig
from animaray.pipelines.curation.guard import (
    MAX_WORKER_DEATHS,
    describe_error,
    guarded,
    run_family,
)
from animaray.pipelines.curation.rows import Row, new_row
from animaray.pipelines.curation.workplace import Marks, Workplace
from animaray.platform.errors import MediaError, StoreError

PLACE = Workplace(config=CurationConfig(sources=("x",)))


@guarded("think")
def works(row: Row, place: Workplace) -> Row:
    return {**row, "answer": 42}


@guarded("think")
def breaks(row: Row, place: Workplace) -> Row:
    raise ValueError(f"bad {row['path']}\nsecond line")


def breaks_family(row: Row) -> Row:
    raise ValueError(f"bad {row['path']}\nsecond line")


def test_a_stage_adds_its_columns_and_its_time() -> None:
    row = works(new_row("a.mp4", "/"), PLACE)
    assert (row["answer"], row["state"]) == (42, None)
    assert row["seconds"]["think"] >= 0


def test_an_exception_ends_the_row_as_failed() -> None:
    row = breaks(new_row("a.mp4", "/"), PLACE)
    assert (row["state"], row["reason"], row["detail"]) == (
        "failed", "think", "ValueError: bad a.mp4",
    )  # fmt: skip


def test_an_ended_row_is_left_alone() -> None:
    row = {**new_row("a.mp4", "/"), "state": "unreadable"}
    assert breaks(row, PLACE) is row
    assert run_family("face", breaks_family, row, needs=(), provenance="x") is row


def test_a_store_that_fails_stops_the_run_and_blames_no_input() -> None:
    def away(row: Row, place: Workplace) -> Row:
        raise StoreError("s3://bucket cannot be used.")

    with pytest.raises(StoreError):
        guarded("think")(away)(new_row("a.mp4", "/"), PLACE)


def test_a_family_that_fails_marks_those_that_need_it() -> None:
    row = run_family("face", breaks_family, new_row("a.mp4", "/"), needs=(), provenance="yunet")
    assert (row["state"], row["face_state"]) == (None, "failed")
    assert row["face_note"] == "ValueError: bad a.mp4"
    assert row["face_producer"] == "yunet"
    row = run_family("camera", dict, row, needs=("face",), provenance="flow")
    assert (row["camera_state"], row["camera_note"]) == ("not_run", "needs face")


def test_a_family_that_works_is_ok() -> None:
    row = run_family("face", dict, new_row("a.mp4", "/"), needs=(), provenance="yunet")
    assert (row["face_state"], row["face_note"]) == ("ok", None)


def test_our_errors_are_told_by_their_message() -> None:
    error = MediaError("The file is cut off.", fix="Fetch it again.")
    assert describe_error(error) == "The file is cut off."


def test_a_row_that_ended_three_processes_is_given_up_and_no_other() -> None:
    marks = Marks()
    place = Workplace(config=PLACE.config, marks=marks)
    row = {**new_row("a.mp4", "/"), "clip_id": "c"}
    for deaths in range(MAX_WORKER_DEATHS):
        assert marks.begin("c.think") == deaths  # and no end: the process died
    given_up = works(row, place)
    assert (given_up["state"], given_up["reason"]) == ("failed", "worker_died")
    assert given_up["detail"] == "the worker died or stood still 3 times on this clip"
    assert works({**row, "clip_id": "d"}, place)["answer"] == 42


def test_work_that_ends_leaves_no_mark() -> None:
    place = Workplace(config=PLACE.config, marks=Marks())
    for _ in range(2 * MAX_WORKER_DEATHS):
        assert works(new_row("a.mp4", "/"), place)["state"] is None
        assert breaks(new_row("a.mp4", "/"), place)["reason"] == "think"


_STANDS_STILL = """
import ctypes
from animaray.pipelines.curation.config import CurationConfig
from animaray.pipelines.curation.guard import guarded
from animaray.pipelines.curation.rows import new_row
from animaray.pipelines.curation.workplace import Workplace
# PyDLL holds the interpreter's lock while it sleeps: no Python thread could help.
stage = guarded("think", max_s=0.1)(lambda row, place: ctypes.PyDLL(None).sleep(60))
stage(new_row("a.mp4", "/"), Workplace(config=CurationConfig(sources=("x",))))
"""


def test_work_that_stands_still_ends_its_process() -> None:
    ended = subprocess.run(  # noqa: S603
        [sys.executable, "-c", _STANDS_STILL], stderr=subprocess.PIPE, check=False
    )
    assert ended.returncode == 1
    assert b"Timeout" in ended.stderr
