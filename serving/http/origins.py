"""Who may ask: no page of another site, and on a server without keys no name but this machine's.

A browser sends what any page tells it to send, to 127.0.0.1 too, and a page whose name is made to
point there (DNS rebinding) may even read the answers. Programs send none of these headers.
"""

from collections.abc import Callable, Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from animaray.serving.config import is_loopback
from animaray.serving.http.problems import ProblemError

_CODE = "AR-SRV-16"
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_OWN_SITES = ("same-origin", "none")
"""Sec-Fetch-Site of our own pages, and of what the user typed."""


class OriginGuard:
    """ASGI layer that refuses requests which a foreign page made somebody's browser send.

    Args:
        app: The application behind it.
        is_open: Tells whether the server asks for no key.
        allowed_hosts: Names, without port, that are as good as this machine's: those of a proxy.
    """

    def __init__(
        self, app: ASGIApp, is_open: Callable[[], bool], allowed_hosts: Collection[str] = ()
    ) -> None:
        self._app = app
        self._is_open = is_open
        self._allowed = {name.lower() for name in allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it before anything of it is read."""
        if scope["type"] == "http":
            try:
                headers = Headers(scope=scope)
                if self._is_open():
                    self._check_hosts(headers.getlist("host"))
                if scope["method"] not in _SAFE_METHODS:
                    self._check_origin(headers)
            except ProblemError as problem:
                await problem.response({"Connection": "close"})(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check_hosts(self, hosts: list[str]) -> None:
        for host in hosts:  # browsers always send one
            name = _name_in(host)
            if not is_loopback(name) and name not in self._allowed:
                raise ProblemError(
                    _CODE,
                    f"This server has no API keys and answers to loopback names only, not to"
                    f" `{host[:100]}`.",
                    fix="Ask for http://127.0.0.1:PORT. The operator can hand out keys"
                    " (animaray keys new) or name a proxy in `allowed_hosts`.",
                )

    def _check_origin(self, headers: Headers) -> None:
        """Refuse a request of another site's page; judged as browsers themselves tell it.

        Raises:
            ProblemError: It is one.
        """
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        netloc = "" if origin is None else origin.lower().partition("://")[2]
        if origin is not None and _name_in(netloc) in self._allowed:
            return
        # Where both are there, the site counts: a proxy may change Host, and no page may set it.
        if site is not None:
            is_foreign = site.lower() not in _OWN_SITES
        else:
            is_foreign = origin is not None and netloc != headers.get("host", "").lower()
        if is_foreign:
            raise ProblemError(
                _CODE,
                f"A page of another site ({(origin or site or '')[:100]}) may not change anything"
                " here.",
                fix="Use the server's own page, or a program; the operator can name the page's"
                " host in `allowed_hosts`.",
            )


def _name_in(netloc: str) -> str:
    """Return the host of `host:port`, `[address]:port` or `host`."""
    if netloc.startswith("["):
        return netloc[1:].partition("]")[0]
    return netloc.partition(":")[0].lower()
