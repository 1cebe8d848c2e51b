"""A typed client of the service: submit, follow, wait, cancel, download.

with AnimarayClient("http://127.0.0.1:8500") as client:
    client.animate("me.jpg", "dance.mp4").save("me-dancing.mp4")
"""

import json
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from animaray.platform.errors import ServiceError, UsageError
from animaray.platform.json_text import json_text
from animaray.platform.storage import write_bytes_atomic
from animaray.serving.config import is_loopback
from animaray.serving.http.documents import AnimationDocument, AnimationList
from animaray.serving.http.problems import exit_code_of
from animaray.serving.jobs.records import FINISHED_STATES, JobCancelledError, JobState

Document = TypeVar("Document", bound=BaseModel)

_RETRY_STATUS = (429, 503)
_MAX_RETRY_WAIT_S = 60.0
_RESTART_REASONS = ("unreachable", "http_500", "http_502", "http_503", "http_504")
"""What a service that is being restarted answers, or the proxy before it."""


class RemoteError(ServiceError):
    """A service refused a request or could not do a job, and told why.

    It carries the code that the service told, and the exit code that the same fault has in a
    command that works without a server.

    Args:
        fix: What to do, or None.
        reason: For programs; None takes the code.
    """

    def __init__(
        self, message: str, *, code: str, fix: str | None = None, reason: str | None = None
    ) -> None:
        super().__init__(message, fix=fix, reason=reason or code)
        self.error_id = code
        self.exit_code = exit_code_of(code)


def _check_success(status: AnimationDocument) -> None:
    """Return if the job has succeeded or still goes on.

    Raises:
        RemoteError: It failed or was cancelled.
    """
    if status.error is not None:
        raise RemoteError(
            f"Job {status.id} failed. {status.error.message}",
            code=status.error.code,
            fix=status.error.fix,
        )
    if status.state == JobState.CANCELLED:
        raise RemoteError(
            f"Job {status.id} was cancelled.",
            code=JobCancelledError.error_id,
            reason=status.state,
        )


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


