"""yt-dlp itself, in its child process, against the server of this machine."""

import asyncio
import dataclasses
import json
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
