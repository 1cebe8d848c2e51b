"""Decode untrusted video in a bounded child process.

A server process forks one child for each file, with limits on memory, processor time, open files
and written bytes, without network, other files, new processes or sockets (see
platform/sandbox/confinement); the child sends frames through a pipe. Whatever happens to it
(crash, hang, kill for memory), the parent gets frames or a MediaError.
"""

import importlib
import json
import os
import pkgutil
import select
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar

import av
import numpy as np
from av.error import FFmpegError

from animaray.platform.errors import AnimarayError, DecoderDiedError, MediaError
from animaray.platform.json_text import json_text
from animaray.platform.media.frame_choice import FrameSelection
from animaray.platform.media.sound import SoundReport, copy_sound, join_sound
from animaray.platform.media.video_decode import (
    DecodedVideo,
    FrameSource,
    FrameStream,
    StreamEnd,
    TimedFrame,
    collect_frames,
)
from animaray.platform.media.video_file import DecodeLimits, VideoInfo
from animaray.platform.sandbox.confinement import (
    allow_only_reading,
    forbid_system_calls,
    limit_resources,
)
from animaray.platform.sandbox.fork_server import ChildEnd, ForkServer, serve_forever

_HEADER = struct.Struct(">cI")
_MAX_MESSAGE_BYTES = 1 << 20
_TINY_GIF = bytes.fromhex(
    "47494638376102000200810000ff00000000000000000000002c0000000002000200000806000108041010003b"
)
_DECODERS = ForkServer("animaray.platform.media.video_child")
MAX_DECODER_TRIES = 3
"""A file whose decoder died or hung so often is given up: it is the file's fault."""

T = TypeVar("T")


