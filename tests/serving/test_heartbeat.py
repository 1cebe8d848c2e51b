"""The heartbeat that keeps leases, and what it tells the working thread."""

import time
from collections.abc import Callable, Iterator

import pytest

from animaray.platform.errors import RefusedError
from animaray.serving.jobs.leases import Lease
from animaray.serving.jobs.limits import ServingLimits
from animaray.serving.jobs.records import (
    JobCancelledError,
    LeaseLostError,
    WorkerDrainedError,
)
from animaray.serving.jobs.store import JobStore
from animaray.serving.work.heartbeat import Heartbeat
from tests.serving.serving_parts import Clock, job_request

LIMITS = ServingLimits()


@pytest.fixture
def heartbeat(store: JobStore) -> Iterator[Heartbeat]:
    running = Heartbeat(store.leases, "w", interval_s=0.02)
    running.start()
    yield running
    running.stop()
    assert store.leases.workers(1e9) == []


def claim(store: JobStore) -> Lease:
    store.submit(job_request(), LIMITS)
    lease = store.leases.claim("w", 10.0)
    assert lease is not None
    return lease


def eventually(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def raised_by(heartbeat: Heartbeat) -> str | None:
    try:
        heartbeat.check()
    except (LeaseLostError, JobCancelledError, WorkerDrainedError, RefusedError) as error:
        return type(error).__name__
    return None


def test_lease_is_renewed_while_the_job_is_held(
    store: JobStore, clock: Clock, heartbeat: Heartbeat
) -> None:
    lease = claim(store)
    with heartbeat.holding(lease, 60.0):
        for _ in range(3):
            clock.now += 8  # more than the lease's 10 s in all
            time.sleep(0.15)
            assert store.leases.release_expired() == []
            heartbeat.check()


def test_cancel_is_noticed_between_steps(store: JobStore, heartbeat: Heartbeat) -> None:
    lease = claim(store)
    with heartbeat.holding(lease, 60.0):
        heartbeat.check()
        store.request_cancel(lease.job.job_id, "public")
        eventually(lambda: raised_by(heartbeat) == "JobCancelledError")
    heartbeat.check()  # the next job is not concerned


def test_lost_lease_is_noticed(store: JobStore, heartbeat: Heartbeat) -> None:
    lease = claim(store)
    with heartbeat.holding(lease, 60.0):
        store.leases.hand_back(lease)
        eventually(lambda: raised_by(heartbeat) == "LeaseLostError")


def test_job_that_takes_too_long_is_refused(store: JobStore, heartbeat: Heartbeat) -> None:
    with heartbeat.holding(claim(store), 0.0):
        time.sleep(0.01)
        with pytest.raises(RefusedError, match="longer than the service allows"):
            heartbeat.check()


def test_drain_stops_the_job_after_its_grace(store: JobStore, heartbeat: Heartbeat) -> None:
    with heartbeat.holding(claim(store), 60.0):
        heartbeat.drain(0.2)
        heartbeat.check()
        eventually(lambda: raised_by(heartbeat) == "WorkerDrainedError")
    eventually(lambda: [w.state for w in store.leases.workers(1e9)] == ["draining"])


def test_state_is_shown_at_once(store: JobStore, heartbeat: Heartbeat) -> None:
    heartbeat.show("failed", "No weights.")
    (worker,) = store.leases.workers(10.0)
    assert (worker.worker_id, worker.state, worker.detail) == ("w", "failed", "No weights.")
