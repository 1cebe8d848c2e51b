"""The worker's side of the job store: claim, renew, report, publish, give back.

A lease is the right to work on one job for a while. Each claim raises the job's fence, and every
write names the fence it was made under: the database itself refuses what a worker writes after it
lost its lease, however late the worker notices.
"""

import os
import socket
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session, aliased
from sqlalchemy.sql.elements import ColumnElement

from animaray.serving.jobs.database import Job, JobDatabase, WorkerState
from animaray.serving.jobs.records import (
    HELD_STATES,
    WORKER_LOST_CODE,
    FailureDocument,
    JobResult,
    JobState,
    LeaseLostError,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """The right to work on a job until the lease ends; the job's fence makes older rights void."""

    job: Job
    """As it was when it was claimed."""
    lease_s: float
    """How long the lease lasts from each renewal."""

    @property
    def fence(self) -> int:
        """Token that every write under this lease names."""
        return self.job.fence


class Leases:
    """Hand out jobs to workers, each job to at most one worker per fence."""

    def __init__(self, database: JobDatabase) -> None:
        self._database = database

    def claim(self, worker_id: str, lease_s: float) -> Lease | None:
        """Take the next job: tenants with the fewest running jobs first, then the oldest.

        Args:
            lease_s: For how long, until renewed.

        Returns:
            The lease, or None when nothing waits.
        """
        now = self._database.clock()
        others = aliased(Job)
        running = (
            select(func.count())
            .select_from(others)
            .where(others.tenant == Job.tenant, others.state.in_(HELD_STATES))
            .scalar_subquery()
        )
        next_job = (
            select(Job.job_id, Job.created_s, Job.started_s)
            .where(Job.state == JobState.QUEUED)
            .order_by(running, Job.created_s, Job.job_id)
            .limit(1)
            .with_for_update(skip_locked=True, of=Job)
        )
        with self._database.reading() as session:  # the usual case takes no write lock
            waiting = select(Job.job_id).where(Job.state == JobState.QUEUED).limit(1)
            if session.execute(waiting).first() is None:
                return None
        with self._database.writing() as session:
            row = session.execute(next_job).first()
            if row is None:
                return None
            self._database.advance(
                session,
                [Job.job_id == row.job_id],
                {
                    "state": JobState.PREPARING,
                    "fence": Job.fence + 1,
                    "attempt": Job.attempt + 1,
                    "worker_id": worker_id,
                    "lease_until_s": now + lease_s,
                    "started_s": func.coalesce(Job.started_s, now),
                    "step": 0,
                },
                JobState.PREPARING,
                {},
            )
            if row.started_s is None:
                self._database.measure(session, "queue_wait", "", now - row.created_s)
            job = session.scalars(select(Job).where(Job.job_id == row.job_id)).one()
            return Lease(job=job, lease_s=lease_s)

    def renew(self, lease: Lease) -> bool:
        """Keep the lease; return whether the client asked to cancel.

        A lease on a job that another worker holds, or that is finished or back in the queue, ends
        in LeaseLostError, here and in all methods below.
        """
        with self._database.writing() as session:
            row = session.execute(
                update(Job)
                .where(*_held_under(lease))
                .values(lease_until_s=self._database.clock() + lease.lease_s)
                .returning(Job.cancel_requested)
            ).first()
        _check_held(lease, is_held=row is not None)
        return row is not None and bool(row.cancel_requested)

    def report(self, lease: Lease, step: int, num_steps: int, **data: Any) -> None:  # noqa: ANN401
        """Record progress as an event and renew the lease; the first report means running.

        Args:
            lease: The right to do so.
            num_steps: Denoising steps in all.
            data: Further JSON values for the event, such as identity_similarity in [-1, 1].
        """
        values: dict[str, Any] = {
            "state": JobState.RUNNING,
            "step": step,
            "num_steps": num_steps,
            "lease_until_s": self._database.clock() + lease.lease_s,
        }
        if "identity_similarity" in data:
            values["identity_similarity"] = data["identity_similarity"]
        kind = "progress" if step else JobState.RUNNING
        self._change(lease, values, kind, {"step": step, "num_steps": num_steps, **data})

    def note(self, lease: Lease, kind: str, **data: Any) -> None:  # noqa: ANN401 - JSON values
        """Append an event without a change of state."""
        self._change(lease, {}, kind, data)

    def succeed(self, lease: Lease, result: JobResult) -> None:
        """Publish the result: from here on the client sees it.

        When the lease is lost, the result must be thrown away.
        """
        values = _released(JobState.SUCCEEDED, self._database.clock())
        values["result"] = result
        values["identity_similarity"] = result.identity_similarity
        data = {"identity_similarity": result.identity_similarity, "num_bytes": result.num_bytes}
        with self._database.writing() as session:
            is_held = self._database.advance(
                session, _held_under(lease), values, JobState.SUCCEEDED, data
            )
            _check_held(lease, is_held=is_held)
            for stage, seconds in result.stage_s.items():
                self._database.measure(session, "stage", stage, seconds)
            self._database.measure(session, "job", "", sum(result.stage_s.values(), 0.0))
            if result.gpu_peak_memory_bytes is not None:
                self._database.measure(
                    session, "gpu_peak_memory", "", float(result.gpu_peak_memory_bytes)
                )
            if result.identity_similarity is not None:
                self._database.measure(
                    session, "identity_similarity", "", result.identity_similarity
                )

    def fail(self, lease: Lease, failure: FailureDocument, *, may_retry: bool) -> None:
        """Record a failure; put the job back when another attempt may help and is left."""
        if may_retry and lease.job.attempt < lease.job.max_attempts:
            data = {"reason": failure.message, "attempt": lease.job.attempt}
            self._change(lease, _requeued(), "retry", data)
            return
        values = _released(JobState.FAILED, self._database.clock())
        values["failure"] = failure
        self._change(lease, values, JobState.FAILED, failure.model_dump())

    def finish_cancelled(self, lease: Lease) -> None:
        """End a job that the client cancelled while it ran."""
        values = _released(JobState.CANCELLED, self._database.clock())
        self._change(lease, values, JobState.CANCELLED, {})

    def hand_back(self, lease: Lease) -> None:
        """Put the job back untouched because this worker stops; the attempt does not count."""
        values = {**_requeued(), "attempt": Job.attempt - 1}
        self._change(lease, values, "retry", {"reason": "The worker was stopped."})

    def release_expired(self) -> list[str]:
        """Free the jobs of workers that stopped renewing; return their ids.

        A job with attempts left goes back to the queue with its seed unchanged, one without fails.
        """
        now = self._database.clock()
        expired = select(Job).where(Job.state.in_(HELD_STATES), Job.lease_until_s < now)
        with self._database.reading() as session:  # the usual case takes no write lock
            if session.execute(expired.limit(1)).first() is None:
                return []
        expired = expired.with_for_update(skip_locked=True)
        with self._database.writing() as session:
            jobs = session.scalars(expired).all()
            return [job.job_id for job in jobs if self._release(session, job, now)]

    def _release(self, session: Session, job: Job, now: float) -> bool:
        conditions = [Job.job_id == job.job_id, Job.fence == job.fence]
        if job.cancel_requested:
            values = _released(JobState.CANCELLED, now)
            return self._database.advance(session, conditions, values, JobState.CANCELLED, {})
        if job.attempt < job.max_attempts:
            data = {"reason": "The worker was lost.", "attempt": job.attempt}
            return self._database.advance(session, conditions, _requeued(), "retry", data)
        failure = FailureDocument(
            code=WORKER_LOST_CODE,
            message=f"The job lost its worker {job.attempt} times.",
            fix="Try a shorter driving video; if it happens again, tell the operator.",
            retryable=True,
        )
        values = _released(JobState.FAILED, now)
        values["failure"] = failure
        return self._database.advance(
            session, conditions, values, JobState.FAILED, failure.model_dump()
        )

    def _change(
        self, lease: Lease, values: dict[str, Any], kind: str, data: dict[str, Any]
    ) -> None:
        with self._database.writing() as session:
            is_held = self._database.advance(session, _held_under(lease), values, kind, data)
        _check_held(lease, is_held=is_held)

    def record_heartbeat(self, worker_id: str, state: str, detail: str = "") -> None:
        """Record a worker's sign of life.

        Args:
            state: "loading", "ready", "busy", "draining" or "failed".
            detail: What failed, or which model is loaded.
        """
        row = WorkerState(
            worker_id=worker_id,
            state=state,
            detail=detail,
            pid=os.getpid(),
            host=socket.gethostname(),
            heartbeat_s=self._database.clock(),
        )
        with self._database.writing() as session:
            session.merge(row)

    def leave(self, worker_id: str) -> None:
        """Strike a worker off the list."""
        with self._database.writing() as session:
            session.execute(delete(WorkerState).where(WorkerState.worker_id == worker_id))

    def workers(self, max_age_s: float) -> list[WorkerState]:
        """Return the workers that gave a sign of life within the last max_age_s seconds."""
        oldest_s = self._database.clock() - max_age_s
        with self._database.reading() as session:
            return list(
                session.scalars(
                    select(WorkerState)
                    .where(WorkerState.heartbeat_s >= oldest_s)
                    .order_by(WorkerState.worker_id)
                )
            )


def _held_under(lease: Lease) -> list[ColumnElement[bool]]:
    return [
        Job.job_id == lease.job.job_id,
        Job.fence == lease.fence,
        Job.state.in_(HELD_STATES),
    ]


def _requeued() -> dict[str, Any]:
    return {"state": JobState.QUEUED, "worker_id": None, "lease_until_s": None, "step": 0}


def _released(state: JobState, now: float) -> dict[str, Any]:
    return {"state": state, "worker_id": None, "lease_until_s": None, "finished_s": now}


def _check_held(lease: Lease, *, is_held: bool) -> None:
    if not is_held:
        raise LeaseLostError(
            f"Worker {lease.job.worker_id} no longer holds job {lease.job.job_id}"
            f" (fence {lease.fence}).",
            fix="Throw this attempt away.",
        )
