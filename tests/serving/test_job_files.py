"""Uploads and results on disk."""

import os
from pathlib import Path

import pytest

from animaray.platform.errors import UsageError
from animaray.serving.jobs.files import JobFiles

JOB = "0123456789abcdef" * 2


def test_attempts_write_results_of_their_own(tmp_path: Path) -> None:
    files = JobFiles(tmp_path)
    first, second = files.write_result(JOB, 1, b"one"), files.write_result(JOB, 2, b"two")
    assert (first, second) == (f"{JOB}.1.mp4", f"{JOB}.2.mp4")
    files.remove_results(JOB, keep=second)
    assert [path.name for path in files.results_dir.iterdir()] == [second]
    files.remove_attempt(JOB, 1)  # gone already: no error
    files.remove_attempt(JOB, 2)
    assert list(files.results_dir.iterdir()) == []


@pytest.mark.parametrize("name", ["../x", "a" * 31, "A" * 32, "", "0" * 33, "0" * 31 + "/"])
def test_foreign_ids_name_no_folder(tmp_path: Path, name: str) -> None:
    files = JobFiles(tmp_path)
    with pytest.raises(UsageError, match="Expected a job id"):
        files.upload_dir(name)
    files.remove_uploads(name)
    assert (tmp_path / "uploads").is_dir()


def test_folders_are_closed_to_other_users(tmp_path: Path) -> None:
    files = JobFiles(tmp_path)
    for folder in (files.upload_dir(JOB), files.results_dir):
        assert folder.stat().st_mode & 0o077 == 0


def test_vacuum_keeps_what_is_needed_or_young(tmp_path: Path) -> None:
    files = JobFiles(tmp_path)
    needed, old, young = JOB, "a" * 32, "b" * 32
    for job_id in (needed, old, young):
        (files.upload_dir(job_id) / "driving_video").write_bytes(b"x")
        files.write_result(job_id, 1, b"x")
    for job_id in (needed, old):
        os.utime(files.upload_dir(job_id), (0, 0))
        os.utime(files.results_dir / f"{job_id}.1.mp4", (0, 0))
    removed = files.vacuum(upload_ids={needed}, result_ids={needed})
    assert {path.name for path in removed} == {old, f"{old}.1.mp4"}
    left = {path.name for path in (tmp_path / "uploads").iterdir()}
    assert left == {needed, young}
