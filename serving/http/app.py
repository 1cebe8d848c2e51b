"""The HTTP face of the service: a FastAPI application that talks and never computes.

It knows the job store and the files, not the model: nothing here imports torch or ray. Errors are
application/problem+json; long work is a job, never a long request.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response, StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from animaray.platform.errors import AnimarayError
from animaray.platform.media.file_kind import PICTURE_FORMATS_TEXT, VIDEO_FORMATS
from animaray.serving.http.documents import (
    AnimationDocument,
    AnimationList,
    HealthDocument,
    ProblemDocument,
)
from animaray.serving.http.events import stream_events
from animaray.serving.http.metrics import render_metrics
from animaray.serving.http.origins import OriginGuard
from animaray.serving.http.problems import (
    PROBLEM_KINDS,
    PROBLEM_MEDIA_TYPE,
    ProblemError,
    problem_from_error,
)
from animaray.serving.http.schemas import OptionsDocument
from animaray.serving.http.service import AnimationService
from animaray.serving.http.uploads import UploadGuard, read_form
from animaray.serving.jobs.records import JobState

PAGE_DIR = Path(__file__).parent / "page"
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:;"
    " media-src blob:; connect-src 'self'; form-action 'none'; frame-ancestors 'none';"
    " base-uri 'none'"
)
_PAGE_TYPES = {
    "page.js": "text/javascript",
    "page.css": "text/css",
    "icon.svg": "image/svg+xml",
}

_log = logging.getLogger("animaray.serving")
_router = APIRouter()
_bearer = HTTPBearer(auto_error=False, description="The API key, if the operator asks for one.")


def make_app(
    service: AnimationService,
    *,
    allowed_hosts: Collection[str] = (),
    housekeeping_s: float = 5.0,
) -> FastAPI:
    """Build the application.

    Args:
        service: Jobs, files, limits and tenants.
        allowed_hosts: Names of a proxy before it, see OriginGuard.
        housekeeping_s: Seconds between two rounds of housekeeping.
    """
    app = FastAPI(
        title="animaray",
        version="1",
        description="Animate the person of a picture with the motion of a video.",
        lifespan=_lifespan(service, housekeeping_s),
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    app.include_router(_router)
    app.add_middleware(UploadGuard, limits=service.limits)
    app.add_middleware(
        OriginGuard, is_open=lambda: service.tenants.is_open, allowed_hosts=allowed_hosts
    )
    app.add_middleware(HeadAnswers)
    app.add_exception_handler(AnimarayError, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(Exception, _answer_bug)
    return app


def _lifespan(
    service: AnimationService, housekeeping_s: float
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    async def keep_house() -> None:
        while True:
            try:
                await asyncio.to_thread(service.housekeep)
            except (AnimarayError, OSError):
                _log.exception("Housekeeping failed; it is tried again.")
            await asyncio.sleep(housekeeping_s)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(keep_house())
        try:
            yield
        finally:
            task.cancel()

    return lifespan


def _problem_responses(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Describe the problems of a route for OpenAPI, with one example each."""
    responses: dict[int | str, dict[str, Any]] = {}
    for code in ("AR-SRV-01", "AR-SRV-07", "AR-SRV-11", *codes):
        kind = PROBLEM_KINDS[code]
        document = ProblemError(code, kind.explanation).document()
        response = responses.setdefault(
            kind.status,
            {
                "description": kind.title,
                "content": {
                    PROBLEM_MEDIA_TYPE: {
                        "schema": {"$ref": "#/components/schemas/ProblemDocument"},
                        "examples": {},
                    }
                },
                "model": ProblemDocument,
            },
        )
        response["content"][PROBLEM_MEDIA_TYPE]["examples"][code] = {"value": document}
    return responses


def _service(request: Request) -> AnimationService:
    service: AnimationService = request.app.state.service
    return service


Service = Annotated[AnimationService, Depends(_service)]


