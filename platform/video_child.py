"""Decode untrusted video in a bounded child process.

The parent starts one Python process per file with limits on memory, processor time, open files and
written bytes; the child sends frames through a pipe. Whatever happens to the child (crash, hang,
kill for memory), the parent gets frames or a MediaError.
"""

import ctypes
import json
import os
import resource
import select
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from animaray.platform.errors import AnimarayError, MediaError
from animaray.platform.video_decode import (
    DecodedVideo,
    FrameSelection,
    FrameSource,
    FrameStream,
    TimedFrame,
    collect_frames,
)
from animaray.platform.video_file import DecodeLimits, VideoInfo

_HEADER = struct.Struct(">cI")
_MAX_MESSAGE_BYTES = 1 << 20
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWNET, _CLONE_NEWUSER = 0x40000000, 0x10000000


def decode_in_child(  # noqa: PLR0913 - the arguments of decode_video
    path: Path | str,
    limits: DecodeLimits | None = None,
    *,
    start_s: float = 0.0,
    end_s: float | None = None,
    fps: float | None = None,
    short_side_px: int | None = None,
    max_frames: int | None = None,
) -> DecodedVideo:
    """Decode an untrusted file in a bounded child process; arguments as in `decode_video`.

    A file that cannot be used raises MediaError: with the reasons of `probe_video`, too_large
    when it passes a limit, or broken when it breaks the decoder.
    """
    selection = FrameSelection(
        start_s=start_s, end_s=end_s, fps=fps, short_side_px=short_side_px, max_frames=max_frames
    )
    with ChildFrameStream(path, limits, selection) as frames:
        return collect_frames(frames, frames.info)


def probe_in_child(path: Path | str, limits: DecodeLimits | None = None) -> VideoInfo:
    """Probe an untrusted file in a bounded child process; errors as in `probe_video`."""
    with ChildFrameStream(path, limits, FrameSelection(max_frames=0)) as frames:
        return frames.info


