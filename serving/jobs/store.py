"""The client's side of the job store: submit, read, list, cancel, forget.

A job that `submit` returned survives power loss. Everything a tenant sees is found by job id *and*
tenant, so that a foreign id is the same as an unknown one.
"""

import time
from collections.abc import Callable, Sequence

from sqlalchemy import Connection, delete, func, insert, select, tuple_

from animaray.platform.errors import RefusedError
from animaray.serving.jobs.database import EVENTS, JOBS, TOTALS, JobDatabase
from animaray.serving.jobs.leases import Leases
from animaray.serving.jobs.limits import ServingLimits
from animaray.serving.jobs.records import (
    ACTIVE_STATES,
    FINISHED_STATES,
    HELD_STATES,
    DuplicateRowError,
    Job,
    JobEvent,
    JobRequest,
    JobState,
    Total,
)
from animaray.serving.jobs.rows import event_from_row, job_from_row


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

    def submit(self, request: JobRequest, limits: ServingLimits) -> tuple[Job, bool]:
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
            with self._database.writing() as connection:
                known = self._find_by_key(connection, request)
                if known is not None:
                    return known, False
                self._check_room(connection, request.tenant, limits)
                return self._insert(connection, request), True
        except DuplicateRowError:  # a twin came first (PostgreSQL; SQLite writers take turns)
            with self._database.reading() as connection:
                known = self._find_by_key(connection, request)
            if known is None:
                raise
            return known, False

    def check_room(self, tenant: str, idempotency_key: str | None, limits: ServingLimits) -> None:
        """Refuse early, before the upload is read, what `submit` would refuse for lack of room."""
        known = select(JOBS.c.job_id).where(
            JOBS.c.tenant == tenant, JOBS.c.idempotency_key == idempotency_key
        )
        with self._database.reading() as connection:
            if idempotency_key is None or connection.execute(known).first() is None:
                self._check_room(connection, tenant, limits)

    def _find_by_key(self, connection: Connection, request: JobRequest) -> Job | None:
        if request.idempotency_key is None:
            return None
        row = connection.execute(
            select(JOBS).where(
                JOBS.c.tenant == request.tenant, JOBS.c.idempotency_key == request.idempotency_key
            )
        ).first()
        if row is None:
            return None
        if row.fingerprint != request.fingerprint:
            raise RefusedError(
                f"The Idempotency-Key was used before for another request (job {row.job_id}).",
                fix="Send a new key with a new request.",
                reason="idempotency_conflict",
            )
        return job_from_row(row)

    def _check_room(self, connection: Connection, tenant: str, limits: ServingLimits) -> None:
        active = select(func.count()).select_from(JOBS).where(JOBS.c.state.in_(ACTIVE_STATES))
        mine = connection.execute(active.where(JOBS.c.tenant == tenant)).scalar_one()
        if mine >= limits.max_active_jobs_per_tenant:
            raise RefusedError(
                f"You may hold {limits.max_active_jobs_per_tenant} jobs at once and have {mine}.",
                fix="Wait for one to finish, or cancel one.",
                reason="tenant_quota",
            )
        waiting = connection.execute(
            select(func.count()).select_from(JOBS).where(JOBS.c.state == JobState.QUEUED)
        ).scalar_one()
        if waiting >= limits.max_queued_jobs:
            raise RefusedError(
                f"{waiting} jobs wait, and the queue holds {limits.max_queued_jobs}.",
                fix="Send the request again after the time in Retry-After.",
                reason="queue_full",
            )

    def _insert(self, connection: Connection, request: JobRequest) -> Job:
        now = self._database.clock()
        connection.execute(
            insert(JOBS).values(
                job_id=request.job_id,
                tenant=request.tenant,
                idempotency_key=request.idempotency_key,
                fingerprint=request.fingerprint,
                state=JobState.QUEUED,
                options=request.options,
                picture_name=request.picture_name,
                video_name=request.video_name,
                created_s=now,
                updated_s=now,
                max_attempts=request.max_attempts,
            )
        )
        mine = [JOBS.c.job_id == request.job_id]
        self._database.advance(connection, mine, {}, JobState.QUEUED, {})
        return job_from_row(connection.execute(select(JOBS).where(*mine)).one())

    def get(self, job_id: str, tenant: str) -> Job | None:
        """Return a tenant's job, or None when the tenant has no such job."""
        with self._database.reading() as connection:
            row = connection.execute(
                select(JOBS).where(JOBS.c.job_id == job_id, JOBS.c.tenant == tenant)
            ).first()
        return None if row is None else job_from_row(row)

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
            tenant: Whose jobs.
            state: Only those in this state, or None for all.
            limit: At most so many.
            before: Job id of the last page's last job, or None for the first page.
        """
        query = select(JOBS).where(JOBS.c.tenant == tenant)
        if state is not None:
            query = query.where(JOBS.c.state == state)
        if before is not None:
            border = select(JOBS.c.created_s, JOBS.c.job_id).where(
                JOBS.c.job_id == before, JOBS.c.tenant == tenant
            )
            query = query.where(tuple_(JOBS.c.created_s, JOBS.c.job_id) < border.scalar_subquery())
        query = query.order_by(JOBS.c.created_s.desc(), JOBS.c.job_id.desc()).limit(limit)
        with self._database.reading() as connection:
            return [job_from_row(row) for row in connection.execute(query)]

    def request_cancel(self, job_id: str, tenant: str) -> Job | None:
        """Cancel a waiting job at once, or ask the worker of a running one to stop.

        Returns:
            The job afterwards (a finished one is left as it is), or None when there is none.
        """
        mine = [JOBS.c.job_id == job_id, JOBS.c.tenant == tenant]
        with self._database.writing() as connection:
            now = self._database.clock()
            cancelled = self._database.advance(
                connection,
                [*mine, JOBS.c.state == JobState.QUEUED],
                {"state": JobState.CANCELLED, "finished_s": now, "cancel_requested": True},
                JobState.CANCELLED,
                {},
            )
            if not cancelled:
                self._database.advance(
                    connection,
                    [*mine, JOBS.c.state.in_(HELD_STATES), JOBS.c.cancel_requested.is_(False)],
                    {"cancel_requested": True},
                    "cancel_requested",
                    {},
                )
            row = connection.execute(select(JOBS).where(*mine)).first()
        return None if row is None else job_from_row(row)

    def forget(self, job_id: str, tenant: str) -> bool:
        """Remove a finished job's record and events; return whether there was one."""
        with self._database.writing() as connection:
            removed = connection.execute(
                delete(JOBS).where(
                    JOBS.c.job_id == job_id,
                    JOBS.c.tenant == tenant,
                    JOBS.c.state.in_(FINISHED_STATES),
                )
            )
            return removed.rowcount > 0

    def finished_before(self, cutoff_s: float) -> list[Job]:
        """Return the jobs of all tenants that finished before a Unix time."""
        query = select(JOBS).where(JOBS.c.state.in_(FINISHED_STATES), JOBS.c.finished_s < cutoff_s)
        with self._database.reading() as connection:
            return [job_from_row(row) for row in connection.execute(query)]

    def ids_in(self, states: Sequence[JobState]) -> set[str]:
        """Return the ids of all jobs in any of these states."""
        query = select(JOBS.c.job_id).where(JOBS.c.state.in_(states))
        with self._database.reading() as connection:
            return set(connection.execute(query).scalars())

    def events(self, job_id: str, after: int = 0) -> list[JobEvent]:
        """Return a job's events with numbers above `after`, in order."""
        query = (
            select(EVENTS)
            .where(EVENTS.c.job_id == job_id, EVENTS.c.number > after)
            .order_by(EVENTS.c.number)
        )
        with self._database.reading() as connection:
            return [event_from_row(row) for row in connection.execute(query)]

    def queue_place(self, job: Job) -> int | None:
        """Return a waiting job's place by arrival, 1 is next; None when it does not wait."""
        if job.state != JobState.QUEUED:
            return None
        query = (
            select(func.count())
            .select_from(JOBS)
            .where(
                JOBS.c.state == JobState.QUEUED,
                tuple_(JOBS.c.created_s, JOBS.c.job_id) <= tuple_(job.created_s, job.job_id),
            )
        )
        with self._database.reading() as connection:
            return int(connection.execute(query).scalar_one())

    def counts(self) -> dict[JobState, int]:
        """Return how many jobs are in each state."""
        query = select(JOBS.c.state, func.count()).group_by(JOBS.c.state)
        with self._database.reading() as connection:
            found: dict[str, int] = dict(connection.execute(query).all())
        return {state: found.get(state, 0) for state in JobState}

    def totals(self) -> list[Total]:
        """Return all running totals, for metrics and predictions."""
        with self._database.reading() as connection:
            rows = connection.execute(select(TOTALS).order_by(TOTALS.c.name, TOTALS.c.label))
            return [Total(**row) for row in rows.mappings()]

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
