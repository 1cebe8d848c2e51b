"""What the service tells its clients: the HTTP interface and the typed client use the same."""

from typing import Any

from pydantic import AliasChoices, BaseModel, Field

from animaray.serving.jobs.records import FailureDocument, JobState, ResultDocument


class Links(BaseModel):
    """Addresses of one job."""

    self: str
    events: str
    content: str | None = Field(description="The mp4; null until the job has succeeded.")


class AnimationDocument(BaseModel):
    """One job."""

    # Made of a stored job, which calls two of the fields otherwise, or read from an answer.
    id: str = Field(validation_alias=AliasChoices("id", "job_id"))
    state: JobState
    options: dict[str, Any]
    queue_place: int | None = Field(description="1 is next; null when the job does not wait.")
    eta_s: float | None = Field(
        description="Predicted seconds until it is done, from measured jobs; null when unknown."
    )
    step: int
    num_steps: int
    attempt: int
    cancel_requested: bool
    created_s: float = Field(description="Unix time.")
    started_s: float | None
    finished_s: float | None
    identity_similarity: float | None
    result: ResultDocument | None
    error: FailureDocument | None = Field(validation_alias=AliasChoices("error", "failure"))
    links: Links


class AnimationList(BaseModel):
    """One page of jobs, newest first."""

    animations: list[AnimationDocument]
    next: str | None = Field(description="Pass as `before` to get the next page; null at the end.")


class ProblemDocument(BaseModel):
    """An error, as RFC 9457 says."""

    type: str = Field(examples=["/errors/AR-SRV-02"])
    title: str = Field(examples=["Queue is full"])
    status: int = Field(examples=[503])
    detail: str
    code: str = Field(examples=["AR-SRV-02"])
    retryable: bool
    fix: str | None
    job_id: str | None = None
    retry_after: int | None = Field(None, description="Seconds, as the header Retry-After.")


class HealthDocument(BaseModel):
    """Whether the service lives or can take work."""

    status: str
    workers: list[str] = Field(default_factory=list, description="State of each worker.")
