"""yt-dlp itself, in its child process, against the server of this machine."""

import asyncio
import dataclasses
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from animaray.pipelines.acquire import ytdlp
from animaray.pipelines.acquire.config import AcquireConfig, FetchOutcome
from animaray.pipelines.acquire.fetch import Fetcher


@pytest.fixture
def generic(fast: AcquireConfig) -> AcquireConfig:
    return dataclasses.replace(fast, allow_generic_pages=True, read_timeout_s=3.0)


def get(url: str, folder: Path, config: AcquireConfig) -> FetchOutcome:
    return asyncio.run(ytdlp.fetch(url, folder, config))


def test_video_and_entries_of_a_feed_come_through_the_fetcher(
    site, generic: AcquireConfig, tmp_path: Path
) -> None:
    urls = [site.url("page"), site.url("feed")]
    items = {
        item.url: item for batch in Fetcher(urls, tmp_path, generic).stream() for item in batch
    }
    page = items[site.url("page")]
    assert (page.state, page.platform) == ("fetched", "site:generic")
    assert (tmp_path / "files" / str(page.path)).read_bytes() == site.video
    assert str(page.facts["downloader"]).startswith("yt-dlp 20")
    assert items[site.url("feed")].state == "expanded"
    for number in range(3):
        assert items[site.url(f"good-{number}.mp4")].state == "fetched"


@pytest.mark.parametrize(
    ("name", "state", "reason"),
    [("gone", "unavailable", "gone"), ("closed", "blocked", "rate_limited")],
)
def test_answers_of_a_site_are_told_apart(
    site, generic: AcquireConfig, tmp_path: Path, name: str, state: str, reason: str
) -> None:
    outcome = get(site.url(name), tmp_path / "w", generic)
    assert (outcome.state, outcome.reason) == (state, reason), outcome.detail


def test_hanging_child_is_killed(site, generic: AcquireConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(generic, item_timeout_s=0.3)
    started = time.monotonic()
    outcome = get(site.url("hang"), tmp_path / "w", config)
    assert (outcome.state, outcome.reason) == ("failed", "timeout")
    assert time.monotonic() - started < 5


_ATTEMPTS = """
import ctypes, json, socket, subprocess, sys
from pathlib import Path
from animaray.pipelines.acquire import ytdlp
folder, outside = Path(sys.argv[1]), Path(sys.argv[2])
settings = {"cookies_file": None, "cookies_from_browser": None, "item_timeout_s": 20,
            "max_file_bytes": 1 << 20}
ytdlp._confine(folder, settings)
def attempt(call):
    try:
        call()
    except OSError as error:
        return type(error).__name__
    return "done"
def trace():
    if ctypes.CDLL(None).ptrace(0, 0, 0, 0) != 0:
        raise PermissionError
found = {
    "write_inside": attempt(lambda: (folder / "a.part").write_text("a")),
    "rename_inside": attempt(lambda: (folder / "a.part").rename(folder / "a.mp4")),
    "import": attempt(lambda: __import__("yt_dlp.extractor.youtube")),
    "certificates": attempt(lambda: __import__("ssl").create_default_context()),
    "names": attempt(lambda: socket.getaddrinfo("localhost", 80)),
    "connect": attempt(lambda: socket.socket().connect(("127.0.0.1", int(sys.argv[3])))),
    "program": attempt(lambda: subprocess.run([sys.executable, "-c", ""], check=True)),
    "read_outside": attempt(lambda: outside.read_text()),
    "list_outside": attempt(lambda: list(outside.parent.iterdir())),
    "write_outside": attempt(lambda: outside.write_text("b")),
    "remove_outside": attempt(lambda: outside.unlink()),
    "link_inside": attempt(lambda: (folder / "link").symlink_to(outside)),
    "listen": attempt(lambda: socket.create_server(("127.0.0.1", 0))),
    "trace": attempt(trace),
    "large_file": attempt(lambda: (folder / "large").write_bytes(bytes(66 << 20))),
}
print(json.dumps(found))
"""


@pytest.mark.usefixtures("landlock")
def test_child_is_held_to_its_folder(tmp_path: Path) -> None:
    folder, outside = tmp_path / "item", tmp_path / "secrets" / "key.txt"
    for made in (folder, outside.parent):
        made.mkdir()
    outside.write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-c", _ATTEMPTS, str(folder), str(outside),
             str(server.getsockname()[1])],
            capture_output=True, check=False, text=True,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    allowed = ("write_inside", "rename_inside", "import", "certificates", "names", "connect",
               "program")  # fmt: skip
    assert {name: found.pop(name) for name in allowed} == dict.fromkeys(allowed, "done")
    assert found.pop("large_file") == "OSError"
    assert found == dict.fromkeys(found, "PermissionError")
    assert outside.read_text() == "secret"


