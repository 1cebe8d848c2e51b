"""The client's side of the job store: durable, idempotent, one tenant never sees another."""

import sqlite3
import threading
from pathlib import Path

import pytest

from animaray.platform.errors import ConfigError, MachineError, RefusedError
from animaray.serving.jobs.limits import ServingLimits
from animaray.serving.jobs.records import FailureDocument, JobResult, JobState
from animaray.serving.jobs.store import JobStore
from tests.serving.serving_parts import Clock, job_request

LIMITS = ServingLimits()
OLD_DATABASE = Path(__file__).with_name("jobs_of_89e19e0.sql")


def test_submitted_job_is_found_by_its_tenant_only(store: JobStore) -> None:
    job, is_new = store.submit(job_request(), LIMITS)
    assert is_new
    assert job.state == JobState.QUEUED
    assert store.get(job.job_id, "public") == job
    assert store.get(job.job_id, "somebody-else") is None
    assert store.request_cancel(job.job_id, "somebody-else") is None
    assert not store.forget(job.job_id, "somebody-else")


def test_same_key_gives_the_same_job(store: JobStore) -> None:
    first, _ = store.submit(job_request(idempotency_key="k"), LIMITS)
    again, is_new = store.submit(job_request(idempotency_key="k"), LIMITS)
    assert (again.job_id, is_new) == (first.job_id, False)


def test_same_key_of_another_tenant_is_another_job(store: JobStore) -> None:
    first, _ = store.submit(job_request(idempotency_key="k"), LIMITS)
    other, is_new = store.submit(job_request(idempotency_key="k", tenant="b"), LIMITS)
    assert is_new
    assert other.job_id != first.job_id


def test_same_key_for_another_request_is_refused(store: JobStore) -> None:
    store.submit(job_request(idempotency_key="k"), LIMITS)
    with pytest.raises(RefusedError, match="used before for another request") as caught:
        store.submit(job_request(idempotency_key="k", fingerprint="other"), LIMITS)
    assert caught.value.reason == "idempotency_conflict"


