"""One file over http: whole, or absent with a reason, whatever the server does."""

import asyncio
import dataclasses
import time
from pathlib import Path

import pytest

from animaray.pipelines.acquire.config import AcquireConfig, FetchOutcome
from animaray.pipelines.acquire.download import download, retry_after_s


def get(url: str, part: Path, config: AcquireConfig) -> FetchOutcome:
    return asyncio.run(download(url, part, config))


def test_file_comes_whole(site, fast: AcquireConfig, tmp_path: Path) -> None:
    outcome = get(site.url("good.mp4"), tmp_path / "v.part", fast)
    assert (outcome.state, outcome.reason) == ("fetched", None)
    assert outcome.path is not None
    assert outcome.path.read_bytes() == site.video
    assert [path.name for path in tmp_path.iterdir()] == ["v.part"]


@pytest.mark.parametrize(
    ("name", "state", "reason"),
    [
        ("limited.mp4", "blocked", "rate_limited"),
        ("forbidden.mp4", "blocked", "forbidden"),
        ("gone.mp4", "unavailable", "gone"),
        ("flaky.mp4", "failed", "server_error"),
        ("hang.mp4", "failed", "timeout"),
        ("cut.mp4", "failed", "cut"),
        ("huge.mp4", "unavailable", "too_large"),
        ("zipped.mp4", "unavailable", "encoded"),
        ("page.mp4", "unavailable", "web_page"),
        ("to-loop.mp4", "failed", "too_many_redirects"),
        ("to-file.mp4", "failed", "bad_address"),
    ],
)
def test_misbehaviour_has_a_name(
    site, fast: AcquireConfig, tmp_path: Path, name: str, state: str, reason: str
) -> None:
    outcome = get(site.url(name), tmp_path / "v.part", fast)
    assert (outcome.state, outcome.reason) == (state, reason)
    assert outcome.detail
    assert outcome.path is None


def test_server_says_how_long_to_wait(site, fast: AcquireConfig, tmp_path: Path) -> None:
    assert get(site.url("closed.mp4"), tmp_path / "v.part", fast).retry_after_s == 3600
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after_s("soon") is None


def test_cut_download_goes_on_where_it_stopped(site, fast: AcquireConfig, tmp_path: Path) -> None:
    part = tmp_path / "v.part"
    assert get(site.url("cut.mp4"), part, fast).reason == "cut"
    assert part.stat().st_size == 1000
    outcome = get(site.url("cut.mp4"), part, fast)
    assert site.ranges == [None, "bytes=1000-"]
    assert outcome.state == "fetched"
    assert part.read_bytes() == site.video


def test_part_of_another_version_is_not_gone_on_with(
    site, fast: AcquireConfig, tmp_path: Path
) -> None:
    part = tmp_path / "v.part"
    get(site.url("cut.mp4"), part, fast)
    part.with_suffix(".part.json").write_text('{"validator": "\\"v0\\""}')
    assert get(site.url("good.mp4"), part, fast).state == "fetched"
    assert part.read_bytes() == site.video


def test_endless_body_ends_at_the_limit(site, fast: AcquireConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(fast, max_file_bytes=1_000_000)
    outcome = get(site.url("endless.mp4"), tmp_path / "v.part", config)
    assert (outcome.state, outcome.reason) == ("unavailable", "too_large")
    assert not (tmp_path / "v.part").exists()


def test_dripping_server_meets_the_hard_time_out(site, fast: AcquireConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(fast, item_timeout_s=0.6)
    started = time.monotonic()
    assert get(site.url("drip.mp4"), tmp_path / "v.part", config).reason == "timeout"
    assert time.monotonic() - started < 3


def test_private_addresses_are_refused_at_every_hop(
    site, fast: AcquireConfig, tmp_path: Path
) -> None:
    strict = dataclasses.replace(fast, allow_private_hosts=False)
    outcome = get(site.url("good.mp4"), tmp_path / "v.part", strict)
    assert (outcome.state, outcome.reason) == ("failed", "refused_address")
    assert site.hits == []


def test_redirect_to_a_private_address_is_refused(
    site, fast: AcquireConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from animaray.pipelines.acquire import addresses

    # Only the test's own server counts as public here; where it sends us does not.
    monkeypatch.setattr(addresses, "is_public", lambda address: address == "127.0.0.1")
    strict = dataclasses.replace(fast, allow_private_hosts=False)
    assert get(site.url("to-good.mp4"), tmp_path / "v.part", strict).state == "fetched"
    outcome = get(site.url("to-private.mp4"), tmp_path / "w.part", strict)
    assert outcome.reason == "refused_address"
    assert outcome.detail is not None
    assert "169.254.169.254" in outcome.detail


def test_name_that_changes_its_address_is_asked_once(
    site, fast: AcquireConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    answers = []

    def flip(self: object, host: str, port: int, **_: object) -> object:
        answers.append(host)
        address = "127.0.0.1" if len(answers) == 1 else "10.0.0.1"
        return _done([(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))])

    async def _value(value: object) -> object:
        return value

    def _done(value: object) -> object:
        return _value(value)

    monkeypatch.setattr("asyncio.base_events.BaseEventLoop.getaddrinfo", flip)
    url = f"http://rebinding.example:{site.port}/good.mp4"
    assert get(url, tmp_path / "v.part", fast).state == "fetched"
    # The connection itself names the number, so the second answer is never used.
    assert [name for name in answers if name == "rebinding.example"] == ["rebinding.example"]
