"""Room and right to write: looked at before the work, and one error when either ends during it.

What the system reports comes in many forms: OSError with an error number, other libraries' errors
with only its text, any of them as the cause of an engine's error. Here they become `DiskError`.
"""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from animaray.platform.errors import AnimarayError, DiskError, UsageError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_READ_ONLY = {errno.EROFS}
_FORBIDDEN = {errno.EACCES, errno.EPERM}
_FULL_TEXTS = (
    os.strerror(errno.ENOSPC),
    os.strerror(errno.EDQUOT),
    "database or disk is full",
)
_READ_ONLY_TEXTS = (os.strerror(errno.EROFS), "attempt to write a readonly database")
_ROOM_FIX = (
    "Free some space there (`animaray cache list` shows what can be fetched again) or name another"
    " folder; the same command goes on."
)
_REMOTE = re.compile(r"(s3a?|gs|az|abfss?):/")
_RIGHT_FIX = "Make it writable or name another folder; the same command goes on."


def free_bytes(folder: Path) -> int:
    """Return how much more the disk of a folder, which need not exist yet, can hold."""
    return shutil.disk_usage(_existing(folder)).free


def check_folder(folder: Path, what: str) -> None:
    """Refuse a folder in which nothing can be written; it need not exist yet.

    Args:
        folder: Where something is going to be written.
        what: What needs it, for the message: "The result".

    Raises:
        DiskError: The folder, or the one that it would be made in, cannot be written.
        UsageError: It is an address in an object store.
    """
    refuse_address(folder, what)
    place = _existing(folder)
    if not place.is_dir():
        raise DiskError(
            f"{what} needs the folder {folder}, but {place} is a file.",
            fix="Name another folder.",
            reason="no_folder",
        )
    if not os.access(place, os.W_OK | os.X_OK):
        is_read_only = bool(os.statvfs(place).f_flag & os.ST_RDONLY)
        why = os.strerror(errno.EROFS if is_read_only else errno.EACCES)
        raise DiskError(
            f"{what} cannot be written: {place} is not writable ({why}). Nothing was started.",
            fix=_RIGHT_FIX,
            reason="not_writable",
        )


def refuse_address(folder: Path, what: str) -> None:
    """Refuse an address in an object store where only a local folder will do.

    Args:
        folder: What was named; as a path, an address has lost one of its slashes.
        what: What needs it, for the message: "The result".

    Raises:
        UsageError: It is an address.
    """
    if _REMOTE.match(str(folder)):
        scheme, _, rest = str(folder).partition(":")
        raise UsageError(
            f"{what} needs a local folder; {scheme}://{rest.lstrip('/')} lies in an object store.",
            fix="Name a local folder; only datasets may lie in an object store. Copy results "
            "there yourself.",
            reason="not_local",
        )


def check_room(folder: Path, needed_bytes: int, what: str) -> None:
    """Refuse work whose results the disk cannot hold.

    Args:
        folder: Where they are going to be written; it need not exist yet.
        needed_bytes: Estimate of their size.
        what: What needs it, for the message: "The result".

    Raises:
        DiskError: The folder cannot be written, or less than that is free.
    """
    check_folder(folder, what)
    free = free_bytes(folder)
    if needed_bytes > free:
        raise DiskError(
            f"{what} needs about {needed_bytes:,} bytes in {folder}, whose disk has {free:,} free.",
            fix=_ROOM_FIX,
            reason="disk_full",
        )


def disk_error(error: BaseException, folder: Path | None = None) -> DiskError | None:
    """Return what an error says about a disk, or None when it speaks of something else.

    Args:
        error: Any error; its causes are looked at, too.
        folder: What was being written, where the error does not name it.
    """
    for cause in _causes(error):
        if isinstance(cause, DiskError):
            return cause
        number, place = getattr(cause, "errno", None), _place(cause, folder)
        text = "" if isinstance(cause, AnimarayError) else str(cause)
        if number in _FULL or any(known in text for known in _FULL_TEXTS):
            return _full(place)
        if number in _READ_ONLY or any(known in text for known in _READ_ONLY_TEXTS):
            return _not_writable(place, os.strerror(errno.EROFS))
        # Without a file's name it may speak of a network or a device.
        if number in _FORBIDDEN and getattr(cause, "filename", None):
            return _not_writable(place, os.strerror(errno.EACCES))
    return None


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn what the system says about a disk into DiskError; any other error stays as it is.

    Args:
        folder: What is written in the block.

    Raises:
        Exception: DiskError where the disk is full or may not be written; else as it came.
    """
    try:
        yield
    except Exception as error:
        found = disk_error(error, folder)
        if found is None:
            raise
        raise found from error


def _existing(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that is there."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all that it names as its cause, each once."""
    waiting, seen = [error], set[int]()
    while waiting:
        cause = waiting.pop(0)
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        # Ray keeps what a worker raised in `cause`, SQLAlchemy what the driver raised in `orig`.
        named = (cause.__cause__, cause.__context__, *(getattr(cause, n, None) for n in _NAMES))
        grouped = cause.exceptions if isinstance(cause, BaseExceptionGroup) else ()
        waiting += [each for each in (*named, *grouped) if isinstance(each, BaseException)]


_NAMES = ("cause", "orig")


def _place(error: BaseException, folder: Path | None) -> Path | None:
    name = getattr(error, "filename", None)
    return Path(name) if isinstance(name, str) and name else folder


def _full(place: Path | None) -> DiskError:
    where = "a disk" if place is None else f"the disk of {place}"
    free = "" if place is None else f" ({free_bytes(place):,} bytes free)"
    return DiskError(
        f"There is no room left on {where}{free}; what was complete stays.",
        fix=_ROOM_FIX,
        reason="disk_full",
    )


def _not_writable(place: Path | None, why: str) -> DiskError:
    where = "A folder" if place is None else str(place)
    return DiskError(f"{where} cannot be used: {why}.", fix=_RIGHT_FIX, reason="not_writable")
