"""Keep the user's terminal to the command itself: its children and workers cannot touch it.

A process in the background that reads the terminal, or changes its settings as ffmpeg does, is
stopped by the kernel (SIGTTIN, SIGTTOU) and whoever waits for it waits for ever. Ray starts its
workers in the background of the terminal that started the session.
"""

import fcntl
import os
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_STDIN_FD, _STDERR_FD = 0, 2


def leave_terminal() -> None:
    """Give up this process' terminal for good, also for all that it starts.

    Standard input becomes empty, and /dev/tty names nothing any more.
    """
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, _STDIN_FD)
    os.close(nowhere)
    if os.getsid(0) == os.getpid():
        return  # whoever leads a session would take the terminal from everybody in it
    with suppress(OSError):  # there is no terminal
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(terminal, termios.TIOCNOTTY)
        finally:
            os.close(terminal)


@contextmanager
def empty_stdin() -> Iterator[None]:
    """Let processes that are started meanwhile inherit an empty standard input."""
    with _pointed_at_nothing(_STDIN_FD, os.O_RDONLY):
        yield


@contextmanager
def silent_stderr() -> Iterator[None]:
    """Keep what native code writes on standard error meanwhile off the terminal."""
    sys.stderr.flush()
    with _pointed_at_nothing(_STDERR_FD, os.O_WRONLY):
        yield


@contextmanager
def _pointed_at_nothing(descriptor: int, flags: int) -> Iterator[None]:
    try:
        kept = os.dup(descriptor)
    except OSError:  # this process was started without one
        yield
        return
    nowhere = os.open(os.devnull, flags)
    try:
        os.dup2(nowhere, descriptor)
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(nowhere)
        os.close(kept)