def test_concurrent_twins_make_one_job(store: JobStore) -> None:
    ids: list[str] = []

    def submit() -> None:
        ids.append(store.submit(job_request(idempotency_key="twin"), LIMITS)[0].job_id)

    threads = [threading.Thread(target=submit) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 12
    assert len(set(ids)) == 1
    assert len(store.list_jobs("public")) == 1


def test_full_queue_and_full_tenant_are_refused(store: JobStore) -> None:
    limits = ServingLimits(max_active_jobs_per_tenant=2, max_queued_jobs=3)
    for _ in range(2):
        store.submit(job_request(), limits)
    with pytest.raises(RefusedError, match="You may hold 2 jobs at once and have 2") as caught:
        store.submit(job_request(), limits)
    assert caught.value.reason == "tenant_quota"
    store.submit(job_request(tenant="b"), limits)
    with pytest.raises(RefusedError, match="3 jobs wait, and the queue holds 3") as caught:
        store.submit(job_request(tenant="c"), limits)
    assert caught.value.reason == "queue_full"
    with pytest.raises(RefusedError, match="the queue holds 3"):
        store.check_room("c", None, limits)


def test_known_key_passes_a_full_queue(store: JobStore) -> None:
    limits = ServingLimits(max_queued_jobs=1)
    first, _ = store.submit(job_request(idempotency_key="k"), limits)
    store.check_room("public", "k", limits)
    assert store.submit(job_request(idempotency_key="k"), limits)[0].job_id == first.job_id


def test_pages_are_newest_first_and_meet(store: JobStore, clock: Clock) -> None:
    ids = []
    for _ in range(5):
        ids.append(store.submit(job_request(), LIMITS)[0].job_id)
        clock.now += 1
    first = store.list_jobs("public", limit=2)
    second = store.list_jobs("public", limit=10, before=first[-1].job_id)
    assert [job.job_id for job in [*first, *second]] == ids[::-1]
    assert store.list_jobs("public", state=JobState.SUCCEEDED) == []


def test_waiting_job_is_cancelled_at_once_and_stays_cancelled(store: JobStore) -> None:
    job, _ = store.submit(job_request(), LIMITS)
    cancelled = store.request_cancel(job.job_id, "public")
    assert cancelled is not None
    assert cancelled.state == JobState.CANCELLED
    assert store.leases.claim("w", 10.0) is None
    again = store.request_cancel(job.job_id, "public")
    assert again == cancelled


def test_events_are_numbered_without_gaps(store: JobStore) -> None:
    job, _ = store.submit(job_request(), LIMITS)
    lease = store.leases.claim("w", 10.0)
    assert lease is not None
    for step in range(4):
        store.leases.report(lease, step, 3, identity_similarity=0.5)
    store.request_cancel(job.job_id, "public")
    store.leases.finish_cancelled(lease)
    events = store.events(job.job_id)
    assert [event.number for event in events] == list(range(1, 9))
    assert [event.kind for event in events] == [
        "queued", "preparing", "running", "progress", "progress", "progress",
        "cancel_requested", "cancelled",
    ]  # fmt: skip
    assert [event.number for event in store.events(job.job_id, after=6)] == [7, 8]


def test_queue_place_counts_those_before(store: JobStore, clock: Clock) -> None:
    jobs = []
    for _ in range(3):
        jobs.append(store.submit(job_request(), LIMITS)[0])
        clock.now += 1
    assert [store.queue_place(job) for job in jobs] == [1, 2, 3]
    store.leases.claim("w", 10.0)
    assert store.queue_place(jobs[2]) == 2
    taken = store.get(jobs[0].job_id, "public")
    assert taken is not None
    assert store.queue_place(taken) is None


def test_wait_is_predicted_from_measured_jobs_only(store: JobStore) -> None:
    assert store.predicted_wait_s(1, 1) is None
    store.submit(job_request(), LIMITS)
    lease = store.leases.claim("w", 10.0)
    assert lease is not None
    store.leases.succeed(lease, make_result({"denoise": 6.0, "encode": 2.0}))
    # One job took 8 s: the third in line of two workers starts after 3 * 8 / 2 = 12 s.
    assert store.predicted_wait_s(3, 2) == pytest.approx(12.0)


def make_result(stage_s: dict[str, float]) -> JobResult:
    return JobResult(
        file_name="x.1.mp4", num_bytes=1, sha256="0" * 64, width_px=2, height_px=2, num_frames=2,
        fps=8.0, identity_similarity=0.5, stage_s=stage_s,
    )  # fmt: skip


def test_finished_job_can_be_forgotten_with_its_events(store: JobStore) -> None:
    job, _ = store.submit(job_request(), LIMITS)
    assert not store.forget(job.job_id, "public")
    store.request_cancel(job.job_id, "public")
    assert store.forget(job.job_id, "public")
    assert store.get(job.job_id, "public") is None
    assert store.events(job.job_id) == []


def test_accepted_job_is_there_after_a_restart(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/jobs.sqlite"
    first = JobStore(url)
    job, _ = first.submit(job_request(), LIMITS)
    first.close()
    second = JobStore(url)
    assert second.get(job.job_id, "public") == job
    second.close()


def test_every_sqlite_connection_is_durable(tmp_path: Path) -> None:
    store = JobStore(f"sqlite:///{tmp_path}/jobs.sqlite")
    levels = []

    def look() -> None:
        with store._database.reading() as session:
            level = session.connection().exec_driver_sql("PRAGMA synchronous").scalar_one()
            mode = session.connection().exec_driver_sql("PRAGMA journal_mode").scalar_one()
            levels.append((level, mode))

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
    assert levels == [(2, "wal")] * 4


def test_database_without_wal_is_refused() -> None:
    with pytest.raises(MachineError, match="journal_mode=WAL and synchronous=FULL"):
        JobStore("sqlite://")


def test_other_databases_and_bad_urls_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Cannot use the job database"):
        JobStore("mysql://user:secret@host/jobs")
    with pytest.raises(MachineError, match="unable to open database file"):
        JobStore(f"sqlite:///{tmp_path}/missing/jobs.sqlite")


def test_damaged_database_is_told_apart_from_an_empty_one(tmp_path: Path) -> None:
    file = tmp_path / "jobs.sqlite"
    file.write_bytes(b"this is not a database" * 100)
    with pytest.raises((MachineError, sqlite3.DatabaseError), match="not a database"):
        JobStore(f"sqlite:///{file}")


def test_database_of_another_version_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "jobs.sqlite"
    JobStore(f"sqlite:///{file}").close()
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE schema_version SET version = 99")
    connection.close()
    with pytest.raises(MachineError, match="has version 99; this program needs 1"):
        JobStore(f"sqlite:///{file}")


def test_database_of_the_code_before_the_records_were_mapped_is_read_and_written(
    tmp_path: Path, clock: Clock
) -> None:
    """The file was written by commit 89e19e0: one job of each kind, of two tenants."""
    with sqlite3.connect(tmp_path / "jobs.sqlite") as connection:
        connection.executescript(OLD_DATABASE.read_text())
    connection.close()
    store = JobStore(f"sqlite:///{tmp_path}/jobs.sqlite", clock)
    done, failed, running, _, cancelled = (store.get(f"{n:032x}", "public") for n in range(1, 6))
    assert done is not None
    assert failed is not None
    assert running is not None
    assert cancelled is not None
    assert done.options == {"seed": 7, "person": ["left"]}
    assert (done.state, done.attempt, done.last_event) == (JobState.SUCCEEDED, 1, 5)
    assert done.result is not None
    assert (done.result.file_name, done.result.fps, done.result.warnings) == (
        "x.1.mp4", 7.0, ["one"],
    )  # fmt: skip
    assert failed.failure == FailureDocument(
        code="AR-FAC-01", message="No face.", fix="Use another.", retryable=False
    )
    assert (running.state, running.worker_id, running.result) == (JobState.RUNNING, "w1", None)
    assert (cancelled.state, cancelled.cancel_requested) == (JobState.CANCELLED, True)
    assert [event.kind for event in store.events(done.job_id)] == [
        "queued", "preparing", "running", "progress", "succeeded",
    ]  # fmt: skip
    assert {total.name: total.count for total in store.totals()}["queue_wait"] == 3
    assert [worker.detail for worker in store.leases.workers(1e9)] == ["model-1"]
    # The worker of that time is gone; its job and the waiting one are done by this code.
    clock.now += 1000
    assert store.leases.release_expired() == [running.job_id]
    leases = [store.leases.claim("w2", 10.0) for _ in range(2)]
    assert [lease and (lease.job.job_id, lease.fence) for lease in leases] == [
        (running.job_id, 2), (f"{4:032x}", 1),
    ]  # fmt: skip
    store.close()
