"""Many addresses: each ends once, platforms are spared, nothing is fetched twice or lost."""

import dataclasses
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from animaray.pipelines.acquire.config import AcquireConfig
from animaray.pipelines.acquire.fetch import Fetcher
from animaray.pipelines.acquire.states import AcquisitionStates, Item


def fetch(urls: list[str], folder: Path, config: AcquireConfig) -> dict[str, Item]:
    ended = [item for batch in Fetcher(urls, folder, config).stream() for item in batch]
    counts = Counter(item.url for item in ended)
    assert set(counts.values()) <= {1}, "an address ended twice"
    assert set(urls) <= set(counts)
    return {item.url: item for item in ended}


def states(items: dict[str, Item]) -> dict[str, tuple[str, str | None]]:
    return {url.rpartition("/")[2]: (item.state, item.reason) for url, item in items.items()}


def test_every_address_ends_once_and_a_second_run_asks_only_what_may_change(
    site, fast: AcquireConfig, tmp_path: Path
) -> None:
    names = ["good.mp4", "limited.mp4", "flaky.mp4", "cut.mp4", "gone.mp4", "forbidden.mp4"]
    urls = [site.url(name) for name in names]
    items = fetch(urls, tmp_path, fast)
    assert states(items) == {
        "good.mp4": ("fetched", None),
        "limited.mp4": ("fetched", None),  # after the wait that the server asked for
        "flaky.mp4": ("fetched", None),
        "cut.mp4": ("fetched", None),
        "gone.mp4": ("unavailable", "gone"),
        "forbidden.mp4": ("blocked", "forbidden"),
    }
    for item in items.values():
        if item.state == "fetched":
            assert (tmp_path / "files" / str(item.path)).read_bytes() == site.video
            assert item.facts["fetched_at"]
    assert not list((tmp_path / "work").glob("*/video.part"))
    before = Counter(site.hits)
    assert states(fetch(urls, tmp_path, fast)) == states(items)
    new = Counter(site.hits) - before
    assert new == {"/forbidden.mp4": 1}


def test_retry_after_is_obeyed_across_runs(site, fast: AcquireConfig, tmp_path: Path) -> None:
    urls = [site.url("closed.mp4"), site.url("good-1.mp4"), site.url("good-2.mp4")]
    one = dataclasses.replace(fast, num_parallel=1)
    assert states(fetch(urls, tmp_path, one)) == {
        "closed.mp4": ("blocked", "rate_limited"),
        "good-1.mp4": ("queued", "wait"),
        "good-2.mp4": ("queued", "wait"),
    }
    assert site.hits == ["/closed.mp4"]
    assert {state for state, _ in states(fetch(urls, tmp_path, one)).values()} == {"queued"}
    assert site.hits == ["/closed.mp4"]


def test_breaker_leaves_a_platform_alone(site, fast: AcquireConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(fast, max_consecutive_blocks=3, num_parallel=1)
    urls = [site.url(f"forbidden-{number}.mp4") for number in range(10)]
    counts = Counter(states(fetch(urls, tmp_path, config)).values())
    assert counts == {("blocked", "forbidden"): 3, ("queued", "circuit_open"): 7}
    assert len(site.hits) == 3


def test_rate_holds_across_restarts(tmp_path: Path) -> None:
    now = [1000.0]
    states = AcquisitionStates(tmp_path / "l.sqlite", lambda: now[0])
    taken = [states.take_token("p", per_hour=3600.0, burst=3) for _ in range(4)]
    assert taken == [0.0, 0.0, 0.0, 1.0]
    states.close()
    again = AcquisitionStates(tmp_path / "l.sqlite", lambda: now[0])
    assert again.take_token("p", per_hour=3600.0, burst=3) == 1.0
    now[0] += 1.5
    assert again.take_token("p", per_hour=3600.0, burst=3) == 0.0
    assert again.take_token("p", per_hour=3600.0, burst=3) == pytest.approx(0.5)
    now[0] -= 500  # a clock that is set back gives no tokens and takes none
    assert again.take_token("p", per_hour=3600.0, burst=3) == pytest.approx(0.5)
    assert again.take_token("other", per_hour=3600.0, burst=3) == 0.0
    again.block_until("other", now[0] + 60)
    assert again.take_token("other", per_hour=3600.0, burst=3) == 60


def test_kills_lose_nothing_fetch_nothing_twice_and_keep_every_wait(tmp_path: Path) -> None:
    # The rig of the lab log, small: it starts a server that also answers 429, 403 and nothing.
    command = [
        sys.executable, "-m", "tests.faults.ingest_chaos", "--kills", "4", "--ids", "24",
        "--out", str(tmp_path),
    ]  # fmt: skip
    ended = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert ended.returncode == 0, ended.stdout + ended.stderr
    result = json.loads(ended.stdout)
    assert result["kills"] == 4
    assert result["broken_promises"] == []
    assert result["states"]["fetched"] == 24 + 6


def test_complete_file_without_a_note_is_adopted(site, fast: AcquireConfig, tmp_path: Path) -> None:
    url = site.url("good.mp4")
    item = fetch([url], tmp_path, fast)[url]
    states = AcquisitionStates(tmp_path / "ledger.sqlite")
    item.state, item.path = "queued", None
    states.save([item])
    states.close()
    assert fetch([url], tmp_path, fast)[url].state == "fetched"
    assert site.count("good.mp4") == 1


def test_lost_file_is_fetched_again(site, fast: AcquireConfig, tmp_path: Path) -> None:
    url = site.url("good.mp4")
    item = fetch([url], tmp_path, fast)[url]
    (tmp_path / "files" / str(item.path)).unlink()
    assert fetch([url], tmp_path, fast)[url].state == "fetched"
    assert site.count("good.mp4") == 2
