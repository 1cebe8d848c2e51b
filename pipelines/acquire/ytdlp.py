"""Fetch from video sites with yt-dlp, in a child process that is killed when its time is up.

The only file that names yt-dlp. The child gets no program to run, no configuration, no plugins and
no private address to connect to; it reads and writes one folder, from which one video is taken.
`classify` says which site an address belongs to and asks nobody.
"""

import io
import ipaddress
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from animaray.pipelines.acquire.addresses import is_public
from animaray.pipelines.acquire.config import AcquireConfig, FetchOutcome
from animaray.platform.errors import RefusedError, ServiceError
from animaray.platform.sandbox.bounded_child import (
    answer_request,
    confine_to_folder,
    run_bounded_child,
)
from animaray.platform.storage import content_id

_MODULE = "animaray.pipelines.acquire.ytdlp"
_MEDIA_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".webm", ".mkv", ".mov", ".flv", ".3gp", ".avi", ".ts",
})  # fmt: skip
_CHILD_MEMORY_BYTES = 3 * 1024**3
_CLASSIFY_S = 120.0
_TAIL_CHARS = 400
# Solvers of a site's own scripts; everything else that yt-dlp might run is refused.
_ALLOWED_PROGRAMS = frozenset({"deno", "node", "bun", "qjs"})

# In this order: what is gone for ever may also speak of signing in, and the other way round.
_BOT = ("not a bot", "captcha", "unusual traffic", "ip address is blocked", "rate-limit",
        "rate limit", "too many requests", "http error 429")  # fmt: skip
_GONE = ("video unavailable", "has been removed", "was removed", "no longer available",
         "does not exist", "account has been terminated", "private video", "is private",
         "been deleted", "http error 404", "http error 410", "copyright",
         "this video is not available", "not exist")  # fmt: skip
_LOGIN = ("sign in", "log in", "login", "cookies", "members-only", "age-restricted",
          "confirm your age", "premium")  # fmt: skip
_FORBIDDEN = ("http error 403", "http error 401", "forbidden", "impersonat")
_PASSING = ("timed out", "timeout", "connection", "temporary failure",
            "incomplete", "bytes read", "unable to download", "name resolution")  # fmt: skip


def classify_error(text: str, kind: str = "", status: int = 0) -> tuple[str, str]:
    """Return state and reason for what yt-dlp said; unknown words fail, and are tried again.

    Args:
        kind: Name of yt-dlp's exception class.
        status: Of the HTTP answer behind it; 0 for none.
    """
    words = text.lower() + (f" http error {status}" if status else "")
    if kind == "RefusedError":
        return "failed", "refused_address"
    if kind == "GeoRestrictedError" or "not available in your country" in words:
        return "blocked", "geo_restricted"
    if kind == "UnsupportedError" or "unsupported url" in words:
        return "unavailable", "unsupported"
    for state, reason, hints in (
        ("blocked", "rate_limited", _BOT),
        ("blocked", "forbidden", _FORBIDDEN),
        ("unavailable", "gone", _GONE),
        ("blocked", "login_required", _LOGIN),
        ("unavailable", "too_large", ("larger than max-filesize",)),
        ("unavailable", "no_video", ("no video formats", "requested format is not available")),
        ("failed", "server_error", ("http error 5",)),
        ("failed", "connection", _PASSING),
    ):
        if any(hint in words for hint in hints):
            return state, "private" if reason == "gone" and "private" in words else reason
    return "failed", "extractor"


