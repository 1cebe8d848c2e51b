"""Fetch many addresses: each platform at its pace, every address to exactly one end.

An address that is queued ends as one of:

- fetched: its file is complete in `files/`; it is never asked for again.
- unavailable: gone, private or no video; it is never asked for again.
- blocked: the site refuses us now; the next run asks again.
- failed: it could not be fetched in several tries; the next run tries again.
- expanded: a playlist; its entries are items of their own.
- duplicate: the same video of the same site as another address.
- queued: not asked, because its platform is left alone for the rest of this run.
"""

import asyncio
import os
import queue
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from animaray.pipelines.acquire import ytdlp
from animaray.pipelines.acquire.addresses import split_url
from animaray.pipelines.acquire.config import PASSING, AcquireConfig, FetchOutcome
from animaray.pipelines.acquire.download import download
from animaray.pipelines.acquire.states import AcquisitionStates, Clock, Item
from animaray.platform.errors import RefusedError
from animaray.platform.media.file_kind import VIDEO_SUFFIXES
from animaray.platform.removal import remove
from animaray.platform.storage import content_id, read_json, sync_folder, write_json_atomic

STATES_NAME = "ledger.sqlite"
_PLAIN = "file:"
_SITE = "site:"
_ENDED = frozenset({"fetched", "unavailable", "expanded", "duplicate"})


