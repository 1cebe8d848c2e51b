"""Errors as clients see them: RFC 9457 problem documents, one code per cause, never a trace."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from animaray.platform.errors import (
    AnimarayError,
    MediaError,
    RefusedError,
    ServiceError,
    UsageError,
    error_classes,
)
from animaray.platform.media.file_kind import PICTURE_FORMATS_TEXT, VIDEO_FORMATS

if TYPE_CHECKING:
    from starlette.responses import JSONResponse

PROBLEM_MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, kw_only=True, slots=True)
class ProblemKind:
    """One cause of refusal: its HTTP status, its title and whether a repeat can help."""

    status: int
    title: str
    retryable: bool
    explanation: str
    """For the page that the problem's `type` points to."""
    exit_code: int = ServiceError.exit_code
    """Of a command that ends with it: what the same fault gives without a server."""


PROBLEM_KINDS: Mapping[str, ProblemKind] = {
    "AR-SRV-01": ProblemKind(
        status=500,
        title="The service failed",
        retryable=True,
        explanation="Something failed that should not. The server's log holds the cause under the"
        " request id.",
    ),
    "AR-SRV-02": ProblemKind(
        status=503,
        title="Queue is full",
        retryable=True,
        explanation="As many jobs wait as the operator allows. Retry-After says when, from the"
        " measured time of finished jobs, a place should be free.",
    ),
    "AR-SRV-03": ProblemKind(
        status=429,
        title="Too many jobs at once",
        retryable=True,
        explanation="Your key holds as many waiting and running jobs as it may. Wait or cancel.",
    ),
    "AR-SRV-04": ProblemKind(
        status=404,
        title="No such job",
        retryable=False,
        explanation="The id is unknown, the job was removed, or it belongs to another key.",
    ),
    "AR-SRV-05": ProblemKind(
        status=409,
        title="Not ready",
        retryable=True,
        explanation="The job has no result yet. Follow its events, or ask again later.",
    ),
    "AR-SRV-06": ProblemKind(
        status=409,
        title="Idempotency-Key used for another request",
        retryable=False,
        explanation="A key names one request for ever. Repeat the same request or take a new key.",
    ),
    "AR-SRV-07": ProblemKind(
        status=401,
        title="API key missing or unknown",
        retryable=False,
        explanation="Send the header `Authorization: Bearer KEY`. The operator hands out keys.",
    ),
    "AR-SRV-08": ProblemKind(
        status=413,
        title="Upload is too large",
        retryable=False,
        explanation="The request, one file, its pixels, its frames or its length exceed a limit.",
        exit_code=MediaError.exit_code,
    ),
    "AR-SRV-09": ProblemKind(
        status=415,
        title="Upload is of the wrong kind",
        retryable=False,
        explanation=f"`reference_image` takes {PICTURE_FORMATS_TEXT}; `driving_video` takes"
        f" {', '.join(VIDEO_FORMATS)}.",
        exit_code=MediaError.exit_code,
    ),
    "AR-SRV-10": ProblemKind(
        status=503,
        title="Service is not ready",
        retryable=True,
        explanation="No worker has its model loaded. The detail says which state they are in.",
    ),
    "AR-SRV-11": ProblemKind(
        status=422,
        title="Request is not valid",
        retryable=False,
        explanation="A field is missing, unknown, of the wrong type or out of range.",
        exit_code=UsageError.exit_code,
    ),
    "AR-SRV-12": ProblemKind(
        status=408,
        title="Upload took too long",
        retryable=True,
        explanation="The request did not arrive within the time the operator allows.",
    ),
    "AR-SRV-13": ProblemKind(
        status=410,
        title="Job has no result",
        retryable=False,
        explanation="The job failed or was cancelled, or its result was removed after its time.",
    ),
    "AR-SRV-14": ProblemKind(
        status=404,
        title="No such page",
        retryable=False,
        explanation="The address is not part of this service. GET /openapi.json lists all.",
    ),
    "AR-SRV-15": ProblemKind(
        status=405,
        title="Method not allowed",
        retryable=False,
        explanation="The address exists, but not for this HTTP method.",
    ),
    "AR-SRV-16": ProblemKind(
        status=403,
        title="Request comes from elsewhere",
        retryable=False,
        explanation="A server without API keys answers to the names of its own machine only, and no"
        " server takes a POST or DELETE from a page of another site: otherwise any page in the"
        " operator's browser could use it. Names of a proxy are allowed with `allowed_hosts`.",
    ),
}

_CODE_BY_REASON = {
    "queue_full": "AR-SRV-02",
    "tenant_quota": "AR-SRV-03",
    "idempotency_conflict": "AR-SRV-06",
    "too_large": "AR-SRV-08",
    "empty": "AR-SRV-11",
    "not_a_picture": "AR-SRV-09",
    "not_a_video": "AR-SRV-09",
}


def exit_code_of(code: str) -> int:
    """Return the exit code of a command that ends with this code of a problem or failed job."""
    if code in PROBLEM_KINDS:
        return PROBLEM_KINDS[code].exit_code
    known = {kind.error_id: kind.exit_code for kind in error_classes()}
    return known.get(code, ServiceError.exit_code)


class ProblemError(ServiceError):
    """A refusal that becomes a problem document.

    Args:
        code: Key of PROBLEM_KINDS.
        message: What was expected and what came.
        fix: What to do, or None.
        retry_after_s: Value of Retry-After in seconds, or None for no such header.
        job_id: The job it is about, or None.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        fix: str | None = None,
        retry_after_s: int | None = None,
        job_id: str | None = None,
    ) -> None:
        super().__init__(message, fix=fix, reason=code)
        self.code = code
        self.retry_after_s = retry_after_s
        self.job_id = job_id

    def document(self) -> dict[str, Any]:
        """Return the problem document."""
        kind = PROBLEM_KINDS[self.code]
        document: dict[str, Any] = {
            "type": f"/errors/{self.code}",
            "title": kind.title,
            "status": kind.status,
            # A client's text comes back in messages; half a surrogate pair has no UTF-8 form.
            "detail": self.message.encode(errors="replace").decode(),
            "code": self.code,
            "retryable": kind.retryable,
            "fix": self.fix,
        }
        if self.job_id is not None:
            document["job_id"] = self.job_id
        if self.retry_after_s is not None:
            document["retry_after"] = self.retry_after_s
        return document

    def response(self, more_headers: Mapping[str, str] | None = None) -> "JSONResponse":
        """Return the document as a response, with its headers and others, such as Allow."""
        from starlette.responses import JSONResponse  # clients read this file and need none

        headers = {"Cache-Control": "no-store"}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        if self.code == "AR-SRV-07":
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(
            self.document(),
            status_code=PROBLEM_KINDS[self.code].status,
            headers={**headers, **(more_headers or {})},
            media_type=PROBLEM_MEDIA_TYPE,
        )


def problem_from_error(error: AnimarayError, *, retry_after_s: int | None = None) -> ProblemError:
    """Translate one of our errors into the problem a client gets.

    Args:
        retry_after_s: Seconds for Retry-After, used where a repeat can help.
    """
    if isinstance(error, ProblemError):
        return error
    code = _CODE_BY_REASON.get(error.reason or "")
    if code is None and isinstance(error, UsageError | MediaError | RefusedError):
        code = "AR-SRV-11"
    if code is None:  # ours to fix: the client learns no internals
        return ProblemError("AR-SRV-01", "The service failed.", fix="Try again later.")
    hint = retry_after_s if PROBLEM_KINDS[code].retryable else None
    return ProblemError(code, error.message, fix=error.fix, retry_after_s=hint)
