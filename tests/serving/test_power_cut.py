"""Accepted jobs survive a power cut: a file system is cut off under the running job store.

Needs root and a loop device; the cut is ext4's own "shut down without flushing the journal".
"""

import contextlib
import fcntl
import os
import secrets
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving_parts import job_request

from animaray.platform.errors import AnimarayError
from animaray.serving import job_tables
from animaray.serving.jobs import JobStore
from animaray.serving.limits import ServingLimits

_GOING_DOWN, _WITHOUT_LOG_FLUSH = 0x8004587D, 2
LIMITS = ServingLimits(max_active_jobs_per_tenant=1000, max_queued_jobs=1000)


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - fixed commands


class Disk:
    """A small file system that can lose its power."""

    def __init__(self, folder: Path) -> None:
        self.image, self.mount_point = folder / "disk.img", folder / "disk"
        self.mount_point.mkdir()
        with self.image.open("wb") as file:
            file.truncate(32 * 2**20)
        run("mkfs.ext4", "-q", "-F", str(self.image))
        self.mount()

    def mount(self) -> None:
        run("mount", "-o", "loop", str(self.image), str(self.mount_point))

    def unmount(self) -> None:
        run("umount", str(self.mount_point))

    def cut_power(self) -> None:
        descriptor = os.open(self.mount_point, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _GOING_DOWN, struct.pack("I", _WITHOUT_LOG_FLUSH))
        finally:
            os.close(descriptor)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if os.getuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip("needs root and mkfs.ext4")
    try:
        made = Disk(tmp_path)
    except (subprocess.CalledProcessError, OSError) as error:
        pytest.skip(f"no loop device can be mounted here: {error}")
    yield made
    with contextlib.suppress(subprocess.CalledProcessError):
        made.unmount()


def submit_and_cut(disk: Disk, num_jobs: int) -> tuple[set[str], set[str]]:
    """Submit jobs, cut the power at the last answer; return accepted and surviving ids."""
    url = f"sqlite:///{disk.mount_point}/{secrets.token_hex(4)}.sqlite"
    store = JobStore(url)
    os.sync()  # the empty database is on the disk: only the jobs are at stake
    accepted = {store.submit(job_request(), LIMITS)[0].job_id for _ in range(num_jobs)}
    disk.cut_power()
    with contextlib.suppress(AnimarayError):
        store.submit(job_request(), LIMITS)  # an unknown outcome, and never an accepted one
    store.close()
    disk.unmount()
    disk.mount()
    store = JobStore(url)
    surviving = store.ids_in(list(job_tables.JobState))
    with store._database.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"
    store.close()
    return accepted, surviving


def test_no_accepted_job_is_lost(disk: Disk) -> None:
    for num_jobs in (1, 2, 3, 7, 20):
        accepted, surviving = submit_and_cut(disk, num_jobs)
        assert accepted <= surviving, f"{len(accepted - surviving)} of {num_jobs} lost"


def test_the_cut_bites_where_the_database_is_less_careful(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With synchronous=NORMAL, the common advice, the same cut does lose accepted jobs."""

    def careless(connection, _record):  # type: ignore[no-untyped-def]
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    monkeypatch.setattr(job_tables, "_make_sqlite_durable", careless)
    accepted, surviving = submit_and_cut(disk, 10)
    assert accepted - surviving
