"""Run a command as its user does: on a terminal of its own, in the foreground."""

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

_TAKE_TERMINAL = """
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever started the tests may ignore Ctrl-C
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # the terminal of this new session
os.execvp(sys.argv[1], sys.argv[1:])
"""


@dataclass(slots=True)
class TerminalRun:
    """What a command did on its terminal."""

    exit_code: int | None = None
    """None: it had to be killed because its time was over."""
    text: str = ""
    """All that it wrote."""
    children: dict[psutil.Process, tuple[str, str | None]] = field(default_factory=dict)
    """Every process that it started: name and terminal when last seen."""

    def left_over(self, patience_s: float = 10.0) -> list[psutil.Process]:
        """Return processes that the command started and left running.

        Args:
            patience_s: Time for those that are about to end because their parent did.
        """
        return psutil.wait_procs(self.children, timeout=patience_s)[1]


def run_on_terminal(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    timeout_s: float,
    interrupt_when: Callable[[str], bool] | None = None,
) -> TerminalRun:
    """Run a command on a new pseudo-terminal until it ends.

    Args:
        command: Program and arguments.
        environment: Environment variables.
        timeout_s: Kill everything after so many seconds.
        interrupt_when: Given all that was written so far; where it first returns True, Ctrl-C is
            typed.

    Returns:
        What it did.
    """
    ours, theirs = pty.openpty()
    process = subprocess.Popen(  # noqa: S603 - the test's own command
        [sys.executable, "-c", _TAKE_TERMINAL, *command],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=dict(environment),
        start_new_session=True,
    )
    os.close(theirs)
    run = TerminalRun()
    try:
        _watch(process, ours, run, time.monotonic() + timeout_s, interrupt_when)
        run.exit_code = process.poll()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
            for child in run.left_over(0.0):
                with suppress(psutil.NoSuchProcess):
                    child.kill()
        os.close(ours)
    return run


def _watch(
    process: subprocess.Popen[bytes],
    terminal: int,
    run: TerminalRun,
    deadline_s: float,
    interrupt_when: Callable[[str], bool] | None,
) -> None:
    """Read what is written and note the children until the command or its time ends."""
    me = psutil.Process(process.pid)
    while process.poll() is None and time.monotonic() < deadline_s:
        with suppress(psutil.NoSuchProcess):
            for child in me.children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    run.children[child] = " ".join(child.cmdline()), child.terminal()
        _read(terminal, run, 0.2)
        if interrupt_when is not None and interrupt_when(run.text):
            interrupt_when = None
            os.write(terminal, b"\x03")
    _read(terminal, run, 0.0)


def _read(terminal: int, run: TerminalRun, wait_s: float) -> None:
    """Add what the terminal has, waiting a moment for it."""
    while select.select([terminal], [], [], wait_s)[0]:
        try:
            block = os.read(terminal, 1 << 16)
        except OSError:  # the last process that had it open is gone
            return
        run.text += block.decode(errors="replace")
        wait_s = 0.0