class ChildFrameStream(FrameSource):
    """Yield frames that a bounded child process decodes.

    `info` is valid at once, `warning` and `num_corrupt` after the last frame. Errors are those of
    `decode_in_child`.
    """

    def __init__(
        self,
        path: Path | str,
        limits: DecodeLimits | None = None,
        selection: FrameSelection | None = None,
    ) -> None:
        self._name = Path(path).name
        self._limits = limits or DecodeLimits()
        self.num_corrupt = 0
        request = {
            "path": str(Path(path).absolute()),  # the child runs elsewhere
            "limits": asdict(self._limits),
            "selection": asdict(selection or FrameSelection()),
        }
        # The child needs our modules, wherever the parent found them, and nothing else.
        environment = {
            "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "animaray.platform.video_child"]
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
        assert self._process.stdin is not None  # noqa: S101 - opened above
        assert self._process.stdout is not None  # noqa: S101
        self._output = self._process.stdout.fileno()
        self._waited_s = 0.0
        try:
            # A child that is gone already shows when its answer is read.
            with suppress(BrokenPipeError), self._process.stdin as pipe:
                pipe.write(json.dumps(request).encode())
            self.info = VideoInfo(**self._read_json(b"I"))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "ChildFrameStream":
        """Return the stream."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the child."""
        self.close()

    def __iter__(self) -> Iterator[TimedFrame]:
        """Yield the frames; may be called once."""
        budget = self._limits.max_returned_bytes + _MAX_MESSAGE_BYTES
        while True:
            kind, length = self._read_header()
            if kind == b"D":
                end = json.loads(self._read(length))
                self.warning, self.num_corrupt = end["warning"], end["num_corrupt"]
                return
            if kind != b"F" or length > budget:
                raise self._failure(kind, length)
            budget -= length
            pts_s, height, width = struct.unpack(">dII", self._read(16))
            if length != 16 + height * width * 3:
                raise self._failure(b"?", 0)
            frame = np.frombuffer(self._read(length - 16), dtype=np.uint8)
            yield TimedFrame(pts_s, frame.reshape(height, width, 3))

    def close(self) -> None:
        """End the child, whatever it is doing."""
        if self._process.poll() is None:
            self._process.kill()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process.wait()

    def _read_json(self, wanted: bytes) -> dict[str, Any]:
        kind, length = self._read_header()
        if kind != wanted:
            raise self._failure(kind, length)
        return json.loads(self._read(length))

    def _read_header(self) -> tuple[bytes, int]:
        kind, length = _HEADER.unpack(self._read(_HEADER.size))
        return kind, length

    def _read(self, length: int) -> bytearray:
        """Read exactly so many bytes from the child.

        Raises:
            MediaError: The child died, waits too long or announces too much.
        """
        if length > self._limits.max_frame_pixels * 3 + _MAX_MESSAGE_BYTES:
            raise self._failure(b"?", 0)
        data = bytearray(length)
        view = memoryview(data)
        while view:
            self._wait()
            count = os.readv(self._output, [view])
            if count == 0:
                code = self._process.wait()
                raise MediaError(
                    f"The decoder of {self._name} died (exit code {code}): the file is damaged or "
                    "needs more memory or time than allowed.",
                    reason="broken",
                )
            view = view[count:]
        return data

    def _wait(self) -> None:
        """Wait for the child's next bytes.

        Raises:
            MediaError: All waiting together passes the limit.
        """
        started = time.monotonic()
        left_s = max(0.0, self._limits.timeout_s - self._waited_s)
        is_ready, _, _ = select.select([self._output], [], [], left_s)
        self._waited_s += time.monotonic() - started
        if not is_ready:
            self._process.kill()
            raise MediaError(
                f"{self._name} took longer than {self._limits.timeout_s:g} s to decode.",
                fix="Give a shorter or smaller video.",
                reason="too_large",
            )

    def _failure(self, kind: bytes, length: int) -> MediaError:
        if kind != b"E":
            return MediaError(f"The decoder of {self._name} broke the protocol.", reason="broken")
        failure = json.loads(self._read(length))
        return MediaError(failure["message"], fix=failure["fix"], reason=failure["reason"])


def _confine(limits: DecodeLimits) -> None:
    """Take away what decoding does not need; imports are done by now."""
    for kind, value in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_CPU, max(1, round(limits.cpu_s))),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # An own network namespace has no network; where the kernel forbids it, whitelists still hold.
    if libc.unshare(_CLONE_NEWNET) != 0:
        libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)


def _send(output: IO[bytes], kind: bytes, data: bytes) -> None:
    output.write(_HEADER.pack(kind, len(data)))
    output.write(data)


def _main() -> int:
    """Serve one request from standard input; frames go to standard output."""
    request = json.loads(sys.stdin.buffer.read())
    limits = DecodeLimits(**request["limits"])
    output = sys.stdout.buffer
    _confine(limits)
    try:
        selection = FrameSelection(**request["selection"])
        with FrameStream(request["path"], selection, limits) as frames:
            _send(output, b"I", json.dumps(asdict(frames.info)).encode())
            for pts_s, frame in frames:
                height, width = frame.shape[:2]
                output.write(_HEADER.pack(b"F", 16 + frame.nbytes))
                output.write(struct.pack(">dII", pts_s, height, width))
                output.write(frame.data)
            end = {"warning": frames.warning, "num_corrupt": frames.num_corrupt}
            _send(output, b"D", json.dumps(end).encode())
    except AnimarayError as error:
        failure = {"message": error.message, "fix": error.fix, "reason": error.reason}
        _send(output, b"E", json.dumps(failure).encode())
    except MemoryError:
        failure = {
            "message": f"{Path(request['path']).name} needs more memory than allowed.",
            "fix": "Give a smaller video.",
            "reason": "too_large",
        }
        _send(output, b"E", json.dumps(failure).encode())
    output.flush()
    return 0


if __name__ == "__main__":
    sys.exit(_main())