async def classify(urls: Sequence[str]) -> list[tuple[str, str | None]]:
    """Return, for each address, the site's name (generic for none) and the video's id, if plain.

    Raises:
        ServiceError: The child process does not answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        request = {"task": "classify", "urls": list(urls)}
        try:
            answer = await _run_child(request, Path(folder), _CLASSIFY_S)
        except ServiceError as error:
            raise ServiceError(
                f"yt-dlp cannot be started: {error.message}", fix="pip install -U yt-dlp"
            ) from error
    return [(site, video_id) for site, video_id in answer["sites"]]


async def fetch(url: str, folder: Path, config: AcquireConfig) -> FetchOutcome:
    """Fetch one video, or list the entries of a playlist, within the item's time.

    Args:
        url: Address of a video or playlist.
        folder: Folder of this item alone; a later try goes on with what is in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        name: getattr(config, name)
        for name in (
            "max_file_bytes", "read_timeout_s", "item_timeout_s", "allow_private_hosts",
            "allow_generic_pages", "cookies_file", "cookies_from_browser", "format",
            "max_height_px", "max_playlist_items",
        )
    }  # fmt: skip
    request = {"task": "fetch", "url": url, "settings": settings}
    # A browser's cookies lie below the home folder; nothing else there is any of yt-dlp's business.
    home = str(Path.home()) if config.cookies_from_browser else str(folder.absolute())
    try:
        answer = await _run_child(request, folder, config.item_timeout_s, home)
    except ServiceError as error:
        return FetchOutcome(state="failed", reason=error.reason or "crash", detail=error.message)
    if "error" in answer:
        state, reason = classify_error(answer["error"], answer["kind"], answer["status"])
        detail = f"{answer['error']}"[:_TAIL_CHARS]
        return FetchOutcome(state=state, reason=reason, detail=detail)
    if "entries" in answer:
        detail = f"a playlist of {len(answer['entries'])} entries"
        return FetchOutcome(
            state="expanded", reason="playlist", detail=detail, entries=tuple(answer["entries"])
        )
    return _take_video(folder, answer["facts"], config)


def _take_video(folder: Path, facts: dict[str, Any], config: AcquireConfig) -> FetchOutcome:
    """Find the one video that the child wrote; success is a file, not a word."""
    found = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in _MEDIA_SUFFIXES and path.is_file() and not path.is_symlink()
    ]
    if len(found) != 1:
        names = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        detail = f"yt-dlp reported success but left {names}"[:_TAIL_CHARS]
        return FetchOutcome(state="failed", reason="no_file", detail=detail)
    if found[0].stat().st_size > config.max_file_bytes:
        return FetchOutcome(state="unavailable", reason="too_large", detail=found[0].name)
    return FetchOutcome(state="fetched", path=found[0], facts=facts)


async def _run_child(
    request: dict[str, Any], folder: Path, timeout_s: float, home: str | None = None
) -> dict[str, Any]:
    """Run this module as a child; errors as in `run_bounded_child`."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
    return await run_bounded_child(
        _MODULE, "yt-dlp", request, folder, timeout_s,
        **kept, HOME=home or str(folder), YTDLP_NO_PLUGINS="1",
    )  # fmt: skip


class _SilentLogger:
    """Keep warnings in the child's log file."""

    def debug(self, message: str) -> None:
        """Drop progress."""

    def info(self, message: str) -> None:
        """Drop progress."""

    def warning(self, message: str) -> None:
        """Keep it."""
        sys.stderr.write(f"{message}\n")

    def error(self, message: str) -> None:
        """Keep it."""
        sys.stderr.write(f"{message}\n")


def _guard(*, allow_private: bool) -> list[str]:
    """Refuse connections to private addresses and programs, wherever in the child they start.

    Returns:
        A list to which refused addresses will be added: yt-dlp may swallow the error.
    """
    refused: list[str] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect" and not allow_private:
            try:
                _check_connection(arguments[1])
            except RefusedError as error:
                refused.append(error.message)
                raise
        elif event in {"subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn"}:
            program = Path(str(arguments[0])).name
            if program not in _ALLOWED_PROGRAMS:
                raise PermissionError(f"{program} may not be run while acquiring")
        elif event == "os.system":
            raise PermissionError("no shell may be run while acquiring")

    sys.addaudithook(watch)
    return refused


def _check_connection(address: object) -> None:
    """Refuse a socket address that is not a public one.

    Raises:
        RefusedError: It is private, or no numeric address.
    """
    host = str(address[0]) if isinstance(address, tuple) and address else str(address)
    with suppress(ValueError):
        host = str(ipaddress.ip_address(host.partition("%")[0]))
    if not is_public(host):
        raise RefusedError(f"{host} is not public", reason="refused_address")


