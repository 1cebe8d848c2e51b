"""The client's side of the job store: submit, read, list, cancel, forget.

A job that `submit` returned survives power loss. Everything a tenant sees is found by job id *and*
tenant, so that a foreign id is the same as an unknown one.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from sqlalchemy import delete, func, select, tuple_
from sqlalchemy.orm import Session

from animaray.platform.errors import RefusedError
from animaray.serving.jobs.database import Job, JobDatabase, JobEvent, Total
from animaray.serving.jobs.leases import Leases
from animaray.serving.jobs.limits import ServingLimits
from animaray.serving.jobs.records import (
    ACTIVE_STATES,
    FINISHED_STATES,
    HELD_STATES,
    DuplicateRowError,
    JobState,
)


class JobStore:
    """Durable jobs in SQLite or PostgreSQL.

    Args:
        url: SQLAlchemy URL, such as `sqlite:////data/jobs.sqlite`.
        clock: Returns Unix time in seconds.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.time) -> None:
        self._database = JobDatabase(url, clock)
        self.leases = Leases(self._database)

    def close(self) -> None:
        """Close all connections."""
        self._database.close()

    def submit(self, request: Job, limits: ServingLimits) -> tuple[Job, bool]:
        """Accept a job, or find the one that the same key was used for.

        RefusedError follows when the key was used for another request (reason
        "idempotency_conflict"), the tenant has too many jobs ("tenant_quota") or the queue is full
        ("queue_full").

        Returns:
            The job, and whether it is new.

        Raises:
            DuplicateRowError: The job id was used before.
        """
        try:
            with self._database.writing() as session:
                known = self._find_by_key(session, request)
                if known is not None:
                    return known, False
                self._check_room(session, request.tenant, limits)
                return self._insert(session, request), True
        except DuplicateRowError:  # a twin came first (PostgreSQL; SQLite writers take turns)
            with self._database.reading() as session:
                known = self._find_by_key(session, request)
            if known is None:
                raise
            return known, False

    def check_room(self, tenant: str, idempotency_key: str | None, limits: ServingLimits) -> None:
        """Refuse early, before the upload is read, what `submit` would refuse for lack of room."""
        known = select(Job.job_id).where(
            Job.tenant == tenant, Job.idempotency_key == idempotency_key
        )
        with self._database.reading() as session:
            if idempotency_key is None or session.execute(known).first() is None:
                self._check_room(session, tenant, limits)

    def _find_by_key(self, session: Session, request: Job) -> Job | None:
        if request.idempotency_key is None:
            return None
        known = session.scalar(
            select(Job).where(
                Job.tenant == request.tenant, Job.idempotency_key == request.idempotency_key
            )
        )
        if known is not None and known.fingerprint != request.fingerprint:
            raise RefusedError(
                f"The Idempotency-Key was used before for another request (job {known.job_id}).",
                fix="Send a new key with a new request.",
                reason="idempotency_conflict",
            )
        return known

    def _check_room(self, session: Session, tenant: str, limits: ServingLimits) -> None:
        active = select(func.count()).select_from(Job).where(Job.state.in_(ACTIVE_STATES))
        mine = session.execute(active.where(Job.tenant == tenant)).scalar_one()
        if mine >= limits.max_active_jobs_per_tenant:
            raise RefusedError(
                f"You may hold {limits.max_active_jobs_per_tenant} jobs at once and have {mine}.",
                fix="Wait for one to finish, or cancel one.",
                reason="tenant_quota",
            )
        waiting = session.execute(
            select(func.count()).select_from(Job).where(Job.state == JobState.QUEUED)
        ).scalar_one()
        if waiting >= limits.max_queued_jobs:
            raise RefusedError(
                f"{waiting} jobs wait, and the queue holds {limits.max_queued_jobs}.",
                fix="Send the request again after the time in Retry-After.",
                reason="queue_full",
            )

    def _insert(self, session: Session, request: Job) -> Job:
        now = self._database.clock()
        job = replace(request, created_s=now, updated_s=now)
        session.add(job)
        session.flush()
        self._database.advance(session, [Job.job_id == job.job_id], {}, JobState.QUEUED, {})
        session.refresh(job)
        return job

    def get(self, job_id: str, tenant: str) -> Job | None:
        """Return a tenant's job, or None when the tenant has no such job."""
        with self._database.reading() as session:
            return session.scalar(select(Job).where(Job.job_id == job_id, Job.tenant == tenant))

    def list_jobs(
        self,
        tenant: str,
        *,
        state: JobState | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> list[Job]:
        """Return a tenant's jobs, newest first.

        Args:
            state: Only those in this state, or None for all.
            limit: At most so many.
            before: Job id of the last page's last job, or None for the first page.
        """
        query = select(Job).where(Job.tenant == tenant)
        if state is not None:
            query = query.where(Job.state == state)
        if before is not None:
            border = select(Job.created_s, Job.job_id).where(
                Job.job_id == before, Job.tenant == tenant
            )
            query = query.where(tuple_(Job.created_s, Job.job_id) < border.scalar_subquery())
        query = query.order_by(Job.created_s.desc(), Job.job_id.desc()).limit(limit)
        with self._database.reading() as session:
            return list(session.scalars(query))

    def request_cancel(self, job_id: str, tenant: str) -> Job | None:
        """Cancel a waiting job at once, or ask the worker of a running one to stop.

        Returns:
            The job afterwards (a finished one is left as it is), or None when there is none.
        """
        mine = [Job.job_id == job_id, Job.tenant == tenant]
        with self._database.writing() as session:
            now = self._database.clock()
            cancelled = self._database.advance(
                session,
                [*mine, Job.state == JobState.QUEUED],
                {"state": JobState.CANCELLED, "finished_s": now, "cancel_requested": True},
                JobState.CANCELLED,
                {},
            )
            if not cancelled:
                self._database.advance(
                    session,
                    [*mine, Job.state.in_(HELD_STATES), Job.cancel_requested.is_(False)],
                    {"cancel_requested": True},
                    "cancel_requested",
                    {},
                )
            return session.scalar(select(Job).where(*mine))

    def forget(self, job_id: str, tenant: str) -> bool:
        """Remove a finished job's record and events; return whether there was one."""
        with self._database.writing() as session:
            removed = session.execute(
                delete(Job)
                .where(Job.job_id == job_id, Job.tenant == tenant, Job.state.in_(FINISHED_STATES))
                .returning(Job.job_id)
            )
            return removed.first() is not None

    def finished_before(self, cutoff_s: float) -> list[Job]:
        """Return the jobs of all tenants that finished before a Unix time."""
        query = select(Job).where(Job.state.in_(FINISHED_STATES), Job.finished_s < cutoff_s)
        with self._database.reading() as session:
            return list(session.scalars(query))

    def ids_in(self, states: Sequence[JobState]) -> set[str]:
        """Return the ids of all jobs in any of these states."""
        query = select(Job.job_id).where(Job.state.in_(states))
        with self._database.reading() as session:
            return set(session.scalars(query))

    def events(self, job_id: str, after: int = 0) -> list[JobEvent]:
        """Return a job's events with numbers above `after`, in order."""
        query = (
            select(JobEvent)
            .where(JobEvent.job_id == job_id, JobEvent.number > after)
            .order_by(JobEvent.number)
        )
        with self._database.reading() as session:
            return list(session.scalars(query))

    def queue_place(self, job: Job) -> int | None:
        """Return a waiting job's place by arrival, 1 is next; None when it does not wait."""
        if job.state != JobState.QUEUED:
            return None
        query = (
            select(func.count())
            .select_from(Job)
            .where(
                Job.state == JobState.QUEUED,
                tuple_(Job.created_s, Job.job_id) <= tuple_(job.created_s, job.job_id),
            )
        )
        with self._database.reading() as session:
            return session.scalar(query)

    def counts(self) -> dict[JobState, int]:
        """Return how many jobs are in each state."""
        query = select(Job.state, func.count()).group_by(Job.state)
        with self._database.reading() as session:
            found: dict[str, int] = dict(session.execute(query).all())
        return {state: found.get(state, 0) for state in JobState}

    def totals(self) -> list[Total]:
        """Return all running totals, for metrics and predictions."""
        with self._database.reading() as session:
            return list(session.scalars(select(Total).order_by(Total.name, Total.label)))

    def predicted_wait_s(self, place: int, num_workers: int) -> float | None:
        """Predict when the job at a place starts, from the measured seconds of finished jobs.

        Args:
            place: 1 is next.
            num_workers: Workers that take jobs; at least 1 is assumed.

        Returns:
            Seconds, or None while nothing has been measured.
        """
        measured = next((total.recent for total in self.totals() if total.name == "job"), None)
        return None if measured is None else measured * place / max(num_workers, 1)
