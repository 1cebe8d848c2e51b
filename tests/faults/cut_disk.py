"""A small file system that can lose its power, and a cut at any one call of some file work.

Needs root and a loop device. The cut is ext4's own "shut down without flushing the journal": what
was not synced by then is gone when the file system is mounted again, as after a power cut.
"""

import contextlib
import fcntl
import io
import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_GOING_DOWN, _WITHOUT_LOG_FLUSH = 0x8004587D, 2
_CALLS = (
    (io, "open"), (os, "open"), (os, "fsync"), (os, "link"), (os, "replace"), (os, "unlink"),
    (os, "mkdir"),
)  # fmt: skip
"""What file work consists of; writing happens between an open and a sync."""


class NoDiskError(Exception):
    """This machine gives us no such file system; the message says why."""


class PowerCutError(BaseException):
    """The power went; no handler may take this for an error that it knows."""


class Disk:
    """A small file system that can lose its power."""

    def __init__(self, folder: Path) -> None:
        """Make and mount the file system.

        Args:
            folder: An existing folder for its image and its mount point.

        Raises:
            NoDiskError: It needs root and a loop device.
        """
        if os.getuid() != 0 or shutil.which("mkfs.ext4") is None:
            raise NoDiskError("needs root and mkfs.ext4")
        self.image, self.mount_point = folder / "disk.img", folder / "disk"
        self.mount_point.mkdir()
        with self.image.open("wb") as file:
            file.truncate(32 * 2**20)
        try:
            _run("mkfs.ext4", "-q", "-F", str(self.image))
            self.mount()
        except (subprocess.CalledProcessError, OSError) as error:
            raise NoDiskError(f"no loop device can be mounted here: {error}") from error

    def mount(self) -> None:
        """Mount it, as a machine does that starts again."""
        _run("mount", "-o", "loop", str(self.image), str(self.mount_point))

    def unmount(self) -> None:
        """Take it away."""
        _run("umount", str(self.mount_point))

    def cut_power(self) -> None:
        """Lose everything that was not synced; each later call fails until it is mounted again."""
        descriptor = os.open(self.mount_point, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _GOING_DOWN, struct.pack("I", _WITHOUT_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def start_again(self) -> None:
        """Mount it again after a cut."""
        self.unmount()
        self.mount()


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Disk]:
    """Yield a mounted disk and take it away in the end; NoDiskError where there can be none."""
    disk = Disk(folder)
    try:
        yield disk
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            disk.unmount()


def cut_before_call(disk: Disk, number: int, work: Callable[[], None]) -> str | None:
    """Do some file work and cut the power just before one of its calls.

    Args:
        disk: Where all the work happens.
        number: Of the call, from 1 on.
        work: What to do; ends with PowerCutError inside, whatever it makes of it.

    Returns:
        The call that did not happen any more; None when the work has fewer calls and was done.
    """
    state: dict[str, Any] = {"count": 0, "cut": None}

    def hook(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if state["cut"] is None:
                state["count"] += 1
                if state["count"] == number:
                    state["cut"] = name
                    with _hooks_off(originals):
                        disk.cut_power()
                    raise PowerCutError
            return real(*arguments, **options)

        return call

    originals = [(module, name, getattr(module, name)) for module, name in _CALLS]
    try:
        for module, name, real in originals:
            setattr(module, name, hook(name, real))
        work()
    except BaseException:
        # Whatever the work makes of the cut, its process would be gone.
        if state["cut"] is None:
            raise
    finally:
        for module, name, real in originals:
            setattr(module, name, real)
    return state["cut"]


@contextlib.contextmanager
def _hooks_off(originals: list[tuple[Any, str, Any]]) -> Iterator[None]:
    hooked = [(module, name, getattr(module, name)) for module, name, _ in originals]
    try:
        for module, name, real in originals:
            setattr(module, name, real)
        yield
    finally:
        for module, name, hook in hooked:
            setattr(module, name, hook)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - fixed commands
