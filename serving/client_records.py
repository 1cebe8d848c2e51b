"""What the service tells its clients, as types."""

from dataclasses import dataclass
from typing import Any, Literal, TypedDict

FINISHED = ("succeeded", "failed", "cancelled")
"""States that never change again."""


class FailureStatus(TypedDict):
    """Why a job failed."""

    code: str
    message: str
    fix: str | None
    retryable: bool


class JobStatus(TypedDict):
    """Where a job stands, as the service tells it."""

    id: str
    state: Literal["queued", "preparing", "running", "succeeded", "failed", "cancelled"]
    options: dict[str, Any]
    queue_place: int | None
    eta_s: float | None
    step: int
    num_steps: int
    attempt: int
    cancel_requested: bool
    created_s: float
    started_s: float | None
    finished_s: float | None
    identity_similarity: float | None
    result: dict[str, Any] | None
    error: FailureStatus | None
    links: dict[str, str | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamedEvent:
    """One event of a job."""

    number: int | None
    """Its number within the job; None for events that are not stored, such as queue places."""
    kind: str
    """A state, or "progress", "queue", "retry", "cancel_requested"."""
    data: dict[str, Any]

    def __str__(self) -> str:
        """Return one line for people."""
        words = [f"{key}={value}" for key, value in self.data.items() if key not in ("id", "at_s")]
        return " ".join([self.kind, *words])