def _options(settings: dict[str, Any]) -> dict[str, Any]:
    """Return yt-dlp's options: one plain file, no sound track, no extras, nothing executed."""
    browser, cookies = settings["cookies_from_browser"], settings["cookies_file"]
    return {
        "logger": _SilentLogger(), "noprogress": True, "quiet": True, "color": "never",
        "format": settings["format"], "noplaylist": True, "extract_flat": "in_playlist",
        "format_sort": ["vcodec:h264", f"res:{settings['max_height_px']}"],
        "max_filesize": settings["max_file_bytes"],
        "playlist_items": f"1:{settings['max_playlist_items']}", "lazy_playlist": False,
        "socket_timeout": settings["read_timeout_s"], "retries": 2, "fragment_retries": 2,
        "extractor_retries": 1, "outtmpl": {"default": "video.%(ext)s"}, "paths": {"home": "."},
        "cachedir": False, "fixup": "never", "writesubtitles": False, "usenetrc": False,
        "enable_file_urls": False, "continuedl": True, "updatetime": False, "overwrites": False,
        "ffmpeg_location": "/nonexistent", "check_formats": False, "proxy": "",
        # A stream, because yt-dlp writes cookies back: the user's file stays as it is.
        "cookiefile": io.StringIO(Path(cookies).read_text(encoding="utf-8")) if cookies else None,
        "cookiesfrombrowser": (browser,) if browser else None,
        "allowed_extractors": ["all"] if settings["allow_generic_pages"] else ["all", "-generic"],
    }  # fmt: skip


def describe_failure(error: BaseException) -> dict[str, Any]:
    """Return text, class and HTTP status of an error of yt-dlp, looking through its wrappers."""
    inner = (getattr(error, "exc_info", None) or (None, None))[1] or error
    cause, status = inner, 0
    while cause is not None and not status:
        status = int(getattr(cause, "status", 0) or 0)
        cause = getattr(cause, "cause", None)
    return {"error": str(error), "kind": type(inner).__name__, "status": status}


def _confine(folder: Path, settings: dict[str, Any]) -> None:
    """Hold this process to its folder, to reading what Python and TLS need, and to the network."""
    reading = [Path(settings["cookies_file"])] if settings["cookies_file"] else []
    reading += [Path.home()] if settings["cookies_from_browser"] else []
    found = [shutil.which(name) for name in sorted(_ALLOWED_PROGRAMS)]
    confine_to_folder(
        folder,
        memory_bytes=_CHILD_MEMORY_BYTES,
        cpu_s=settings["item_timeout_s"],
        written_bytes=settings["max_file_bytes"] + (64 << 20),
        reading=reading,
        programs=[os.path.realpath(program) for program in found if program],
    )


def _child_fetch(request: dict[str, Any]) -> dict[str, Any]:
    """Fetch in this process; only ever run in the child."""
    import yt_dlp

    settings = request["settings"]
    _confine(Path.cwd(), settings)
    refused = _guard(allow_private=settings["allow_private_hosts"])
    try:
        with yt_dlp.YoutubeDL(_options(settings)) as downloader:
            info = downloader.extract_info(request["url"], download=False, process=True)
            if info.get("_type") in {"playlist", "multi_video"}:
                found = (entry.get("url") or entry.get("webpage_url") for entry in info["entries"])
                return {"entries": [url for url in found if url]}
            info = downloader.process_ie_result(info, download=True)
    except (yt_dlp.utils.YoutubeDLError, RefusedError) as error:
        if refused:
            return {"error": refused[0], "kind": "RefusedError", "status": 0}
        return describe_failure(error)
    uploader = info.get("uploader_id") or info.get("channel_id") or info.get("uploader")
    return {
        "facts": {
            "downloader": f"yt-dlp {yt_dlp.version.__version__}",
            "format_id": info.get("format_id"),
            "uploader_hash": content_id("uploader", info.get("extractor_key"), uploader)
            if uploader
            else None,
            "upload_date": info.get("upload_date"),
            "licence_claimed": info.get("license"),
        }
    }


def _child_classify(urls: Sequence[str]) -> dict[str, Any]:
    """Ask yt-dlp's extractors whose address each one is; no network."""
    from yt_dlp.extractor import gen_extractor_classes

    classes = [kind for kind in gen_extractor_classes() if kind.ie_key() != "Generic"]
    sites = []
    for url in urls:
        owner = next((kind for kind in classes if kind.suitable(url)), None)
        if owner is None:
            sites.append(("generic", None))
            continue
        video_id = None
        with suppress(Exception):
            video_id = owner.get_temp_id(url)
        sites.append((owner.ie_key().lower(), video_id))
    return {"sites": sites}


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    if request["task"] == "classify":
        return _child_classify(request["urls"])
    return _child_fetch(request)


if __name__ == "__main__":
    answer_request(_answer)