def try_decoding(decode: Callable[[], T]) -> T:
    """Decode again when the decoder died or hung: it may have been killed from outside.

    Args:
        decode: Starts from nothing at every call.

    Raises:
        DecoderDiedError: It died at each of MAX_DECODER_TRIES tries.
    """
    for _ in range(MAX_DECODER_TRIES - 1):
        with suppress(DecoderDiedError):
            return decode()
    return decode()


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
    when it passes a limit, or broken when it breaks the decoder at several tries.
    """
    selection = FrameSelection(
        start_s=start_s, end_s=end_s, fps=fps, short_side_px=short_side_px, max_frames=max_frames
    )

    def decode() -> DecodedVideo:
        with ChildFrameStream(path, limits, selection) as frames:
            return collect_frames(frames, frames.info)

    return try_decoding(decode)


def probe_in_child(path: Path | str, limits: DecodeLimits | None = None) -> VideoInfo:
    """Probe an untrusted file in a bounded child process; errors as in `probe_video`."""

    def probe() -> VideoInfo:
        with ChildFrameStream(path, limits, FrameSelection(max_frames=0)) as frames:
            return frames.info

    return try_decoding(probe)


def copy_sound_in_child(
    path: Path | str,
    limits: DecodeLimits | None = None,
    *,
    start_s: float = 0.0,
    duration_s: float,
) -> bytes | None:
    """Take the sound out of an untrusted file, unchanged, in a bounded child process.

    Errors are those of `probe_in_child`.

    Args:
        path: Local file.
        limits: What it may cost.
        start_s: Time stamp of the first picture, seconds: sound before it is left out.
        duration_s: How much sound is wanted.

    Returns:
        A small file with the sound alone (see platform/media/sound); None where there is no
        sound, or none that an mp4 can hold.
    """

    def copy() -> bytes | None:
        wish = {"sound": {"start_s": start_s, "duration_s": duration_s}}
        with _ChildBytes(path, limits, wish) as answers:
            return answers.read() or None

    return try_decoding(copy)


def add_sound_in_child(
    silent: Path,
    source: Path,
    out: Path,
    *,
    info: VideoInfo,
    duration_s: float,
    limits: DecodeLimits | None = None,
) -> SoundReport:
    """Write a video of ours again with the sound of an untrusted one.

    The pictures are finished by then: sound that cannot be read is left out with a warning.

    Args:
        silent: An mp4 of our own.
        source: The untrusted video.
        out: The mp4 to write; only complete where the report says that sound is kept.
        info: What `probe_in_child` says of the source.
        duration_s: How much sound is wanted.
        limits: What the source may cost.

    Raises:
        OSError: The disk is full.
    """
    if not info.has_audio:
        return SoundReport()
    try:
        sound = copy_sound_in_child(source, limits, start_s=info.start_s, duration_s=duration_s)
        if sound is None:
            return SoundReport(
                warning="The driving video's sound is of a kind that an mp4 cannot hold, or ends"
                " before its pictures begin; left out."
            )
        join_sound(silent, sound, out)
    except OSError:  # of the disk; some of FFmpeg's errors are of this kind, too
        raise
    except (MediaError, FFmpegError) as error:
        reason = error.message if isinstance(error, MediaError) else str(error)
        return SoundReport(warning=f"The driving video's sound was left out: {reason}")
    return SoundReport(is_kept=True)


def decoder_peak_memory_bytes() -> int:
    """Return the largest resident memory of any decoder that this process has had."""
    return _DECODERS.peak_memory_bytes


class _ChildAnswers:
    """One request to a bounded child process, and its answers, message by message.

    Args:
        path: The untrusted file.
        limits: What it may cost; None takes the defaults.
        wish: What the child is asked to do with the file.
    """

    def __init__(self, path: Path | str, limits: DecodeLimits | None, wish: dict[str, Any]) -> None:
        self._name = Path(path).name
        self._limits = limits or DecodeLimits()
        request = {
            "path": str(Path(path).absolute()),  # the child runs elsewhere
            "limits": asdict(self._limits),
            **wish,
        }
        self._child = _DECODERS.start(request)
        self._output = self._child.output
        self._poll = select.poll()
        self._poll.register(self._output, select.POLLIN)
        self._waited_s = 0.0

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the child."""
        self.close()

    def close(self) -> ChildEnd:
        """End the child, whatever it is doing, and say how it ended."""
        return self._child.close()

    def _read_json(self, length: int) -> dict[str, Any]:
        """Read one message; a decoder that was taken over may send anything."""
        try:
            message = json.loads(self._read(length))
        except ValueError as error:
            raise self._nonsense() from error
        if not isinstance(message, dict):
            raise self._nonsense()
        return message

    def _read_header(self) -> tuple[bytes, int]:
        kind, length = _HEADER.unpack(self._read(_HEADER.size))
        return kind, length

    def _read(self, length: int) -> bytearray:
        """Read exactly so many bytes from the child.

        Raises:
            DecoderDiedError: The child died, or waits too long.
            MediaError: It announces too much.
        """
        if length > self._limits.max_frame_pixels * 3 + _MAX_MESSAGE_BYTES:
            raise self._failure(b"?", 0)
        data = bytearray(length)
        view = memoryview(data)
        while view:
            self._wait()
            count = os.readv(self._output, [view])
            if count == 0:
                raise self._death()
            view = view[count:]
        return data

    def _wait(self) -> None:
        """Wait for the child's next bytes.

        Raises:
            DecoderDiedError: All waiting together passes the limit.
        """
        started = time.monotonic()
        left_s = max(0.0, self._limits.timeout_s - self._waited_s)
        is_ready = self._poll.poll(left_s * 1000)
        self._waited_s += time.monotonic() - started
        if not is_ready:
            self._child.kill()
            raise DecoderDiedError(
                f"{self._name} took longer than {self._limits.timeout_s:g} s to decode.",
                fix="Give a shorter or smaller video.",
                reason="too_large",
            )

    def _death(self) -> MediaError:
        """Say why the child ended without an answer."""
        code = self._child.wait().exit_code
        if code == -signal.SIGXCPU:
            return MediaError(
                f"{self._name} needs more than {self._limits.cpu_s:g} s of processor time.",
                fix="Give a shorter or smaller video.",
                reason="too_large",
            )
        return DecoderDiedError(
            f"The decoder of {self._name} died (exit code {code}): the file is damaged or needs "
            "more memory or time than allowed.",
            reason="broken",
        )

    def _failure(self, kind: bytes, length: int) -> MediaError:
        if kind != b"E":
            return self._nonsense()
        failure = self._read_json(length)
        return MediaError(
            str(failure.get("message")), fix=failure.get("fix"), reason=failure.get("reason")
        )

    def _nonsense(self) -> MediaError:
        return MediaError(f"The decoder of {self._name} broke the protocol.", reason="broken")


