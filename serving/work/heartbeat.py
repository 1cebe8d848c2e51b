"""A worker's heartbeat: signs of life and lease renewals from a thread of their own.

The working thread asks `check` between two steps and so learns that its job was cancelled, that
its lease is gone, that its time is over or that the worker is to stop.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from animaray.platform.errors import RefusedError, ServiceError
from animaray.serving.jobs.leases import Lease, Leases
from animaray.serving.jobs.records import (
    JobCancelledError,
    LeaseLostError,
    WorkerDrainedError,
)

HEARTBEAT_INTERVAL_S = 1.0

_log = logging.getLogger("animaray.serving")


class Heartbeat:
    """Say that the worker lives; renew the lease while a job is held.

    Args:
        leases: The worker's side of the job store.
        interval_s: Seconds between two signs of life.
    """

    def __init__(
        self, leases: Leases, worker_id: str, interval_s: float = HEARTBEAT_INTERVAL_S
    ) -> None:
        self._leases = leases
        self._worker_id = worker_id
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._state = ("loading", "")
        self._lease: Lease | None = None
        self._renewed_at = 0.0
        self._deadline = 0.0
        self._is_lost = False
        self._is_cancelled = False
        self._drain_at: float | None = None
        self._thread = threading.Thread(target=self._keep_on, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Start."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, and strike the worker off the list."""
        self._ended.set()
        self._thread.join()
        try:
            self._leases.leave(self._worker_id)
        except ServiceError as error:
            _log.warning("Worker %s left without saying so: %s", self._worker_id, error)

    def show(self, state: str, detail: str = "") -> None:
        """Set what the worker says about itself, and say it now."""
        with self._lock:
            self._state = (state, detail)
        self._record()

    def drain(self, after_s: float) -> None:
        """Let `check` raise WorkerDrainedError after so many seconds."""
        with self._lock:
            if self._drain_at is None:
                self._drain_at = time.monotonic() + after_s

    @contextmanager
    def holding(self, lease: Lease, max_job_s: float) -> Iterator[None]:
        """Keep a lease while the block runs.

        Args:
            max_job_s: Seconds the block may take.
        """
        with self._lock:
            now = time.monotonic()
            self._lease, self._renewed_at, self._deadline = lease, now, now + max_job_s
            self._is_lost = self._is_cancelled = False
        try:
            yield
        finally:
            with self._lock:
                self._lease = None

    def check(self) -> None:
        """Raise when the job in hand must not go on; cheap enough for every step.

        Raises:
            LeaseLostError: Another worker may hold the job.
            JobCancelledError: The client cancelled it.
            WorkerDrainedError: The worker stops.
            RefusedError: The job has used up its time.
        """
        with self._lock:
            lease, now = self._lease, time.monotonic()
            if lease is None:
                return
            if self._is_lost or now - self._renewed_at > lease.lease_s:
                raise LeaseLostError(f"The lease of job {lease.job.job_id} is lost.")
            if self._is_cancelled:
                raise JobCancelledError(f"Job {lease.job.job_id} was cancelled.")
            if self._drain_at is not None and now >= self._drain_at:
                raise WorkerDrainedError(f"Worker {self._worker_id} stops.")
            if now > self._deadline:
                raise RefusedError(
                    "The job took longer than the service allows.",
                    fix="Send a shorter driving video, or fewer steps.",
                    reason="too_slow",
                )

    def _keep_on(self) -> None:
        while not self._ended.wait(self._interval_s):
            self._record()
            self._renew()

    def _record(self) -> None:
        with self._lock:
            state, detail = self._state
            if self._drain_at is not None:
                state = "draining"
        try:
            self._leases.record_heartbeat(self._worker_id, state, detail)
        except ServiceError as error:
            _log.warning("Worker %s cannot reach the job database: %s", self._worker_id, error)

    def _renew(self) -> None:
        with self._lock:
            lease = self._lease
        if lease is None:
            return
        started = time.monotonic()
        try:
            is_cancelled = self._leases.renew(lease)
        except LeaseLostError:
            self._note(lease, is_lost=True)
        except ServiceError as error:
            _log.warning("Job %s: the lease was not renewed: %s", lease.job.job_id, error)
        else:
            self._note(lease, is_cancelled=is_cancelled, renewed_at=started)

    def _note(
        self,
        lease: Lease,
        *,
        is_lost: bool = False,
        is_cancelled: bool = False,
        renewed_at: float | None = None,
    ) -> None:
        with self._lock:
            if self._lease is not lease:  # the job ended meanwhile
                return
            self._is_lost |= is_lost
            self._is_cancelled |= is_cancelled
            if renewed_at is not None:
                self._renewed_at = renewed_at
