"""Accepted jobs survive a power cut: a file system is cut off under the running job store.

Needs root and a loop device; the cut is ext4's own "shut down without flushing the journal".
"""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from animaray.platform.errors import AnimarayError
from animaray.serving.jobs import database as job_tables
from animaray.serving.jobs.limits import ServingLimits
from animaray.serving.jobs.store import JobStore
from tests.faults.cut_disk import Disk, NoDiskError, small_disk
from tests.serving.serving_parts import job_request

LIMITS = ServingLimits(max_active_jobs_per_tenant=1000, max_queued_jobs=1000)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    try:
        with small_disk(tmp_path) as made:
            yield made
    except NoDiskError as error:
        pytest.skip(str(error))


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
    disk.start_again()
    store = JobStore(url)
    surviving = store.ids_in(list(job_tables.JobState))
    with store._database.reading() as session:
        check = session.connection().exec_driver_sql("PRAGMA integrity_check")
        assert check.scalar_one() == "ok"
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