def _tenant(
    service: Service,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> str:
    tenant = service.tenants.tenant_of(credentials.credentials if credentials else None)
    if tenant is None:
        raise ProblemError(
            "AR-SRV-07",
            "The API key is missing or unknown.",
            fix="Send the header `Authorization: Bearer KEY`.",
        )
    return tenant


Tenant = Annotated[str, Depends(_tenant)]

_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["reference_image", "driving_video"],
                    "properties": {
                        "reference_image": {
                            "type": "string",
                            "format": "binary",
                            "description": f"Shows the person to animate: {PICTURE_FORMATS_TEXT}.",
                        },
                        "driving_video": {
                            "type": "string",
                            "format": "binary",
                            "description": f"Shows the motion: {', '.join(VIDEO_FORMATS)}.",
                        },
                        "options": OptionsDocument.model_json_schema(),
                    },
                },
                "encoding": {"options": {"contentType": "application/json"}},
            }
        },
    }
}


@_router.post(
    "/v1/animations",
    status_code=202,
    tags=["animations"],
    openapi_extra=_FORM,
    responses=_problem_responses(
        "AR-SRV-02", "AR-SRV-03", "AR-SRV-06", "AR-SRV-08", "AR-SRV-09", "AR-SRV-12"
    ),
)
async def create_animation(
    request: Request,
    response: Response,
    service: Service,
    tenant: Tenant,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            pattern=r"^[\x21-\x7e]+$",
            description="The client's name for this request: a repeat gives the same job.",
        ),
    ] = None,
) -> AnimationDocument:
    """Accept an animation; the answer is sent when the job is durable."""
    await asyncio.to_thread(service.check_room, tenant, idempotency_key)
    try:
        uploads, options = await read_form(request)
        job, is_new = await asyncio.to_thread(
            service.accept, tenant, uploads, options, idempotency_key
        )
    finally:
        await request.close()  # the form's spooled files
    response.headers["Location"] = f"/v1/animations/{job.job_id}"
    if not is_new:
        response.headers["Idempotency-Replayed"] = "true"
    return await asyncio.to_thread(service.describe, job)


@_router.get("/v1/animations", tags=["animations"], responses=_problem_responses())
def list_animations(
    service: Service,
    tenant: Tenant,
    state: Annotated[JobState | None, Query(description="Only jobs in this state.")] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="Jobs a page.")] = 50,
    before: Annotated[str | None, Query(description="`next` of the page before.")] = None,
) -> AnimationList:
    """List your animations, newest first."""
    return service.list_animations(tenant, state, limit, before)


@_router.get(
    "/v1/animations/{job_id}", tags=["animations"], responses=_problem_responses("AR-SRV-04")
)
def read_animation(job_id: str, service: Service, tenant: Tenant) -> AnimationDocument:
    """Read where an animation stands."""
    return service.describe(service.find(job_id, tenant))


