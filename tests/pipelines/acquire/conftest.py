"""A web server of this machine that serves real files and misbehaves on request."""

# ruff: noqa: ARG002 - every way to answer takes the name that was asked for

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from animaray.pipelines.acquire.config import AcquireConfig
from animaray.platform.media.video import encode_mp4

FAST = AcquireConfig(
    allow_private_hosts=True,
    backoff_s=0.01,
    read_timeout_s=0.5,
    max_wait_s=2.0,
    host_rate_per_hour=1e8,
    platform_rate_per_hour=1e8,
)


@dataclass
class Site:
    """The server: what it serves, how it misbehaves, who asked for what."""

    video: bytes
    port: int = 0
    hits: list[str] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)
    recovers: bool = True
    """Whether /limited and /flaky answer well the second time."""

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    def count(self, path: str) -> int:
        return self.hits.count(f"/{path}")


class _Handler(BaseHTTPRequestHandler):
    site: Site
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        site, name = self.site, self.path.strip("/").partition("?")[0]
        site.hits.append(self.path)
        site.ranges.append(self.headers.get("Range"))
        action = getattr(self, f"do_{name.partition('.')[0].partition('-')[0]}", self.do_good)
        action(name)

    def do_good(self, name: str) -> None:
        data, start = self.site.video, 0
        wanted = self.headers.get("Range")
        if wanted and self.headers.get("If-Range") in {None, '"v1"'}:
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.reply(data[start:])

    def reply(self, data: bytes, length: int | None = None, kind: str = "video/mp4") -> None:
        self.send_header("Content-Type", kind)
        self.send_header("ETag", '"v1"')
        self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def status(self, code: int, **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.reply(b"no", kind="text/plain")

    def do_limited(self, name: str) -> None:
        if self.site.recovers and self.site.count(name) > 1:
            self.do_good(name)
        else:
            self.status(429, Retry_After="1")

    def do_closed(self, name: str) -> None:
        self.status(429, Retry_After="3600")

    def do_forbidden(self, name: str) -> None:
        self.status(403)

    def do_gone(self, name: str) -> None:
        self.status(404)

    def do_flaky(self, name: str) -> None:
        if self.site.count(name) > 1:
            self.do_good(name)
        else:
            self.status(503)

    def do_hang(self, name: str) -> None:
        time.sleep(1.5)
        self.close_connection = True

    def do_drip(self, name: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "video/mp4")
        self.end_headers()
        for _ in range(40):
            self.wfile.write(b"x")
            self.wfile.flush()
            time.sleep(0.1)

    def do_cut(self, name: str) -> None:
        if self.headers.get("Range"):
            self.do_good(name)
            return
        self.send_response(200)
        self.reply(self.site.video[:1000], length=len(self.site.video))
        self.close_connection = True

    def do_endless(self, name: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "video/mp4")
        self.end_headers()
        self.close_connection = True
        block = b"\0" * 65536
        for _ in range(10_000):
            self.wfile.write(block)

    def do_huge(self, name: str) -> None:
        self.send_response(200)
        self.reply(b"x", length=1 << 50)
        self.close_connection = True

    def do_zipped(self, name: str) -> None:
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.reply(self.site.video)

    def do_page(self, name: str) -> None:
        html = f'<html><title>t</title><video src="{self.site.url("good.mp4")}"></video></html>'
        self.send_response(200)
        self.reply(html.encode(), kind="text/html")

    def do_feed(self, name: str) -> None:
        items = "".join(
            f"<item><title>{i}</title><link>{self.site.url(f'good-{i}.mp4')}</link></item>"
            for i in range(3)
        )
        text = f'<?xml version="1.0"?><rss version="2.0"><channel>{items}</channel></rss>'
        self.send_response(200)
        self.reply(text.encode(), kind="application/rss+xml")

    def do_to(self, name: str) -> None:
        targets = {
            "to-good.mp4": "/good.mp4",
            "to-loop.mp4": "/to-loop.mp4",
            "to-private.mp4": "http://169.254.169.254/latest/meta-data",
            "to-file.mp4": "file:///etc/passwd",
        }
        self.status(302, Location=targets[name])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="session")
def video_bytes() -> bytes:
    frames = np.random.default_rng(0).integers(0, 256, (10, 48, 64, 3), dtype=np.uint8)
    return encode_mp4(frames, 10.0)


@pytest.fixture
def site(video_bytes: bytes) -> Iterator[Site]:
    """Yield a running server of its own for each test."""
    state = Site(video_bytes)
    handler = type("Handler", (_Handler,), {"site": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.handle_error = lambda *_: None  # clients that hang up are part of the game
    state.port = server.server_address[1]
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture
def fast() -> AcquireConfig:
    return FAST
