"""Take uploads in without trusting them: counted while they stream, hashed while they are stored.

`UploadGuard` sits before the form parser, so that neither a lying Content-Length nor an endless
preamble nor a client that sends a byte a second costs more than the limits say.
"""

import asyncio
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

from fastapi import Request, UploadFile
from starlette.datastructures import Headers
from starlette.datastructures import UploadFile as FormFile
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from animaray.platform.media.file_kind import HEAD_BYTES
from animaray.serving.http.problems import ProblemError
from animaray.serving.jobs.files import UPLOAD_NAMES, JobFiles
from animaray.serving.jobs.limits import ServingLimits, check_upload

_CHUNK_BYTES = 2**20
_MAX_OPTIONS_BYTES = 64 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredUpload:
    """One file as it lies on disk."""

    name: str
    """Path below the data folder."""
    num_bytes: int
    sha256: str


class UploadGuard:
    """ASGI layer that stops a request when it is too large or too slow.

    Args:
        app: The application behind it.
        limits: Caps on bytes and seconds.
    """

    def __init__(self, app: ASGIApp, limits: ServingLimits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a counting, timed body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length")
        if declared is not None and declared.isdigit():
            try:
                self._check_bytes(int(declared))
            except ProblemError as problem:
                await problem.response({"Connection": "close"})(scope, receive, send)
                return
        await self._app(scope, self._guard(receive), send)

    def _guard(self, receive: Receive) -> Receive:
        deadline = time.monotonic() + self._limits.max_upload_s
        received = 0
        is_complete = False

        async def guarded() -> Message:
            nonlocal received, is_complete
            if is_complete:  # only a disconnect can follow: wait without a deadline
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), deadline - time.monotonic())
            except TimeoutError as error:
                raise ProblemError(
                    "AR-SRV-12",
                    f"The request did not arrive within {self._limits.max_upload_s:.0f} s.",
                    fix="Send smaller files or use a faster connection.",
                ) from error
            received += len(message.get("body", b""))
            is_complete = not message.get("more_body", False)
            self._check_bytes(received)
            return message

        return guarded

    def _check_bytes(self, num_bytes: int) -> None:
        if num_bytes > self._limits.max_request_bytes:
            raise ProblemError(
                "AR-SRV-08",
                f"The request has more than {self._limits.max_request_bytes:,} bytes.",
                fix=f"The picture may have {self._limits.max_picture_bytes:,} bytes and the video"
                f" {self._limits.max_video_bytes:,}.",
            )


async def read_form(request: Request) -> tuple[dict[str, UploadFile], str | None]:
    """Read the two files (spooled to disk) and the options of a multipart request.

    Raises:
        ProblemError: The request is not multipart, or a field is missing, unknown or repeated.
    """
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "multipart/form-data":
        raise ProblemError(
            "AR-SRV-11",
            f"Expected multipart/form-data, got {kind[:100] or 'no content type'}.",
            fix="Send the fields reference_image, driving_video and, if wished, options.",
        )
    try:
        form = await request.form(max_files=3, max_fields=1, max_part_size=_MAX_OPTIONS_BYTES)
    except HTTPException as error:  # how starlette reports a malformed or oversized form
        raise ProblemError("AR-SRV-11", f"The form cannot be read: {error.detail}") from error
    except (LookupError, ValueError) as error:  # a charset that is none, or does not fit
        raise ProblemError("AR-SRV-11", f"The form cannot be read: {error}") from error
    files: dict[str, UploadFile] = {}
    options: str | None = None
    for name, value in form.multi_items():
        if name in UPLOAD_NAMES and not isinstance(value, str) and name not in files:
            files[name] = UploadFile(value.file, filename=name)
        elif name == "options" and options is None:
            options = value if isinstance(value, str) else await _read_options(value)
        else:
            raise ProblemError(
                "AR-SRV-11",
                f"The form field `{name[:64]}` is unknown, repeated or of the wrong kind.",
                fix="Send two files, reference_image and driving_video, and the JSON options.",
            )
    for name in UPLOAD_NAMES:
        if name not in files:
            raise ProblemError("AR-SRV-11", f"The form field `{name}` (a file) is missing.")
    return files, options


async def _read_options(part: FormFile) -> str:
    """Read options that came as a file, as programs that follow the OpenAPI document send JSON.

    Raises:
        ProblemError: They are too long or no text.
    """
    content = await part.read(_MAX_OPTIONS_BYTES + 1)
    if len(content) > _MAX_OPTIONS_BYTES:
        raise ProblemError(
            "AR-SRV-11", f"The form field `options` has more than {_MAX_OPTIONS_BYTES:,} bytes."
        )
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ProblemError("AR-SRV-11", "The form field `options` is not UTF-8.") from error


def store_upload(
    upload: UploadFile, kind: str, job_id: str, files: JobFiles, limits: ServingLimits
) -> StoredUpload:
    """Copy an upload to its place; what the file is was checked by its first bytes.

    Args:
        kind: Name of the form field; also the stored file's name.
        job_id: Whose upload it is.
        limits: Caps on bytes.
    """
    path: Path = files.upload_dir(job_id) / kind
    digest = hashlib.sha256()
    num_bytes = 0
    head = b""
    with path.open("wb") as target:
        while chunk := upload.file.read(_CHUNK_BYTES):
            head = head or chunk[:HEAD_BYTES]
            num_bytes += len(chunk)
            digest.update(chunk)
            target.write(chunk)
    check_upload(kind, num_bytes, head, limits)
    return StoredUpload(
        name=str(path.relative_to(files.data_dir)), num_bytes=num_bytes, sha256=digest.hexdigest()
    )
