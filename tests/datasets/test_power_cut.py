"""Commits survive a power cut: a file system is cut off under the writer of a dataset.

A small part of tests/faults/power_cuts.py, which cuts at every call. Needs root and a loop device.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.cut_disk import Disk, NoDiskError, small_disk
from tests.faults.power_cuts import Life, cut_at_every_call, no_file_sync, no_folder_sync


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    try:
        with small_disk(tmp_path) as made:
            Life(made.mount_point / "warm", 0).live()
            yield made
    except NoDiskError as error:
        pytest.skip(str(error))


def test_acknowledged_commits_are_there_and_whole(disk: Disk) -> None:
    run = cut_at_every_call(disk, seed=0, first=11, step=71)
    assert run["problems"] == []
    assert run["points"] >= 4
    assert run["acknowledged"] > run["points"]


def test_the_rig_finds_planted_defects(disk: Disk) -> None:
    folders = cut_at_every_call(disk, seed=0, first=1000, defect=no_folder_sync)
    assert any(found["problem"].startswith("lost") for found in folders["problems"])
    files = cut_at_every_call(disk, seed=0, first=1000, defect=no_file_sync)
    assert any(found["problem"].startswith(("half", "torn")) for found in files["problems"])
