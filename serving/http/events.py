"""Server-sent events of one job: stored events by number, queue places and heartbeats between.

The stream is read from the database, so it can be resumed anywhere (Last-Event-ID) and by anybody
who was not connected when something happened: it equals the stored list, without gaps.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from animaray.platform.json_text import json_text
from animaray.serving.http.problems import ProblemError
from animaray.serving.http.service import AnimationService
from animaray.serving.jobs.database import Job, JobEvent
from animaray.serving.jobs.records import FINISHED_STATES

HEARTBEAT_S = 15.0
POLL_S = 0.25
RECONNECT_MS = 2000


async def stream_events(
    service: AnimationService, job: Job, after: int, heartbeat_s: float = HEARTBEAT_S
) -> AsyncIterator[bytes]:
    """Yield the wire form of a job's events until it is finished.

    Args:
        service: Where events come from.
        job: The job, already checked against the tenant.
        after: Number of the last event the client has; 0 for all.
        heartbeat_s: A comment is sent when nothing else was for so long.
    """
    place: int | None = None
    last_sent = time.monotonic()
    yield f"retry: {RECONNECT_MS}\n\n".encode()
    while True:
        try:
            current, events, new_place = await asyncio.to_thread(_look, service, job, after)
        except ProblemError:  # removed meanwhile
            return
        for event in events:
            after = event.number
            last_sent = time.monotonic()
            yield _encode(event, current)
            if event.kind in FINISHED_STATES:
                return
        if new_place != place:
            place = new_place
            if place is not None:
                last_sent = time.monotonic()
                yield format_sse_event(event="queue", data_str=json_text({"queue_place": place}))
        if current.is_finished and after >= current.last_event:
            return
        if time.monotonic() - last_sent >= heartbeat_s:
            last_sent = time.monotonic()
            yield KEEPALIVE_COMMENT
        await asyncio.sleep(POLL_S)


def _look(
    service: AnimationService, job: Job, after: int
) -> tuple[Job, list[JobEvent], int | None]:
    current = service.find(job.job_id, job.tenant)
    events = service.store.events(job.job_id, after) if current.last_event > after else []
    return current, events, service.store.queue_place(current)


def _encode(event: JobEvent, job: Job) -> bytes:
    data: dict[str, Any] = {
        "id": job.job_id,
        "at_s": event.created_s,
        **event.data,
    }
    return format_sse_event(event=event.kind, data_str=json_text(data), id=str(event.number))