def test_child_that_its_parent_left_ends(tmp_path: Path) -> None:
    """A parent that is killed leaves no downloader behind."""
    child = subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", _PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    pid = int(child.stdout.readline())
    child.kill()
    child.wait()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


_PARENT = """
import asyncio, sys, threading, time
from pathlib import Path
from animaray.pipelines.acquire import ytdlp
def tell():
    children = Path(f"/proc/self/task/{threading.main_thread().native_id}/children")
    while not (pids := children.read_text().split()):
        time.sleep(0.05)
    time.sleep(1.0)
    print(pids[0], flush=True)
threading.Thread(target=tell).start()
urls = ["https://nobody.example/page"] * 20_000  # minutes of work
asyncio.run(ytdlp._run_child({"task": "classify", "urls": urls}, Path(sys.argv[1]), 60.0))
"""


def test_private_address_is_refused_inside_yt_dlp(
    site, generic: AcquireConfig, tmp_path: Path
) -> None:
    strict = dataclasses.replace(generic, allow_private_hosts=False)
    outcome = get(site.url("page"), tmp_path / "w", strict)
    assert (outcome.state, outcome.reason) == ("failed", "refused_address"), outcome.detail
    assert site.hits == []


def test_sites_are_known_by_their_addresses_alone() -> None:
    sites = asyncio.run(
        ytdlp.classify([
            "https://www.youtube.com/watch?v=dQw4w9WgXcQ",
            "https://youtu.be/dQw4w9WgXcQ",
            "https://www.tiktok.com/@someone/video/7000000000000000000",
            "https://nobody.example/page",
        ])
    )  # fmt: skip
    assert sites[0] == sites[1] == ("youtube", "dQw4w9WgXcQ")
    assert sites[2][0] == "tiktok"
    assert sites[3] == ("generic", None)


_REAL_ERRORS = """
import json
from yt_dlp import utils
from yt_dlp.networking.exceptions import HTTPError, TransportError
import io
from yt_dlp.networking import Response
def http(code):
    return HTTPError(Response(io.BytesIO(b""), "https://a.example", {}, status=code))
errors = {
    "gone_http": utils.ExtractorError("Unable to download webpage", cause=http(404), expected=True),
    "limited": utils.ExtractorError("Unable to download webpage", cause=http(429)),
    "forbidden": utils.ExtractorError("Unable to download webpage", cause=http(403)),
    "broken": utils.ExtractorError("Unable to download webpage", cause=http(503)),
    "cut": utils.ExtractorError("Unable to download", cause=TransportError("timed out")),
    "geo": utils.GeoRestrictedError("This video is not available in your country"),
    "login": utils.ExtractorError("Sign in to confirm your age", expected=True),
    "bot": utils.ExtractorError("Sign in to confirm you're not a bot", expected=True),
    "private": utils.ExtractorError("Private video. Sign in if you've been granted access"),
    "removed": utils.ExtractorError("Video unavailable. This video has been removed"),
    "other": utils.UnsupportedError("https://a.example/x"),
    "odd": utils.ExtractorError("Unable to extract data"),
}
from animaray.pipelines.acquire.ytdlp import describe_failure
print(json.dumps({name: describe_failure(error) for name, error in errors.items()}))
"""


def test_real_errors_of_yt_dlp_are_told_apart() -> None:
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", _REAL_ERRORS], capture_output=True, check=True
    )
    found = {
        name: ytdlp.classify_error(*said.values()) for name, said in json.loads(done.stdout).items()
    }
    assert found == {
        "gone_http": ("unavailable", "gone"),
        "limited": ("blocked", "rate_limited"),
        "forbidden": ("blocked", "forbidden"),
        "broken": ("failed", "server_error"),
        "cut": ("failed", "connection"),
        "geo": ("blocked", "geo_restricted"),
        "login": ("blocked", "login_required"),
        "bot": ("blocked", "rate_limited"),
        "private": ("unavailable", "private"),
        "removed": ("unavailable", "gone"),
        "other": ("unavailable", "unsupported"),
        "odd": ("failed", "extractor"),
    }
