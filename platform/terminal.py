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
    try:
        kept = os.dup(_STDIN_FD)
    except OSError:  # this process was started without one
        yield
        return
    nowhere = os.open(os.devnull, os.O_RDONLY)
    try:
        os.dup2(nowhere, _STDIN_FD)
        yield
    finally:
        os.dup2(kept, _STDIN_FD)
        os.close(nowhere)
        os.close(kept)


@contextmanager
def silent_stderr() -> Iterator[None]:
    """Keep what native code writes on standard error meanwhile off the terminal."""
    sys.stderr.flush()
    kept = os.dup(_STDERR_FD)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, _STDERR_FD)
        yield
    finally:
        os.dup2(kept, _STDERR_FD)
        os.close(nowhere)
        os.close(kept)
