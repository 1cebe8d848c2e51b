"""Running stages: failures are data, ended rows pass through, times are kept."""

from animaray.pipelines.curation.stage_runner import describe_error, new_row, run_family, run_stage
from animaray.platform.errors import MediaError


def works(row: dict) -> dict:
    return {**row, "answer": 42}


def breaks(row: dict) -> dict:
    raise ValueError(f"bad {row['path']}\nsecond line")


def test_a_stage_adds_its_columns_and_its_time() -> None:
    row = run_stage("think", works, new_row("a.mp4", "/"))
    assert row["answer"] == 42
    assert row["state"] is None
    assert row["seconds"]["think"] >= 0


def test_an_exception_ends_the_row_as_failed() -> None:
    row = run_stage("think", breaks, new_row("a.mp4", "/"))
    assert (row["state"], row["reason"], row["detail"]) == (
        "failed", "think", "ValueError: bad a.mp4",
    )  # fmt: skip


def test_an_ended_row_is_left_alone() -> None:
    row = {**new_row("a.mp4", "/"), "state": "unreadable"}
    assert run_stage("think", breaks, row) is row
    assert run_family("face", breaks, row, needs=(), provenance="x") is row


def test_a_family_that_fails_marks_those_that_need_it() -> None:
    row = run_family("face", breaks, new_row("a.mp4", "/"), needs=(), provenance="yunet")
    assert (row["state"], row["face_state"]) == (None, "failed")
    assert row["face_note"] == "ValueError: bad a.mp4"
    assert row["face_producer"] == "yunet"
    row = run_family("camera", works, row, needs=("face",), provenance="flow")
    assert (row["camera_state"], row["camera_note"]) == ("not_run", "needs face")
    assert "answer" not in row


def test_a_family_that_works_is_ok() -> None:
    row = run_family("face", works, new_row("a.mp4", "/"), needs=(), provenance="yunet")
    assert (row["face_state"], row["face_note"], row["answer"]) == ("ok", None, 42)


def test_our_errors_are_told_by_their_message() -> None:
    error = MediaError("The file is cut off.", fix="Fetch it again.")
    assert describe_error(error) == "The file is cut off."