class JobHandle:
    """One job of the service.

    Args:
        client: How to reach it.
    """

    def __init__(self, client: "AnimarayClient", job_id: str) -> None:
        self.id = job_id
        self._client = client
        self._path = f"/v1/animations/{job_id}"

    def status(self) -> AnimationDocument:
        """Return where the job stands."""
        return _read(AnimationDocument, self._client.request("GET", self._path))

    def cancel(self) -> AnimationDocument:
        """Cancel the job; a running one stops between two steps, a finished one stays."""
        return _read(AnimationDocument, self._client.request("DELETE", self._path))

    def remove(self) -> None:
        """Remove the finished job with its result and its record."""
        self._client.request("DELETE", self._path, params={"purge": "true"})

    def events(self, *, after: int = 0) -> Iterator[StreamedEvent]:
        """Yield the job's events until it ends; a broken connection is resumed without gaps.

        Args:
            after: Number of the last event already known.
        """
        while True:
            try:
                for event in self._client.stream(f"{self._path}/events", after):
                    after = event.number or after
                    yield event
                    if event.kind in FINISHED_STATES:
                        return
            except httpx.TransportError:
                time.sleep(1.0)
            if self._status_patiently().state in FINISHED_STATES:
                for event in self._client.stream(f"{self._path}/events", after):
                    yield event
                return

    def wait(self, timeout_s: float | None = None, *, poll_s: float = 0.5) -> AnimationDocument:
        """Block until the job has succeeded; if it fails or is cancelled, RemoteError tells why.

        Args:
            timeout_s: Give up waiting (not the job) after so many seconds; None waits for ever.
            poll_s: Seconds between two looks.

        Returns:
            The status of the succeeded job.

        Raises:
            ServiceError: The time is over (reason "timeout").
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            status = self._status_patiently()
            if status.state == JobState.SUCCEEDED:
                return status
            _check_success(status)
            if deadline is not None and time.monotonic() >= deadline:
                raise ServiceError(
                    f"Job {self.id} is still {status.state} after {timeout_s:g} s.",
                    fix=f"It goes on; watch it with `animaray jobs watch {self.id}`.",
                    reason="timeout",
                )
            time.sleep(poll_s)

    def _status_patiently(self) -> AnimationDocument:
        """Return the status; wait for a service that is just being restarted.

        Raises:
            ServiceError: It stayed away, or refused.
        """
        deadline = time.monotonic() + self._client.patience_s
        while True:
            try:
                return self.status()
            except ServiceError as error:
                if error.reason not in _RESTART_REASONS or time.monotonic() > deadline:
                    raise
                time.sleep(1.0)

    def check_success(self) -> None:
        """Return if the job has succeeded or still goes on; otherwise RemoteError tells why."""
        _check_success(self._status_patiently())

    def content(self) -> bytes:
        """Return the mp4 of the succeeded job."""
        return self._client.request("GET", f"{self._path}/content").content

    def save(self, path: Path | str) -> Path:
        """Write the mp4 of the succeeded job; the file is complete or absent.

        Raises:
            UsageError: The path is a folder.
        """
        target = Path(path)
        if target.is_dir():
            raise UsageError(
                f"{target} is a folder; the video needs a file name.",
                fix=f"Name the file, such as {target / self.id}.mp4.",
            )
        write_bytes_atomic(target, self.content())
        return target


class AnimarayClient:
    """Talk to a service.

    Args:
        url: Address of the service; None takes ANIMARAY_SERVER.
        api_key: Your key; None takes ANIMARAY_API_KEY, if set.
        timeout_s: Limit of one exchange, seconds; jobs may take as long as they need.
        patience_s: How long a job's `wait` and `events` put up with a service that is away.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_s: float = 60.0,
        patience_s: float = 120.0,
    ) -> None:
        self.patience_s = patience_s
        address = url or os.environ.get("ANIMARAY_SERVER")
        if not address:
            raise UsageError(
                "The address of the service is missing.", fix="Pass it or set ANIMARAY_SERVER."
            )
        key = api_key or os.environ.get("ANIMARAY_API_KEY")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(
            base_url=address.rstrip("/"),
            headers=headers,
            timeout=timeout_s,
            trust_env=not is_loopback(httpx.URL(address).host),  # a proxy cannot reach this machine
        )

    def __enter__(self) -> "AnimarayClient":
        """Return the client."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def submit(
        self,
        picture: Path | str,
        video: Path | str,
        *,
        idempotency_key: str | None = None,
        **options: Any,  # noqa: ANN401 - JSON values, checked by the service
    ) -> JobHandle:
        """Send a job; a broken connection is tried again without making a second job.

        Args:
            picture: File of the reference picture.
            video: File of the driving video.
            idempotency_key: Your own name for this request; None makes a random one.
            **options: Fields of `AnimationRequest` (animaray.models.animation.options), such as
                seed, num_inference_steps, face_optimization, alignment, person or fps.

        Raises:
            UsageError: A file does not exist.
        """
        for path in (picture, video):
            if not Path(path).is_file():
                raise UsageError(f"There is no file {path}.")
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        response = self.request(
            "POST",
            "/v1/animations",
            headers=headers,
            uploads={"reference_image": Path(picture), "driving_video": Path(video)},
            data={"options": json_text(options)},
        )
        return JobHandle(self, _read(AnimationDocument, response).id)

    def animate(
        self,
        picture: Path | str,
        video: Path | str,
        *,
        timeout_s: float | None = None,
        **options: Any,  # noqa: ANN401 - as in submit
    ) -> JobHandle:
        """Send a job and wait until it has succeeded; arguments and errors as in its parts."""
        job = self.submit(picture, video, **options)
        job.wait(timeout_s)
        return job

    def job(self, job_id: str) -> JobHandle:
        """Return the handle of a job known by its id."""
        return JobHandle(self, job_id)

    def list(self, *, state: str | None = None, limit: int = 50) -> list[AnimationDocument]:
        """Return your jobs, newest first.

        Args:
            state: Only jobs in this state.
            limit: At most so many.
        """
        jobs: list[AnimationDocument] = []
        before: str | None = None
        while len(jobs) < limit:
            params = {"state": state, "before": before, "limit": min(limit - len(jobs), 200)}
            given = {key: value for key, value in params.items() if value is not None}
            page = _read(AnimationList, self.request("GET", "/v1/animations", params=given))
            jobs += page.animations
            before = page.next
            if before is None:
                break
        return jobs

    def is_ready(self) -> bool:
        """Tell whether the service answers and a worker has its model loaded."""
        try:
            return self._http.get("/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    def request(
        self,
        method: str,
        path: str,
        *,
        uploads: dict[str, Path] | None = None,
        attempts: int = 3,
        **arguments: Any,  # noqa: ANN401 - httpx's own arguments
    ) -> httpx.Response:
        """Send a request that may be repeated; wait as told when the service is full.

        A refusal, a failure or no answer at all ends in ServiceError; its reason is the problem's
        code or "unreachable".

        Args:
            path: Path below the service's address.
            uploads: Files to send, by form field; opened anew for each attempt.
            attempts: How often to try.
            **arguments: More arguments of httpx.
        """
        for attempt in range(1, attempts):
            try:
                response = self._send(method, path, uploads, arguments)
            except ServiceError:
                time.sleep(0.5 * attempt)
                continue
            wait_s = _retry_wait_s(response)
            if wait_s is None:
                return _checked(response)
            time.sleep(wait_s)
        return _checked(self._send(method, path, uploads, arguments))

    def _send(
        self, method: str, path: str, uploads: dict[str, Path] | None, arguments: dict[str, Any]
    ) -> httpx.Response:
        opened = {name: file.open("rb") for name, file in (uploads or {}).items()}
        try:
            return self._http.request(method, path, files=opened or None, **arguments)
        except httpx.TransportError as error:
            raise ServiceError(
                f"Cannot reach the service at {self._http.base_url}: {error}.",
                fix="Is it running? Check the address and ANIMARAY_SERVER.",
                reason="unreachable",
            ) from error
        finally:
            for file in opened.values():
                file.close()

    def stream(self, path: str, after: int) -> Iterator[StreamedEvent]:
        """Yield the server-sent events of one connection.

        Args:
            path: Path of the event stream.
            after: Sent as Last-Event-ID.
        """
        timeout = httpx.Timeout(self._http.timeout.connect, read=45.0)
        headers = {"Last-Event-ID": str(after)} if after else {}
        with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
            if not response.is_success:
                response.read()
            _checked(response)
            fields: dict[str, str] = {}
            for line in response.iter_lines():
                if line.startswith(":"):
                    continue
                if line:
                    name, _, value = line.partition(":")
                    fields[name] = value.removeprefix(" ")
                elif "data" in fields:
                    number = fields.get("id")
                    yield StreamedEvent(
                        number=int(number) if number else None,
                        kind=fields.get("event", "message"),
                        data=json.loads(fields["data"]),
                    )
                    fields = {}
                else:
                    fields = {}


def _read(kind: type[Document], response: httpx.Response) -> Document:
    """Read the document of an answer.

    Raises:
        ServiceError: It is another one.
    """
    try:
        return kind.model_validate_json(response.content)
    except ValidationError as error:
        raise ServiceError(
            f"The service answered {response.url.path} with something else than was expected:"
            f" {error.errors()[0]['msg']}.",
            fix="Is this the address of an animaray server, and of the same version?",
        ) from error


def _retry_wait_s(response: httpx.Response) -> float | None:
    told = response.headers.get("retry-after", "")
    if response.status_code not in _RETRY_STATUS or not told.isdigit():
        return None
    return float(told) if float(told) <= _MAX_RETRY_WAIT_S else None


def _checked(response: httpx.Response) -> httpx.Response:
    if response.is_success:
        return response
    try:
        problem = response.json()
        title, detail, code = problem["title"], problem["detail"], problem["code"]
    except (ValueError, KeyError, TypeError) as error:
        raise ServiceError(
            f"The service answered {response.status_code} {response.reason_phrase} without a"
            " reason.",
            fix="Is this the address of an animaray server?",
            reason=f"http_{response.status_code}",
        ) from error
    raise RemoteError(f"{title}: {detail}", code=code, fix=problem.get("fix"))
