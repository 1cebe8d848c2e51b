"""Turn database rows into job records."""

from typing import Any

from animaray.serving.jobs.records import Job, JobEvent, JobFailure, JobResult, JobState


def job_from_row(row: Any) -> Job:  # noqa: ANN401 - a row of JOBS
    """Build the record of one row of the jobs table."""
    return Job(
        job_id=row.job_id,
        tenant=row.tenant,
        state=JobState(row.state),
        fingerprint=row.fingerprint,
        options=dict(row.options),
        picture_name=row.picture_name,
        video_name=row.video_name,
        created_s=row.created_s,
        updated_s=row.updated_s,
        started_s=row.started_s,
        finished_s=row.finished_s,
        step=row.step,
        num_steps=row.num_steps,
        attempt=row.attempt,
        max_attempts=row.max_attempts,
        cancel_requested=bool(row.cancel_requested),
        identity_similarity=row.identity_similarity,
        result=JobResult(**row.result) if row.result else None,
        failure=JobFailure(**row.failure) if row.failure else None,
        last_event=row.last_event,
    )


def event_from_row(row: Any) -> JobEvent:  # noqa: ANN401 - a row of EVENTS
    """Build the record of one row of the events table."""
    return JobEvent(number=row.number, kind=row.kind, data=dict(row.data), created_s=row.created_s)
