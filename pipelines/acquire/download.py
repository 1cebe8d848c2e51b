"""Fetch one file over http or https: bounded, resumable, never half a file under a full name.

The server is trusted in nothing: length, type, encoding and redirects are checked, and the bytes
are counted. Answers are told apart as blocked (later), unavailable (never) and failed (try again).
"""

import asyncio
import email.utils
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from urllib.parse import urljoin

import httpx

from animaray.pipelines.acquire.addresses import resolve, split_url
from animaray.pipelines.acquire.config import AcquireConfig, FetchOutcome
from animaray.platform.disk import disk_error
from animaray.platform.errors import AnimarayError, DiskError
from animaray.platform.storage import write_json_atomic

_MAX_REDIRECTS = 5
_SYNC_BYTES = 8 << 20
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_BLOCKED = {401: "login_required", 403: "forbidden", 407: "login_required", 429: "rate_limited"}
_GONE = frozenset({404, 410, 451})
_PARTIAL, _OK, _BAD_RANGE = 206, 200, 416


class _EndError(Exception):
    """Carry the outcome of an input out of the request."""

    def __init__(self, outcome: FetchOutcome) -> None:
        super().__init__(outcome.detail)
        self.outcome = outcome


@dataclass(slots=True)
class _Part:
    """A file that grows; what is known of its source allows to go on with it later."""

    path: Path

    @property
    def _facts_path(self) -> Path:
        return self.path.with_suffix(".part.json")

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def validator(self) -> str | None:
        """Return the strong tag of the bytes that are here, if the server gave one."""
        try:
            tag = json.loads(self._facts_path.read_text(encoding="utf-8"))["validator"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return tag if isinstance(tag, str) and self.size() else None

    def remember(self, validator: str | None) -> None:
        write_json_atomic(self._facts_path, {"validator": validator})

    def drop(self) -> None:
        self.path.unlink(missing_ok=True)
        self._facts_path.unlink(missing_ok=True)

    def forget_facts(self) -> None:
        self._facts_path.unlink(missing_ok=True)


async def download(url: str, part_path: Path, config: AcquireConfig) -> FetchOutcome:
    """Fetch a file into `part_path`, going on with what is there; the caller renames it.

    Args:
        url: http or https address.
        part_path: File to append to; kept after a cut, removed when it is of no use.

    Raises:
        DiskError: Our own disk is full or may not be written.
    """
    part = _Part(part_path)
    try:
        async with asyncio.timeout(config.item_timeout_s):
            return await _fetch(url, part, config)
    except TimeoutError:
        return _failed("timeout", f"took longer than {config.item_timeout_s:g} s")
    except _EndError as end:
        return end.outcome
    except DiskError:
        raise
    except AnimarayError as error:
        return _failed(error.reason or "bad_address", error.message)
    except httpx.TimeoutException as error:
        return _failed("timeout", f"the server was silent: {type(error).__name__}")
    except (httpx.RemoteProtocolError, httpx.ReadError) as error:
        return _failed("cut", f"the connection was cut after {part.size()} bytes: {error}")
    except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
        if (no_disk := disk_error(error, part_path.parent)) is not None:
            raise no_disk from error
        return _failed("connection", f"{type(error).__name__}: {error}")


async def _fetch(url: str, part: _Part, config: AcquireConfig) -> FetchOutcome:
    for _ in range(_MAX_REDIRECTS + 1):
        async with _ask(url, part, config) as answer:
            if answer.status_code in _REDIRECTS:
                url = urljoin(url, answer.headers.get("location", ""))
                split_url(url)
                continue
            if answer.status_code == _BAD_RANGE:
                part.drop()
                raise _EndError(_failed("wrong_length", "the server has fewer bytes than we do"))
            _judge_status(answer)
            await _save(answer, part, config)
        facts = {"downloader": f"httpx {httpx.__version__}", "format_id": None}
        part.forget_facts()
        return FetchOutcome(state="fetched", path=part.path, facts=facts)
    return _failed("too_many_redirects", f"more than {_MAX_REDIRECTS} redirects")


@asynccontextmanager
async def _ask(url: str, part: _Part, config: AcquireConfig) -> AsyncIterator[httpx.Response]:
    """Send one request to a checked address of the host."""
    scheme, host, port = split_url(url)
    addresses = await resolve(host, port, allow_private=config.allow_private_hosts)
    timeout = httpx.Timeout(config.read_timeout_s, connect=config.connect_timeout_s)
    parsed = httpx.URL(url)
    headers = {
        "Host": parsed.netloc.decode("ascii"),
        "Accept": "video/*,*/*;q=0.1",
        "Accept-Encoding": "identity",
        "User-Agent": "animaray",
    }
    validator = part.validator()
    if validator is not None:
        headers |= {"Range": f"bytes={part.size()}-", "If-Range": validator}
    else:
        part.drop()
    # The request goes to the address that was checked; the certificate must name the host.
    pinned = parsed.copy_with(scheme=scheme, host=addresses[0], port=port, fragment=None)
    extensions = {"sni_hostname": host} if scheme == "https" else {}
    async with (
        httpx.AsyncClient(timeout=timeout, trust_env=False, follow_redirects=False) as client,
        client.stream("GET", pinned, headers=headers, extensions=extensions) as answer,
    ):
        yield answer


def _judge_status(answer: httpx.Response) -> None:
    """Let only answers with the file pass.

    Raises:
        _EndError: It is another answer.
    """
    code = answer.status_code
    detail = f"HTTP {code}"
    wait_s = retry_after_s(answer.headers.get("retry-after"))
    if code in _BLOCKED:
        raise _EndError(
            FetchOutcome(
                state="blocked", reason=_BLOCKED[code], detail=detail, retry_after_s=wait_s
            )
        )
    if code in _GONE:
        raise _EndError(FetchOutcome(state="unavailable", reason="gone", detail=detail))
    if code >= 500 or code == 408:
        raise _EndError(
            FetchOutcome(state="failed", reason="server_error", detail=detail, retry_after_s=wait_s)
        )
    if code not in {_OK, _PARTIAL}:
        raise _EndError(FetchOutcome(state="unavailable", reason="refused", detail=detail))
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in {"text/html", "application/xhtml+xml"}:
        detail = "the server sent a web page, not a video"
        raise _EndError(FetchOutcome(state="unavailable", reason="web_page", detail=detail))
    if answer.headers.get("content-encoding", "identity").lower() != "identity":
        detail = "the server sent an encoding that was not asked for"
        raise _EndError(FetchOutcome(state="unavailable", reason="encoded", detail=detail))


async def _save(answer: httpx.Response, part: _Part, config: AcquireConfig) -> None:
    """Write the body to the part file, synced; check its length against what was announced.

    Raises:
        _EndError: The length is not as announced or over the limit.
    """
    start = 0
    if answer.status_code == _PARTIAL:
        start = _range_start(answer.headers.get("content-range", ""))
        if start != part.size():
            part.drop()
            raise _EndError(_failed("wrong_length", "the server sent another range than asked for"))
    else:
        part.drop()
    length = answer.headers.get("content-length", "")
    announced = start + int(length) if length.isdecimal() else None
    if announced is not None and announced > config.max_file_bytes:
        _refuse_size(part, config, announced)
    tag = answer.headers.get("etag", "W/")
    changed_at = answer.headers.get("last-modified")
    part.path.parent.mkdir(parents=True, exist_ok=True)
    part.remember(changed_at if tag.startswith("W/") else tag)
    count, unsynced = start, 0
    with part.path.open("ab") as file:
        try:
            async for block in answer.aiter_raw():
                count += len(block)
                if count > config.max_file_bytes:
                    _refuse_size(part, config, count)
                file.write(block)
                unsynced += len(block)
                if unsynced > _SYNC_BYTES:
                    os.fdatasync(file.fileno())
                    unsynced = 0
        finally:
            file.flush()
            os.fsync(file.fileno())
    if announced is not None and count != announced:
        part.drop()
        raise _EndError(_failed("wrong_length", f"got {count} bytes of {announced} announced"))


def _refuse_size(part: _Part, config: AcquireConfig, count: int) -> NoReturn:
    """End an input that is too large.

    Raises:
        _EndError: Always.
    """
    part.drop()
    detail = f"{count} bytes or more; the limit is {config.max_file_bytes}"
    raise _EndError(FetchOutcome(state="unavailable", reason="too_large", detail=detail))


def _range_start(header: str) -> int:
    """Return the first byte of `bytes 100-199/200`; -1 for anything else."""
    text = header.removeprefix("bytes ").partition("-")[0]
    return int(text) if header.startswith("bytes ") and text.isdecimal() else -1


def retry_after_s(header: str | None) -> float | None:
    """Read a Retry-After header: seconds, or a date; None when there is none."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header.strip())
    try:
        moment = email.utils.parsedate_to_datetime(header)
    except (TypeError, ValueError):
        return None
    return max(0.0, moment.timestamp() - time.time())


def _failed(reason: str, detail: str) -> FetchOutcome:
    return FetchOutcome(state="failed", reason=reason, detail=detail[:300])