class ChildFrameStream(_ChildAnswers, FrameSource):
    """Yield frames that a bounded child process decodes.

    `info` is valid at once, `end` after the last frame. Errors are those of `decode_in_child`;
    DecoderDiedError comes at the first death (see `try_decoding`).
    """

    def __init__(
        self,
        path: Path | str,
        limits: DecodeLimits | None = None,
        selection: FrameSelection | None = None,
    ) -> None:
        super().__init__(path, limits, {"selection": asdict(selection or FrameSelection())})
        try:
            self.info = self._read_info()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "ChildFrameStream":
        """Return the stream."""
        return self

    def __iter__(self) -> Iterator[TimedFrame]:
        """Yield the frames; may be called once."""
        budget = self._limits.max_returned_bytes + _MAX_MESSAGE_BYTES
        while True:
            kind, length = self._read_header()
            if kind == b"D":
                self.end = self._read_end(length)
                return
            if kind != b"F" or length > budget:
                raise self._failure(kind, length)
            budget -= length
            pts_s, height, width = struct.unpack(">dII", self._read(16))
            if length != 16 + height * width * 3:
                raise self._failure(b"?", 0)
            frame = np.frombuffer(self._read(length - 16), dtype=np.uint8)
            yield TimedFrame(pts_s, frame.reshape(height, width, 3))

    def _read_info(self) -> VideoInfo:
        kind, length = self._read_header()
        if kind != b"I":
            raise self._failure(kind, length)
        try:
            return VideoInfo(**self._read_json(length))
        except TypeError as error:
            raise self._nonsense() from error

    def _read_end(self, length: int) -> StreamEnd:
        message = self._read_json(length)
        try:
            warning, combed = message["warning"], message["combed_share"]
            return StreamEnd(
                warning=None if warning is None else str(warning),
                num_corrupt=int(message["num_corrupt"]),
                breaks_s=tuple(float(time_s) for time_s in message["breaks_s"]),
                has_plain_clock=bool(message["has_plain_clock"]),
                combed_share=None if combed is None else float(combed),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise self._nonsense() from error


class _ChildBytes(_ChildAnswers):
    """Bytes that the child sends in pieces."""

    def __enter__(self) -> "_ChildBytes":
        """Return the answers."""
        return self

    def read(self) -> bytes:
        """Return everything."""
        data = bytearray()
        while True:
            kind, length = self._read_header()
            if kind == b"D":
                return bytes(data)
            if kind != b"B" or len(data) + length > self._limits.max_returned_bytes:
                raise self._failure(kind, length)
            data += self._read(length)


def _send(output: IO[bytes], kind: bytes, data: bytes) -> None:
    output.write(_HEADER.pack(kind, len(data)))
    output.write(data)


def _serve(request: dict[str, Any], output: IO[bytes]) -> None:
    """Decode one file; frames or one failure go to the output."""
    limits = DecodeLimits(**request["limits"])
    limit_resources(memory_bytes=limits.memory_bytes, cpu_s=limits.cpu_s)
    allow_only_reading([Path(request["path"])])
    forbid_system_calls()
    try:
        if "sound" in request:
            _send_sound(request, limits, output)
            return
        selection = FrameSelection(**request["selection"])
        with FrameStream(request["path"], selection, limits, in_child=True) as frames:
            _send(output, b"I", json_text(asdict(frames.info)).encode())
            for pts_s, frame in frames:
                height, width = frame.shape[:2]
                output.write(_HEADER.pack(b"F", 16 + frame.nbytes))
                output.write(struct.pack(">dII", pts_s, height, width))
                output.write(frame.data)
            _send(output, b"D", json_text(asdict(frames.end)).encode())
    except AnimarayError as error:
        failure = {"message": error.message, "fix": error.fix, "reason": error.reason}
        _send(output, b"E", json_text(failure).encode())
    except MemoryError:
        failure = {
            "message": f"{Path(request['path']).name} needs more memory than allowed.",
            "fix": "Give a smaller video.",
            "reason": "too_large",
        }
        _send(output, b"E", json_text(failure).encode())
    except Exception as error:  # noqa: BLE001 - fields of a damaged file may be any nonsense
        message = f"{Path(request['path']).name} is damaged: {type(error).__name__}: {error}"[:300]
        failure = {"message": message, "fix": "Fetch it again.", "reason": "broken"}
        _send(output, b"E", json_text(failure).encode())
    output.flush()


def _send_sound(request: dict[str, Any], limits: DecodeLimits, output: IO[bytes]) -> None:
    """Send the sound of a file in pieces, then an empty message."""
    sound = copy_sound(Path(request["path"]), limits, **request["sound"]) or b""
    for start in range(0, len(sound), _MAX_MESSAGE_BYTES):
        _send(output, b"B", sound[start : start + _MAX_MESSAGE_BYTES])
    _send(output, b"D", b"")
    output.flush()


def _warm_up() -> None:
    """Decode once and fail once, so that a confined child need not import anything."""
    # PyAV imports what a file's streams need (subtitles, data) when it meets them.
    for module in pkgutil.walk_packages(av.__path__, "av."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.gif"
        path.write_bytes(_TINY_GIF)
        with FrameStream(path, FrameSelection(fps=1.0, short_side_px=1)) as frames:
            list(frames)
        for damaged in (_TINY_GIF[:20], b"\0\1\2\3nothing"):
            path.write_bytes(damaged)
            with suppress(AnimarayError), FrameStream(path) as frames:
                list(frames)
        json_text(asdict(DecodeLimits()))


if __name__ == "__main__":
    _warm_up()
    serve_forever(int(sys.argv[1]), _serve)