@_router.get(
    "/v1/animations/{job_id}/events",
    tags=["animations"],
    response_class=StreamingResponse,
    responses={
        200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
        **_problem_responses("AR-SRV-04"),
    },
)
async def follow_animation(
    job_id: str,
    service: Service,
    tenant: Tenant,
    last_event_id: Annotated[
        int | None, Header(ge=0, description="Number of the last event you have.")
    ] = None,
) -> StreamingResponse:
    """Follow an animation as server-sent events, resumable by Last-Event-ID."""
    job = await asyncio.to_thread(service.find, job_id, tenant)
    return StreamingResponse(
        stream_events(service, job, last_event_id or 0),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


@_router.get(
    "/v1/animations/{job_id}/content",
    tags=["animations"],
    response_class=FileResponse,
    responses={
        200: {"content": {"video/mp4": {"schema": {"type": "string", "format": "binary"}}}},
        **_problem_responses("AR-SRV-04", "AR-SRV-05", "AR-SRV-13"),
    },
)
def read_content(job_id: str, service: Service, tenant: Tenant) -> FileResponse:
    """Download the mp4."""
    return FileResponse(
        service.content_path(job_id, tenant),
        media_type="video/mp4",
        filename=f"{job_id}.mp4",
        content_disposition_type="inline",
        headers={"Cache-Control": "private, no-store"},
    )


@_router.delete(
    "/v1/animations/{job_id}",
    tags=["animations"],
    responses={
        204: {"description": "Removed (with purge)."},
        **_problem_responses("AR-SRV-04", "AR-SRV-05"),
    },
    response_model=AnimationDocument,
)
def cancel_animation(
    job_id: str,
    service: Service,
    tenant: Tenant,
    *,
    purge: Annotated[
        bool, Query(description="Remove a finished job with its result and its record.")
    ] = False,
) -> AnimationDocument | Response:
    """Cancel an animation: it stops between two steps. A finished one stays unless purged."""
    if purge:
        service.remove(job_id, tenant)
        return Response(status_code=204)
    return service.describe(service.cancel(job_id, tenant))


@_router.get("/health/live", tags=["health"])
async def report_live() -> HealthDocument:
    """Tell that the process answers."""
    return HealthDocument(status="live")


@_router.get("/health/ready", tags=["health"], responses=_problem_responses("AR-SRV-10"))
def report_ready(service: Service) -> HealthDocument:
    """Tell whether a worker has its model loaded; 503 until then."""
    return HealthDocument(status="ready", workers=service.check_ready())


@_router.get("/metrics", include_in_schema=False)
def report_metrics(service: Service) -> Response:
    """Return Prometheus metrics."""
    return Response(render_metrics(service), media_type="text/plain; version=0.0.4")


@_router.get("/errors/{code}", include_in_schema=False)
def explain_error(code: str) -> JSONResponse:
    """Explain an error code: where the `type` of a problem points to.

    Raises:
        ProblemError: The code is unknown.
    """
    kind = PROBLEM_KINDS.get(code)
    if kind is None:
        raise ProblemError("AR-SRV-14", "There is no such error code.")
    return JSONResponse({"code": code, "title": kind.title, "explanation": kind.explanation})


@_router.get("/", include_in_schema=False)
def show_page() -> HTMLResponse:
    """Show the page to try the service by hand."""
    text = (PAGE_DIR / "page.html").read_text(encoding="utf-8")
    return HTMLResponse(text, headers={"Content-Security-Policy": PAGE_POLICY})


@_router.get("/page/{name}", include_in_schema=False)
def show_page_part(name: str) -> Response:
    """Return the page's script or style.

    Raises:
        ProblemError: There is no such file.
    """
    if name not in _PAGE_TYPES:
        raise ProblemError("AR-SRV-14", "There is no such file.")
    return Response((PAGE_DIR / name).read_bytes(), media_type=_PAGE_TYPES[name])


async def _answer_error(_request: Request, error: Exception) -> Response:
    if not isinstance(error, AnimarayError):
        return await _answer_bug(_request, error)
    problem = problem_from_error(error)
    if problem.code == "AR-SRV-01":
        _log.error("A request failed.", exc_info=error)
    return problem.response()


async def _answer_invalid(_request: Request, error: Exception) -> Response:
    first = error.errors()[0] if isinstance(error, RequestValidationError) else {}
    where = ".".join(str(part) for part in first.get("loc", ()))
    return ProblemError("AR-SRV-11", f"{where}: {first.get('msg', 'invalid')}.").response()


async def _answer_http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = {404: "AR-SRV-14", 405: "AR-SRV-15"}.get(status, "AR-SRV-11")
    problem = ProblemError(code, str(getattr(error, "detail", "")) or "Refused.")
    headers = {"Allow": ", ".join(_methods_of(request))} if status == 405 else {}
    return problem.response(headers)


def _methods_of(request: Request) -> list[str]:
    """Return the methods that the request's address takes."""
    methods = {
        method
        for route in _router.routes
        if isinstance(route, Route) and route.matches(request.scope)[0] != Match.NONE
        for method in route.methods or ()
    }
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)


async def _answer_bug(_request: Request, error: Exception) -> Response:
    _log.error("A request failed unexpectedly.", exc_info=error)
    return ProblemError("AR-SRV-01", "The service failed.", fix="Try again later.").response()


class HeadAnswers:
    """ASGI layer that answers HEAD as GET, header by header, without the body.

    Args:
        app: The application behind it; it sees a GET.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything else on untouched."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        is_sent = asyncio.Event()

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b""})
                is_sent.set()

        answer = asyncio.ensure_future(self._app({**scope, "method": "GET"}, receive, send_head))
        sent = asyncio.create_task(is_sent.wait())
        try:
            await asyncio.wait({answer, sent}, return_when=asyncio.FIRST_COMPLETED)
        finally:  # an event stream has no end, and nobody listens
            sent.cancel()
            answer.cancel()
        with suppress(asyncio.CancelledError):
            await answer
