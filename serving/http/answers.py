"""How answers leave: problem documents as responses, and HEAD as GET without its body."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from animaray.serving.http.problems import PROBLEM_MEDIA_TYPE, ProblemError


def problem_response(
    problem: ProblemError, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Return the response of a refusal.

    Args:
        problem: What is refused, and why.
        headers: Further headers, such as Allow.
    """
    return JSONResponse(
        problem.document(),
        status_code=problem.status,
        headers={**problem.headers(), **(headers or {})},
        media_type=PROBLEM_MEDIA_TYPE,
    )


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
