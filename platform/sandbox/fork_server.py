"""Start small child processes fast: one server imports everything once and forks for each request.

A fresh Python process with numpy and PyAV costs half a second; a fork costs milliseconds and is as
much a process of its own: it has its own limits, and may crash, hang or be killed without harm to
anybody. The server ends when its client process ends, however that happens.
"""

import array
import fcntl
import gc
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

from animaray.platform.errors import MachineError
from animaray.platform.json_text import json_text
from animaray.platform.sandbox.bounded_child import child_environment
from animaray.platform.sandbox.confinement import die_with_parent, leave_network

Handler = Callable[[dict[str, Any], IO[bytes]], None]
"""Serve one request in the forked child; answers go to the file."""

_MAX_REQUEST_BYTES = 1 << 16
_START_S = 120.0
_END_S = 60.0
_ATTEMPTS = 2
_PIPE_BYTES = 1 << 20
"""A frame has megabytes: a pipe of the usual 64 KiB would wake both sides dozens of times."""


@dataclass(frozen=True, slots=True)
class ChildEnd:
    """How a child ended."""

    exit_code: int
    """As in subprocess: negative for a signal."""
    max_memory_bytes: int
    """Largest resident memory that it had."""


class ForkedChild:
    """One child as its client sees it: what it writes, and how to end it."""

    def __init__(
        self, output: int, status: int, pidfd: int, on_end: Callable[[ChildEnd], None]
    ) -> None:
        self.output = output
        self._on_end = on_end
        self._status = status
        self._pidfd = pidfd
        self._end: ChildEnd | None = None

    def kill(self) -> None:
        """End the child, whatever it is doing."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def wait(self) -> ChildEnd:
        """Wait for the child's end; a server that died takes its children along.

        A server that says nothing for a minute is as good as dead: the next start replaces it.
        """
        if self._end is None:
            data = b""
            ready = select.poll()
            ready.register(self._status, select.POLLIN)
            while ready.poll(_END_S * 1000) and (block := os.read(self._status, 256)):
                data += block
            end = json.loads(data) if data else {"exit_code": -signal.SIGKILL, "max_rss_kb": 0}
            self._end = ChildEnd(end["exit_code"], end["max_rss_kb"] * 1024)
            self._on_end(self._end)
        return self._end

    def close(self) -> ChildEnd:
        """End the child, wait for it and free what belongs to it; may be called again."""
        if self.output >= 0:
            self.kill()
            os.close(self.output)
            self.output = -1
            end = self.wait()
            os.close(self._status)
            os.close(self._pidfd)
            return end
        return self.wait()


class ForkServer:
    """Client of one server process; safe to use from several threads."""

    def __init__(self, module: str) -> None:
        """Take the module whose main program calls `serve_forever`; it starts on first use."""
        self._module = module
        self.peak_memory_bytes = 0
        """Largest resident memory of any child that has ended."""
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        # A process that forks must not share its parent's server.
        os.register_at_fork(after_in_child=self._forget)

    def start(self, request: dict[str, Any]) -> ForkedChild:
        """Fork a child that serves a request.

        Raises:
            MachineError: No server can be started.
        """
        with self._lock:
            for _ in range(_ATTEMPTS):
                try:
                    return self._start(json_text(request).encode())
                except (OSError, IndexError):
                    self._stop()
        raise MachineError(
            f"The server process {self._module} cannot be started or dies at once.",
            fix="Check free memory and the limit of processes (ulimit -u).",
        )

    def stop(self) -> None:
        """End the server and its children."""
        with self._lock:
            self._stop()

    def _start(self, request: bytes) -> ForkedChild:
        control = self._connect()
        output, their_output = os.pipe()
        status, their_status = os.pipe()
        with suppress(OSError):  # no more than a user may have
            fcntl.fcntl(output, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        try:
            socket.send_fds(control, [request], [their_output, their_status])
            _, pidfds, _, _ = socket.recv_fds(control, 16, 1)
            pidfd = pidfds[0]  # none when the server is gone
        except BaseException:
            os.close(output)
            os.close(status)
            raise
        finally:
            os.close(their_output)
            os.close(their_status)
        return ForkedChild(output, status, pidfd, self._note_end)

    def _note_end(self, end: ChildEnd) -> None:
        self.peak_memory_bytes = max(self.peak_memory_bytes, end.max_memory_bytes)

    def _connect(self) -> socket.socket:
        if self._socket is not None and self._process is not None and self._process.poll() is None:
            return self._socket
        self._stop()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-P", "-m", self._module, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=child_environment(),
                cwd="/",
                start_new_session=True,
                pass_fds=[theirs.fileno()],
            )
        ours.settimeout(_START_S)
        self._socket = ours
        return ours

    def _stop(self) -> None:
        if self._socket is not None:
            self._socket.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._socket = self._process = None

    def _forget(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._lock = threading.Lock()
        self._socket = self._process = None


def serve_forever(control_fd: int, handler: Handler) -> None:
    """Fork a child for each request until the client is gone; call this with one thread only."""
    control = socket.socket(fileno=control_fd)
    leave_network()
    gc.collect()
    gc.freeze()
    running: dict[int, tuple[int, int]] = {}  # pidfd -> (pid, status pipe)
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd in running:
                    selector.unregister(key.fd)
                    _report_end(key.fd, *running.pop(key.fd))
                    continue
                started = _serve_one(control, handler)
                if started is None:
                    for pid, _ in running.values():
                        os.kill(pid, signal.SIGKILL)
                    return
                pid, pidfd, status = started
                running[pidfd] = (pid, status)
                selector.register(pidfd, selectors.EVENT_READ)


def _serve_one(control: socket.socket, handler: Handler) -> tuple[int, int, int] | None:
    """Fork for the next request; None when the client is gone."""
    try:
        request, descriptors, _, _ = socket.recv_fds(control, _MAX_REQUEST_BYTES, 2)
    except OSError:
        return None
    if not request or len(descriptors) != 2:
        return None
    output, status = descriptors
    pid = os.fork()
    if pid == 0:
        _be_child(request, output, handler)
    os.close(output)
    pidfd = os.pidfd_open(pid)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [pidfd]))]
    try:
        control.sendmsg([b"ok"], rights)
    except OSError:
        os.kill(pid, signal.SIGKILL)
        return None
    return pid, pidfd, status


def _be_child(request: bytes, output: int, handler: Handler) -> None:
    """Serve one request and end; never returns."""
    code = 1
    try:
        die_with_parent(signal.SIGKILL)
        os.dup2(output, 1)
        os.closerange(3, 4096)
        with open(1, "wb", closefd=False) as file:
            handler(json.loads(request), file)
        code = 0
    except BaseException:  # noqa: BLE001, S110 - the exit code tells
        pass
    finally:
        os._exit(code)


def _report_end(pidfd: int, pid: int, status: int) -> None:
    _, wait_status, usage = os.wait4(pid, 0)
    code = os.waitstatus_to_exitcode(wait_status)
    data = json_text({"exit_code": code, "max_rss_kb": usage.ru_maxrss}).encode()
    with suppress(OSError):
        os.write(status, data)
    os.close(status)
    os.close(pidfd)
