"""Decode untrusted videos and pictures in a bounded child process.

A server process forks one child for each file, with limits on memory, processor time, open files
and written bytes, without network, other files, new processes or sockets (see
platform/sandbox/confinement); the child sends pixels through a pipe. Whatever happens to it
(crash, hang, kill for memory), the parent gets pixels or a MediaError.
"""

import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from av.error import FFmpegError
from jaxtyping import UInt8

from animaray.platform.errors import DecoderDiedError, MediaError
from animaray.platform.media.decoder_child import (
    FRAME,
    HEADER,
    MAX_MESSAGE_BYTES,
    SIZE,
    smaller,
)
from animaray.platform.media.frame_choice import FrameSelection
from animaray.platform.media.picture import MAX_PICTURE_PIXELS
from animaray.platform.media.sound import SoundReport, join_sound
from animaray.platform.media.video_decode import (
    DecodedVideo,
    FrameSource,
    StreamEnd,
    TimedFrame,
    TimedPlanes,
    collect_frames,
)
from animaray.platform.media.video_file import DecodeLimits, VideoInfo
from animaray.platform.sandbox.fork_server import ChildEnd, ForkServer

_DECODERS = ForkServer("animaray.platform.media.decoder_child")
PICTURE_LIMITS = DecodeLimits(max_frame_pixels=MAX_PICTURE_PIXELS, memory_bytes=8 * 1024**3)
"""The largest pictures are held several times while they are turned and brought to sRGB."""
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


def read_picture_in_child(
    path: Path | str, limits: DecodeLimits = PICTURE_LIMITS, *, name: str | None = None
) -> UInt8[np.ndarray, "height width 3"]:
    """Read an untrusted picture in a bounded child process, as `read_picture` does.

    Errors are those of `read_picture`; too_large also where it passes another limit, and broken
    where it breaks the decoder.

    Args:
        limits: What it may cost.
        name: What messages call it; None: its file name.
    """

    def read() -> UInt8[np.ndarray, "height width 3"]:
        with _ChildAnswers(path, limits, {"picture": name}) as answers:
            return answers.read_picture()

    return try_decoding(read)


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
        limits: What it may cost.
        start_s: Time stamp of the first picture, seconds: sound before it is left out.
        duration_s: How much sound is wanted.

    Returns:
        A small file with the sound alone (see platform/media/sound); None where there is no
        sound, or none that an mp4 can hold.
    """

    def copy() -> bytes | None:
        wish = {"sound": {"start_s": start_s, "duration_s": duration_s}}
        with _ChildAnswers(path, limits, wish) as answers:
            return answers.read_bytes() or None

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
        limits: What it may cost; None takes the defaults.
        wish: What the child is asked to do with the file.
    """

    def __init__(self, path: Path | str, limits: DecodeLimits | None, wish: dict[str, Any]) -> None:
        self._name = wish.get("picture") or Path(path).name
        self._kind = "picture" if "picture" in wish else "video"
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

    def __enter__(self) -> "_ChildAnswers":
        """Return the answers."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the child."""
        self.close()

    def close(self) -> ChildEnd:
        """End the child, whatever it is doing, and say how it ended."""
        return self._child.close()

    def read_picture(self) -> UInt8[np.ndarray, "height width 3"]:
        """Return the pixels of one picture."""
        kind, length = self._read_header()
        if kind != b"P":
            raise self._failure(kind, length)
        height, width = SIZE.unpack(self._read(SIZE.size))
        if length != SIZE.size + height * width * 3:
            raise self._nonsense()
        pixels = np.frombuffer(self._read(length - SIZE.size), dtype=np.uint8)
        return pixels.reshape(height, width, 3)

    def read_bytes(self) -> bytes:
        """Return bytes that the child sends in pieces."""
        data = bytearray()
        while True:
            kind, length = self._read_header()
            if kind == b"D":
                return bytes(data)
            if kind != b"B" or len(data) + length > self._limits.max_returned_bytes:
                raise self._failure(kind, length)
            data += self._read(length)

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
        kind, length = HEADER.unpack(self._read(HEADER.size))
        return kind, length

    def _read(self, length: int) -> bytearray:
        """Read exactly so many bytes from the child.

        Raises:
            DecoderDiedError: The child died, or waits too long.
            MediaError: It announces too much.
        """
        if length > self._limits.max_frame_pixels * 3 + MAX_MESSAGE_BYTES:
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
                fix=smaller(self._kind),
                reason="too_large",
            )

    def _death(self) -> MediaError:
        """Say why the child ended without an answer."""
        code = self._child.wait().exit_code
        if code == -signal.SIGXCPU:
            return MediaError(
                f"{self._name} needs more than {self._limits.cpu_s:g} s of processor time.",
                fix=smaller(self._kind),
                reason="too_large",
            )
        return DecoderDiedError(
            f"{self._name} ended its decoder (exit code {code}): the file is damaged or needs more"
            " memory or time than allowed.",
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
        return MediaError(f"{self._name} made its decoder break the protocol.", reason="broken")


class ChildFrameStream(_ChildAnswers, FrameSource):
    """Yield frames that a bounded child process decodes.

    `info` is valid at once, `end` after the last frame. Errors are those of `decode_in_child`;
    DecoderDiedError comes at the first death (see `try_decoding`).
    """

    def __init__(
        self,
        path: Path | str,
        limits: DecodeLimits | None = None,
        *selections: FrameSelection,
    ) -> None:
        """Start the child.

        Args:
            limits: What the file may cost; None for the defaults.
            selections: Which frames are wanted; every frame without one. Several come out in one
                pass; all start with the first one or later.
        """
        self._selections = selections or (FrameSelection(),)
        wanted = [asdict(each) for each in self._selections]
        super().__init__(path, limits, {"selections": wanted})
        try:
            self.info = self._read_info()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "ChildFrameStream":
        """Return the stream."""
        return self

    def __iter__(self) -> Iterator[TimedFrame]:
        """Yield the frames; may be called once, and not with `together`."""
        for _, frame in self.together():
            yield frame

    def together(self) -> Iterator[tuple[int, TimedFrame]]:
        """Yield which selection wants a frame, and the frame, in time order; none as planes."""
        for place, picture in self.pictures():
            if isinstance(picture, TimedFrame):
                yield place, picture

    def pictures(self) -> Iterator[tuple[int, TimedFrame | TimedPlanes]]:
        """Yield which selection wants a frame, and the frame, as planes where it asked for them."""
        budget = self._limits.max_returned_bytes + MAX_MESSAGE_BYTES
        while True:
            kind, length = self._read_header()
            if kind == b"D":
                self.end = self._read_end(length)
                return
            if kind not in {b"F", b"Y"} or length > budget:
                raise self._failure(kind, length)
            budget -= length
            place, pts_s, rows, width = FRAME.unpack(self._read(FRAME.size))
            depth = 3 if kind == b"F" else 1
            if place >= len(self._selections) or length != FRAME.size + rows * width * depth:
                raise self._failure(b"?", 0)
            pixels = np.frombuffer(self._read(length - FRAME.size), dtype=np.uint8)
            if kind == b"F":
                yield place, TimedFrame(pts_s, pixels.reshape(rows, width, 3))
                continue
            if not self._selections[place].planes or rows % 3 or width % 2:
                raise self._failure(b"?", 0)
            yield place, TimedPlanes(pts_s, pixels.reshape(rows, width))

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
                num_in_span=int(message["num_in_span"]),
                span_s=float(message["span_s"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise self._nonsense() from error
