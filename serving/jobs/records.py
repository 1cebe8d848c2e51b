"""What a job is: its states, its record, its events, and the errors of those who hold one.

queued -> preparing -> running -> succeeded | failed | cancelled
^___________|___________|        (lease expired, worker drained, retry)
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

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


@dataclass(frozen=True, kw_only=True, slots=True)
class JobFailure:
    """Why a job failed, in words for the client; never a stack trace."""

    code: str
    """Stable error id."""
    message: str
    fix: str | None = None
    """What helps, or None when nothing the client does would."""
    retryable: bool = False
    """Whether the same request may succeed later."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobResult:
    """What a job made."""

    file_name: str
    """Name of the mp4 in the results folder; carries the fence token."""
    num_bytes: int
    sha256: str
    width_px: int
    height_px: int
    num_frames: int
    fps: float
    identity_similarity: float | None = None
    """Mean cosine to the reference face over frames that show a face; None when none does."""
    num_frames_without_face: int = 0
    warnings: list[str] = field(default_factory=list)
    stage_s: dict[str, float] = field(default_factory=dict)
    """Seconds spent per stage."""
    gpu_peak_memory_bytes: int | None = None
    """Most GPU memory that was allocated at once; None without a GPU."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """What the mp4 says about its own making."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRequest:
    """What a client asks for, already stored on disk."""

    job_id: str
    tenant: str
    fingerprint: str
    """Hash of the pictures' bytes and of the options; equal requests have equal fingerprints."""
    options: dict[str, Any]
    """Validated options, the seed included."""
    picture_name: str
    """Server-made path of the reference picture below the data folder."""
    video_name: str
    """Server-made path of the driving video below the data folder."""
    idempotency_key: str | None = None
    max_attempts: int = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One durable job as the store knows it."""

    job_id: str
    tenant: str
    state: JobState
    fingerprint: str
    options: dict[str, Any]
    picture_name: str
    video_name: str
    created_s: float
    """Unix time."""
    updated_s: float
    started_s: float | None
    """When a worker first took it, or None."""
    finished_s: float | None
    step: int
    num_steps: int
    """Length of the denoising loop; 0 until it is known."""
    attempt: int
    max_attempts: int
    cancel_requested: bool
    identity_similarity: float | None
    result: JobResult | None
    failure: JobFailure | None
    last_event: int
    """Number of the newest event."""

    @property
    def is_finished(self) -> bool:
        """Tell whether the state can never change again."""
        return self.state in FINISHED_STATES


@dataclass(frozen=True, kw_only=True, slots=True)
class JobEvent:
    """One entry of a job's gapless event list."""

    number: int
    """1, 2, 3 ... within the job."""
    kind: str
    """A state's name, or "progress", "retry", "cancel_requested"."""
    data: dict[str, Any]
    created_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """The right to work on a job until the lease ends; the fence makes older rights void."""

    job: Job
    worker_id: str
    fence: int
    lease_s: float
    """How long the lease lasts from each renewal."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerState:
    """What a worker last said about itself."""

    worker_id: str
    state: str
    """One of "loading", "ready", "busy", "draining", "failed"."""
    detail: str
    """What failed, or the model's digest."""
    pid: int
    host: str
    heartbeat_s: float
    """Unix time of the last sign of life."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Total:
    """A running total of one measured quantity."""

    name: str
    label: str
    count: int
    total: float
    recent: float
    """Moving average; the newest value weighs a fifth."""
