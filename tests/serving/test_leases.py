"""The worker's side of the job store: one holder per fence, nothing lost, nothing run twice."""

import threading

import pytest

from animaray.serving.jobs.leases import WORKER_LOST_CODE, Lease
from animaray.serving.jobs.limits import ServingLimits
from animaray.serving.jobs.records import FailureDocument, JobResult, JobState, LeaseLostError
from animaray.serving.jobs.store import JobStore
from tests.serving.serving_parts import Clock, job_request

LIMITS = ServingLimits()
RESULT = JobResult(
    file_name="x.1.mp4", num_bytes=3, sha256="0" * 64, width_px=2, height_px=2, num_frames=2,
    fps=8.0, identity_similarity=0.75, stage_s={"denoise": 2.0}, warnings=["one"],
)  # fmt: skip
FAILURE = FailureDocument(code="AR-SRV-01", message="It broke.", retryable=True)


def claim(store: JobStore, worker_id: str = "w", lease_s: float = 10.0) -> Lease:
    lease = store.leases.claim(worker_id, lease_s)
    assert lease is not None
    return lease


def state_of(store: JobStore, lease: Lease) -> JobState:
    job = store.get(lease.job.job_id, lease.job.tenant)
    assert job is not None
    return job.state


def test_a_job_is_claimed_once(store: JobStore) -> None:
    for _ in range(6):
        store.submit(job_request(), LIMITS)
    claimed: list[str] = []

    def work(name: str) -> None:
        while (lease := store.leases.claim(name, 10.0)) is not None:
            claimed.append(lease.job.job_id)

    threads = [threading.Thread(target=work, args=(f"w{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == 6
    assert len(set(claimed)) == 6


def test_tenants_take_turns(store: JobStore, clock: Clock) -> None:
    for tenant in ("greedy", "greedy", "greedy", "modest"):
        store.submit(job_request(tenant=tenant), LIMITS)
        clock.now += 1
    assert [claim(store).job.tenant for _ in range(4)] == ["greedy", "modest", "greedy", "greedy"]


def test_success_is_published_with_its_measurements(store: JobStore, clock: Clock) -> None:
    store.submit(job_request(), LIMITS)
    clock.now += 5
    lease = claim(store)
    store.leases.report(lease, 0, 10)
    assert state_of(store, lease) == JobState.RUNNING
    store.leases.succeed(lease, RESULT)
    job = store.get(lease.job.job_id, "public")
    assert job is not None
    assert (job.state, job.result, job.identity_similarity) == (JobState.SUCCEEDED, RESULT, 0.75)
    totals = {(t.name, t.label): (t.count, t.total) for t in store.totals()}
    assert totals["queue_wait", ""] == (1, pytest.approx(5.0))
    assert totals["stage", "denoise"] == (1, pytest.approx(2.0))
    assert totals["jobs", "succeeded:"][0] == 1


def test_expired_lease_frees_the_job_with_the_same_options(store: JobStore, clock: Clock) -> None:
    store.submit(job_request(), LIMITS)
    first = claim(store, "dead", lease_s=10.0)
    clock.now += 9
    assert store.leases.release_expired() == []
    clock.now += 2
    assert store.leases.release_expired() == [first.job.job_id]
    second = claim(store, "alive")
    assert second.job.options == first.job.options
    assert (second.job.attempt, second.fence) == (2, first.fence + 1)


def test_renewed_lease_does_not_expire(store: JobStore, clock: Clock) -> None:
    store.submit(job_request(), LIMITS)
    lease = claim(store, lease_s=10.0)
    for _ in range(5):
        clock.now += 8
        assert store.leases.renew(lease) is False
        assert store.leases.release_expired() == []


@pytest.mark.parametrize("is_retaken", [False, True])
def test_zombie_writes_are_refused(store: JobStore, clock: Clock, is_retaken: bool) -> None:
    store.submit(job_request(), LIMITS)
    zombie = claim(store, "zombie")
    clock.now += 60
    store.leases.release_expired()
    if is_retaken:
        claim(store, "alive")
    before = store.get(zombie.job.job_id, "public")
    for write in (
        lambda: store.leases.renew(zombie),
        lambda: store.leases.report(zombie, 1, 2),
        lambda: store.leases.note(zombie, "note"),
        lambda: store.leases.succeed(zombie, RESULT),
        lambda: store.leases.fail(zombie, FAILURE, may_retry=True),
        lambda: store.leases.finish_cancelled(zombie),
        lambda: store.leases.hand_back(zombie),
    ):
        with pytest.raises(LeaseLostError, match="no longer holds job"):
            write()
    assert store.get(zombie.job.job_id, "public") == before


def test_lost_workers_end_the_job_after_its_attempts(store: JobStore, clock: Clock) -> None:
    job, _ = store.submit(job_request(max_attempts=2), LIMITS)
    for _ in range(2):
        claim(store)
        clock.now += 60
        store.leases.release_expired()
    failed = store.get(job.job_id, "public")
    assert failed is not None
    assert failed.state == JobState.FAILED
    assert failed.failure is not None
    assert failed.failure.code == WORKER_LOST_CODE
    assert "lost its worker 2 times" in failed.failure.message
    assert store.leases.claim("w", 10.0) is None


def test_failure_is_retried_only_where_it_may_help(store: JobStore) -> None:
    store.submit(job_request(max_attempts=2), LIMITS)
    store.leases.fail(claim(store), FAILURE, may_retry=True)
    lease = claim(store)
    assert lease.job.attempt == 2
    store.leases.fail(lease, FAILURE, may_retry=True)
    assert state_of(store, lease) == JobState.FAILED
    store.submit(job_request(), LIMITS)
    lease = claim(store)
    store.leases.fail(lease, FAILURE, may_retry=False)
    assert state_of(store, lease) == JobState.FAILED


def test_cancel_of_a_running_job_reaches_its_worker(store: JobStore) -> None:
    job, _ = store.submit(job_request(), LIMITS)
    lease = claim(store)
    asked = store.request_cancel(job.job_id, "public")
    assert asked is not None
    assert (asked.state, asked.cancel_requested) == (JobState.PREPARING, True)
    assert store.leases.renew(lease) is True
    store.leases.finish_cancelled(lease)
    assert state_of(store, lease) == JobState.CANCELLED


def test_cancelled_job_of_a_dead_worker_is_not_run_again(store: JobStore, clock: Clock) -> None:
    job, _ = store.submit(job_request(), LIMITS)
    claim(store)
    store.request_cancel(job.job_id, "public")
    clock.now += 60
    assert store.leases.release_expired() == [job.job_id]
    cancelled = store.get(job.job_id, "public")
    assert cancelled is not None
    assert cancelled.state == JobState.CANCELLED


def test_handed_back_job_keeps_its_attempts(store: JobStore) -> None:
    store.submit(job_request(max_attempts=1), LIMITS)
    store.leases.hand_back(claim(store))
    assert claim(store).job.attempt == 1


def test_workers_are_listed_while_their_heartbeat_comes(store: JobStore, clock: Clock) -> None:
    store.leases.record_heartbeat("a", "loading")
    store.leases.record_heartbeat("a", "ready", "model 1")
    clock.now += 20
    store.leases.record_heartbeat("b", "failed", "no weights")
    assert [(w.worker_id, w.state, w.detail) for w in store.leases.workers(10.0)] == [
        ("b", "failed", "no weights")
    ]
    assert [w.worker_id for w in store.leases.workers(100.0)] == ["a", "b"]
    store.leases.leave("a")
    assert [w.worker_id for w in store.leases.workers(100.0)] == ["b"]