class Fetcher:
    """Fetch addresses into one folder; what an earlier run did is remembered there."""

    def __init__(
        self,
        urls: Sequence[str],
        folder: Path,
        config: AcquireConfig,
        *,
        needs_no_file: frozenset[str] = frozenset(),
        clock: Clock = time.time,
    ) -> None:
        """Take what to fetch; nothing happens before `stream`.

        Args:
            urls: http and https addresses of files, videos and playlists.
            folder: Where the states, part files and complete files are.
            needs_no_file: Addresses whose videos are in the dataset; their files may be gone.
        """
        self._urls = list(dict.fromkeys(urls))
        self._taken = set(self._urls)
        self._config = config
        self._needs_no_file = needs_no_file
        self._clock = clock
        self.files_dir = folder / "files"
        self._work_dir = folder / "work"
        self.files_dir.mkdir(parents=True, exist_ok=True)
        self._states = AcquisitionStates(folder / STATES_NAME, clock)
        self._known = self._states.items()
        self._owners = {
            item.key: item.url for item in self._known.values() if item.state == "fetched"
        }
        self._done: queue.Queue[Item | BaseException | None] = queue.Queue()
        self._slots = asyncio.Semaphore(config.num_parallel)
        self._pending: dict[str, asyncio.Queue[Item]] = {}
        self._blocks: dict[str, int] = {}

    def stream(self, batch: int = 16) -> Iterator[list[Item]]:
        """Fetch in the background and yield items as they end, every address exactly once."""
        loop = asyncio.new_event_loop()
        task = loop.create_task(self._run())
        thread = threading.Thread(target=self._drive, args=(loop, task), daemon=True)
        thread.start()
        try:
            ended: list[Item] = []
            while (item := self._done.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                ended.append(item)
                if len(ended) >= batch:
                    yield ended
                    ended = []
            if ended:
                yield ended
        finally:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(task.cancel)
            thread.join()
            self._states.close()

    def _drive(self, loop: asyncio.AbstractEventLoop, task: "asyncio.Task[None]") -> None:
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again by the reader
            self._done.put(error)
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
            self._done.put(None)

    async def _run(self) -> None:
        self._adopt_complete_files()
        await self._take(self._urls)
        while self._pending:
            # Playlists add entries while they are read, perhaps of another platform.
            pending, self._pending = self._pending, {}
            async with asyncio.TaskGroup() as group:
                for platform, items in pending.items():
                    num_workers = 1 if platform.startswith(_SITE) else self._config.num_parallel
                    for _ in range(num_workers):
                        group.create_task(self._work(platform, items))

    def _adopt_complete_files(self) -> None:
        """Count what a killed run had complete but had not yet noted."""
        for item in self._known.values():
            if item.state == "fetched":
                continue
            path = next(self.files_dir.glob(f"{item.item_id}.[!j]*"), None)
            if path is not None:
                facts_path = self.files_dir / f"{item.item_id}.json"
                item.facts = read_json(facts_path) if facts_path.exists() else {}
                item.state, item.reason, item.detail, item.path = "fetched", None, None, path.name
                self._states.save([item])

    async def _take(self, urls: Sequence[str]) -> None:
        """Queue addresses that are to be asked for; report the others at once."""
        new = [url for url in urls if _item_id(url) not in self._known]
        for url, (platform, key) in zip(new, await self._route(new), strict=True):
            item = Item(_item_id(url), url, platform, key)
            self._known[item.item_id] = item
        self._states.save([self._known[_item_id(url)] for url in new])
        for url in urls:
            item = self._known[_item_id(url)]
            owner = self._owners.setdefault(item.key, item.url)
            if owner != item.url:
                item.state, item.reason = "duplicate", "same_id"
                item.detail = f"the same video as {owner}"
            if item.state == "expanded":
                item.state = "queued"  # it may have grown
            if item.state == "fetched" and not self._has_file(item):
                item.state, item.path = "queued", None
            is_over = item.state in _ENDED
            if item.state == "unavailable" and self._config.retry_unavailable:
                is_over = False
            if is_over:
                self._finish(item)
            else:
                self._pending.setdefault(item.platform, asyncio.Queue()).put_nowait(item)

    def _has_file(self, item: Item) -> bool:
        is_here = item.path is not None and (self.files_dir / item.path).is_file()
        return is_here or item.url in self._needs_no_file

    async def _route(self, urls: Sequence[str]) -> list[tuple[str, str]]:
        """Return platform and key of each address: a plain file of a host, or a site's video."""
        plain = {url: _plain_route(url) for url in urls if _is_plain_file(url)}
        rest = [url for url in urls if url not in plain]
        if rest:
            for url, (site, video_id) in zip(rest, await ytdlp.classify(rest), strict=True):
                if site == "generic" and not self._config.allow_generic_pages:
                    plain[url] = _plain_route(url)
                else:
                    plain[url] = (f"{_SITE}{site}", f"{site} {video_id}" if video_id else url)
        return [plain[url] for url in urls]

    async def _work(self, platform: str, items: "asyncio.Queue[Item]") -> None:
        """Fetch a platform's items until none is left."""
        while not items.empty():
            item = items.get_nowait()
            async with self._slots:
                await self._fetch_one(platform, item)

    async def _fetch_one(self, platform: str, item: Item) -> None:
        config = self._config
        for attempt in range(config.max_attempts):
            if self._blocks.get(platform, 0) >= config.max_consecutive_blocks:
                detail = f"{_name(platform)} refused {self._blocks[platform]} inputs in a row"
                self._end(item, FetchOutcome(state="queued", reason="circuit_open", detail=detail))
                return
            wait_s = await self._wait_for_turn(platform)
            if wait_s > 0:
                detail = f"{_name(platform)} asks to wait {wait_s:.0f} s more"
                self._end(item, FetchOutcome(state="queued", reason="wait", detail=detail))
                return
            item.attempts += 1
            self._states.save([item])
            outcome = await self._ask(item)
            if attempt + 1 < config.max_attempts and await self._is_again(
                platform, outcome, attempt
            ):
                continue
            await self._conclude(platform, item, outcome)
            return

    async def _wait_for_turn(self, platform: str) -> float:
        """Wait for the right to ask; return the rest of a wait that is too long for this run."""
        is_site = platform.startswith(_SITE)
        per_hour = (
            self._config.platform_rate_per_hour if is_site else self._config.host_rate_per_hour
        )
        longest_s = max(self._config.max_wait_s, 3600 / per_hour + 1)
        while wait_s := self._states.take_token(
            platform, per_hour=per_hour, burst=self._config.burst
        ):
            if wait_s > longest_s:
                return wait_s
            await asyncio.sleep(wait_s)
        return 0.0

    async def _ask(self, item: Item) -> FetchOutcome:
        work = self._work_dir / item.item_id
        if item.platform.startswith(_SITE):
            return await ytdlp.fetch(item.url, work, self._config)
        return await download(item.url, work / "video.part", self._config)

    async def _is_again(self, platform: str, outcome: FetchOutcome, attempt: int) -> bool:
        """Return whether to try again in this run, after having waited for it."""
        # Jitter keeps many inputs from coming back at once; no secret depends on it.
        backoff_s = self._config.backoff_s * 2**attempt * random.uniform(0.5, 1.5)  # noqa: S311
        wait_s = outcome.retry_after_s if outcome.retry_after_s is not None else backoff_s
        if outcome.state == "blocked":
            if outcome.reason == "rate_limited" or outcome.retry_after_s is not None:
                self._states.block_until(platform, self._clock() + wait_s)
            # The next wait for a turn honours it.
            return outcome.reason == "rate_limited" and wait_s <= self._config.max_wait_s
        if outcome.state != "failed" or outcome.reason not in PASSING:
            return False
        if wait_s > self._config.max_wait_s:
            return False
        await asyncio.sleep(wait_s)
        return True

    async def _conclude(self, platform: str, item: Item, outcome: FetchOutcome) -> None:
        if outcome.state == "blocked":
            self._blocks[platform] = self._blocks.get(platform, 0) + 1
        elif outcome.state != "failed":
            self._blocks[platform] = 0
        if outcome.state == "expanded":
            self._states.add_entries(item.item_id, outcome.entries)
        # A playlist that cannot be read now still has the entries that it had.
        entries = self._states.entries(item.item_id)
        if outcome.state == "fetched":
            outcome = self._keep_file(item, outcome)
        self._end(item, outcome)
        new = [url for url in entries if url not in self._taken]
        self._taken.update(new)
        await self._take(new)

    def _keep_file(self, item: Item, outcome: FetchOutcome) -> FetchOutcome:
        """Move a complete file to its place: synced, then renamed, then its folder synced."""
        assert outcome.path is not None  # noqa: S101 - by definition of fetched
        suffix = outcome.path.suffix
        if suffix == ".part":
            named = PurePosixPath(urlsplit(item.url).path).suffix.lower()
            suffix = named if named in VIDEO_SUFFIXES else ".video"
        now = datetime.fromtimestamp(self._clock(), UTC)
        item.facts = {**outcome.facts, "fetched_at": now.isoformat(timespec="seconds")}
        write_json_atomic(self.files_dir / f"{item.item_id}.json", item.facts)
        with outcome.path.open("rb") as file:
            os.fsync(file.fileno())
        final = self.files_dir / f"{item.item_id}{suffix}"
        outcome.path.replace(final)
        sync_folder(self.files_dir)
        item.path = final.name
        return outcome

    def _end(self, item: Item, outcome: FetchOutcome) -> None:
        item.state, item.reason, item.detail = outcome.state, outcome.reason, outcome.detail
        self._states.save([item])
        if item.state in _ENDED:
            remove(self._work_dir / item.item_id, f"{item.url} has ended as {item.state}")
        self._finish(item)

    def _finish(self, item: Item) -> None:
        self._done.put(item)


def _item_id(url: str) -> str:
    return content_id("remote", url)


def _name(platform: str) -> str:
    return platform.partition(":")[2]


def _is_plain_file(url: str) -> bool:
    try:
        split_url(url)
    except RefusedError:
        return True  # no site's address either; refused when its turn comes
    return PurePosixPath(urlsplit(url).path).suffix.lower() in VIDEO_SUFFIXES


def _plain_route(url: str) -> tuple[str, str]:
    try:
        _, host, port = split_url(url)
    except RefusedError:
        return f"{_PLAIN}none", url
    return f"{_PLAIN}{host}:{port}", url
