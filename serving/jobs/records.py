"""What a job may be and become: its states, its result or failure, the errors of who holds one.

queued -> preparing -> running -> succeeded | failed | cancelled
^___________|___________|        (lease expired, worker drained, retry)
"""

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from animaray.platform.errors import RefusedError, ServiceError


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    PREPARING = "preparing"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


HELD_STATES = (JobState.PREPARING, JobState.RUNNING)
ACTIVE_STATES = (JobState.QUEUED, *HELD_STATES)
FINISHED_STATES = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class LeaseLostError(ServiceError):
    """Another worker holds the job now; nothing of this attempt may be published."""

    error_id = "AR-JOB-01"


class JobCancelledError(RefusedError):
    """The client cancelled the job while it ran."""

    error_id = "AR-JOB-02"


class WorkerDrainedError(ServiceError):
    """The worker stops; the job goes back to the queue."""

    error_id = "AR-JOB-03"


class DuplicateRowError(ServiceError):
    """A row of the same key was in the job database before."""

    error_id = "AR-JOB-05"


WORKER_LOST_CODE = "AR-JOB-04"
OUT_OF_MEMORY_CODE = "AR-JOB-06"
JOB_FAILURES = {
    WORKER_LOST_CODE: "The job's worker died or hung, as often as a job may be tried.",
    OUT_OF_MEMORY_CODE: "Memory ran out while the job ran, though it was estimated to fit.",
}
"""Codes of failures that no error class stands for, and what they mean."""


def _tell_all(schema: dict[str, Any]) -> None:
    """Say in OpenAPI that a document has every field, also where one is usually not given."""
    schema["required"] = list(schema["properties"])
    for field in schema["properties"].values():
        field.pop("default", None)


class JobDocument(BaseModel):
    """A part of a job as it is stored and as clients read it."""

    model_config = ConfigDict(frozen=True, json_schema_extra=_tell_all)


class FailureDocument(JobDocument):
    """Why a job failed."""

    # In words for the client; never a stack trace.
    code: str = Field(examples=["AR-FAC-01"])
    message: str
    fix: str | None = None
    retryable: bool = False


class ResultDocument(JobDocument):
    """What a finished job made."""

    num_bytes: int
    sha256: str
    width_px: int
    height_px: int
    num_frames: int
    fps: float
    identity_similarity: float | None = Field(
        None,
        description="Mean cosine between the faces of the result and of the picture; null when no"
        " frame shows a face.",
    )
    num_frames_without_face: int = 0
    warnings: list[str] = []
    stage_s: dict[str, float] = Field({}, description="Seconds per stage.")
    provenance: dict[str, Any] = {}


class JobResult(ResultDocument):
    """What a job made, with what only the server needs to know."""

    file_name: str
    """Name of the mp4 in the results folder; carries the fence token."""
    gpu_peak_memory_bytes: int | None = None
    """Most GPU memory that was allocated at once; None without a GPU."""
