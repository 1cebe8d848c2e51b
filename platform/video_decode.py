"""Read video files: probe, frames with true time stamps, upright, from damaged files too.

From a path to RGB frames. Only common containers and codecs from local files are opened, every
limit is checked on what is really decoded, and a damaged file gives its good frames plus a
warning. Untrusted files go through animaray.platform.video_child, which runs this in a bounded
process.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.error import FFmpegError
from jaxtyping import Float64, UInt8

from animaray.platform.errors import MediaError

_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpegts,flv"
_CODECS = frozenset({
    "h264", "hevc", "vp8", "vp9", "av1", "libdav1d", "mpeg4", "mpeg2video", "mpeg1video",
    "mjpeg", "gif", "prores",
})  # fmt: skip
_OPEN_OPTIONS = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
_CONTAINER_BOXES = frozenset({
    b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"moof", b"sidx", b"styp", b"uuid",
})  # fmt: skip
_TIME_SLACK_S = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoInfo:
    """What a video file declares, after the first picture was really decoded."""

    width: int
    """Width of the upright picture, pixels."""
    height: int
    """Height of the upright picture, pixels."""
    fps: float
    """Average frame rate that the container declares, frames per second."""
    num_frames_declared: int | None
    """Frame count of the container's index; None where it has none."""
    duration_s: float
    """Length of the picture stream (not of the sound), seconds."""
    codec: str
    """Codec name, as in "h264"."""
    rotation_deg: int
    """Clockwise turn that makes the stored picture upright: 0, 90, 180 or 270; already applied."""
    start_s: float
    """Time stamp of the first picture, seconds."""
    pixel_aspect: float
    """Width of one stored pixel divided by its height; 1.0 is square. Never applied."""
    has_audio: bool
    """True when there is a sound stream."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeLimits:
    """What one file may cost; the defaults fit people's videos and stop decompression bombs."""

    max_file_bytes: int = 4 * 1024**3
    """Largest file that is opened at all, bytes."""
    max_frame_pixels: int = 4096 * 2304
    """Largest picture, pixels, as declared and as decoded."""
    max_frames: int = 200_000
    """Most frames that are decoded, counting frames that are not returned."""
    max_decoded_pixels: int = 250_000_000_000
    """Most pixels over all decoded frames."""
    max_returned_bytes: int = 6 * 1024**3
    """Most bytes of RGB frames handed back, over the whole call."""
    timeout_s: float = 300.0
    """Wall-clock limit of the child process, seconds."""
    memory_bytes: int = 3 * 1024**3
    """Address space of the child process, bytes."""


class TimedFrame(NamedTuple):
    """One upright RGB frame and its true time stamp."""

    pts_s: float
    frame_uint8: UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedVideo:
    """Upright RGB frames of a video with their true time stamps."""

    frames_uint8: UInt8[np.ndarray, "frames height width 3"]
    """RGB."""
    pts_s: Float64[np.ndarray, " frames"]
    """Time stamps of the file, seconds; the first is not always 0 and steps may vary."""
    info: VideoInfo
    """What the container declares."""
    warning: str | None
    """What is wrong with a damaged file whose good frames are here; None when all is well."""


@dataclass(slots=True)
class _Counters:
    """What went by while decoding, for limits and the warning."""

    decoded: int = 0
    decoded_pixels: int = 0
    corrupt: int = 0
    bad_packets: int = 0
    ended_early: str | None = None
    reached_end: bool = False
    seeked: bool = False


def probe_video(path: Path | str, *, limits: DecodeLimits | None = None) -> VideoInfo:
    """Read what a video declares and decode its first picture.

    Args:
        path: Local file.
        limits: What the file may cost; None for the defaults.

    Raises:
        MediaError: `reason` is one of missing, empty, not_a_video, no_picture, truncated, broken,
            too_large.
    """
    with FrameStream(path, max_frames=1, limits=limits) as frames:
        return frames.info


def iterate_frames(
    path: Path | str,
    *,
    start_s: float = 0.0,
    end_s: float | None = None,
    fps: float | None = None,
    short_side_px: int | None = None,
    max_frames: int | None = None,
    limits: DecodeLimits | None = None,
) -> "FrameStream":
    """Stream frames one by one; arguments and errors as in `decode_video`."""
    return FrameStream(
        path,
        start_s=start_s,
        end_s=end_s,
        fps=fps,
        short_side_px=short_side_px,
        max_frames=max_frames,
        limits=limits,
    )


def decode_video(
    path: Path | str,
    *,
    start_s: float = 0.0,
    end_s: float | None = None,
    fps: float | None = None,
    short_side_px: int | None = None,
    max_frames: int | None = None,
    limits: DecodeLimits | None = None,
) -> DecodedVideo:
    """Decode frames of a trusted file in this process.

    Args:
        path: Local file.
        start_s: First time stamp wanted, seconds, in the file's own time; 0 or less takes the
            file from its first frame.
        end_s: Time stamp to stop before, seconds; None reads to the end.
        fps: Take the frames nearest to a regular grid of this rate, frames per second; a frame
            repeats where the file has fewer. None takes every frame.
        short_side_px: Shrink so that the short side has this many pixels; never enlarges.
        max_frames: Return at most this many frames.
        limits: What the file may cost; None for the defaults.

    Raises:
        MediaError: The file cannot be used; see `probe_video` for the reasons.
    """
    with FrameStream(
        path,
        start_s=start_s,
        end_s=end_s,
        fps=fps,
        short_side_px=short_side_px,
        max_frames=max_frames,
        limits=limits,
    ) as stream:
        return collect_frames(stream, stream.info)


def collect_frames(frames: "FrameSource", info: VideoInfo) -> DecodedVideo:
    """Put streamed frames into one array.

    Raises:
        MediaError: No frame came (`reason` is broken).
    """
    kept = list(frames)
    if not kept:
        raise MediaError("Expected frames in the asked time span, got none.", reason="broken")
    return DecodedVideo(
        frames_uint8=np.stack([frame.frame_uint8 for frame in kept]),
        pts_s=np.array([frame.pts_s for frame in kept], dtype=np.float64),
        info=info,
        warning=frames.warning,
    )


class FrameSource:
    """Anything that yields timed frames and then knows a warning."""

    warning: str | None = None
    """What is wrong with the file; valid once the iteration has ended."""

    def __iter__(self) -> Iterator[TimedFrame]:
        """Yield the frames in time order."""
        raise NotImplementedError


class FrameStream(FrameSource):
    """Open a video and yield upright RGB frames one by one.

    `info` is valid at once, `warning` after the last frame.

    Raises:
        MediaError: The file cannot be used; see `probe_video` for the reasons.
    """

    def __init__(  # noqa: PLR0913 - the arguments of decode_video
        self,
        path: Path | str,
        *,
        start_s: float = 0.0,
        end_s: float | None = None,
        fps: float | None = None,
        short_side_px: int | None = None,
        max_frames: int | None = None,
        limits: DecodeLimits | None = None,
    ) -> None:
        self._path = Path(path)
        self._limits = limits or DecodeLimits()
        self._start_s, self._end_s, self._fps = start_s, end_s, fps
        self._max_frames = max_frames
        self._counters = _Counters()
        self._container, self._stream = _open(self._path, self._limits)
        try:
            self.info, self._first = self._read_first()
        except BaseException:
            self._container.close()
            raise
        self._size = _fitted_size(self.info.width, self.info.height, short_side_px)

    def __enter__(self) -> "FrameStream":
        """Return the stream."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._container.close()

    @property
    def num_decoded(self) -> int:
        """Frames decoded so far, returned or not."""
        return self._counters.decoded

    @property
    def num_corrupt(self) -> int:
        """Decoded frames that the decoder marked as damaged, and packets it refused."""
        return self._counters.corrupt + self._counters.bad_packets

    def __iter__(self) -> Iterator[TimedFrame]:
        """Yield the chosen frames; may be called once.

        Raises:
            MediaError: A limit was passed (`reason` is too_large).
        """
        if self._max_frames is not None and self._max_frames < 1:
            return
        returned = 0
        width, height = self._size
        budget = self._limits.max_returned_bytes // (width * height * 3)
        for pts_s, frame in self._chosen():
            if returned >= budget:
                raise _too_large(
                    self._path, f"{budget} returned frames of {width}x{height}", "fewer frames"
                )
            yield TimedFrame(pts_s, self._to_rgb(frame))
            returned += 1
            if returned == self._max_frames:
                break
        self.warning = self._make_warning()

    def _read_first(self) -> tuple[VideoInfo, Any]:
        for frame in self._decoded():
            return _make_info(self._container, self._stream, frame), frame
        raise MediaError(
            f"{self._path.name} holds a picture stream, but no frame of it decodes.",
            fix="The file is damaged; fetch or export it again.",
            reason="truncated" if self._counters.ended_early is None else "broken",
        )

    def _chosen(self) -> Iterator[tuple[float, Any]]:
        timed = self._timed(self._from_start())
        if self._fps is None:
            return _in_span(timed, self._start_s, self._end_s)
        return _on_grid(timed, self._start_s, self._end_s, self._fps)

    def _from_start(self) -> Iterator[Any]:
        """Decode from the key frame before start_s where that saves work."""
        if self._start_s - self.info.start_s > 1.0:
            frame = self._seek(self._start_s)
            if frame is not None:
                self._counters.seeked = True
                yield frame
                yield from self._decoded()
                return
            self._container.close()
            self._container, self._stream = _open(self._path, self._limits)
        else:
            yield self._first
        yield from self._decoded()

    def _seek(self, time_s: float) -> Any | None:  # noqa: ANN401 - av.VideoFrame
        """Jump to a key frame not after time_s; None when the file cannot."""
        offset = int(time_s / self._stream.time_base)
        try:
            self._container.seek(offset, stream=self._stream, backward=True)
            frame = next(self._decoded(), None)
        except FFmpegError:
            return None
        if frame is None or frame.pts is None or frame.time > time_s:
            return None
        return frame

    def _decoded(self) -> Iterator[Any]:
        """Yield every frame that decodes; count and skip packets that do not."""
        counters = self._counters
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                counters.reached_end = True
                return
            except FFmpegError as error:
                counters.ended_early = error.strerror or type(error).__name__
                return
            try:
                frames = packet.decode()
            except FFmpegError:
                counters.bad_packets += 1
                continue
            for frame in frames:
                self._count(frame)
                yield frame

    def _count(self, frame: Any) -> None:  # noqa: ANN401 - av.VideoFrame
        counters, limits = self._counters, self._limits
        pixels = frame.width * frame.height
        counters.decoded += 1
        counters.decoded_pixels += pixels
        counters.corrupt += bool(frame.is_corrupt)
        if pixels > limits.max_frame_pixels:
            raise _too_large(
                self._path, f"{frame.width}x{frame.height} pixels a frame", "a smaller picture"
            )
        if counters.decoded > limits.max_frames:
            raise _too_large(self._path, f"more than {limits.max_frames} frames", "a shorter video")
        if counters.decoded_pixels > limits.max_decoded_pixels:
            raise _too_large(
                self._path, f"more than {limits.max_decoded_pixels:.1e} pixels", "a shorter video"
            )

    def _timed(self, frames: Iterator[Any]) -> Iterator[tuple[float, Any]]:
        """Attach strictly increasing time stamps in seconds."""
        step_s = 1.0 / self.info.fps if self.info.fps > 0 else 0.04
        previous = None
        for frame in frames:
            pts_s = frame.time
            if pts_s is None:
                pts_s = self.info.start_s if previous is None else previous + step_s
            if previous is not None and pts_s <= previous:
                pts_s = previous + 1e-4
            previous = float(pts_s)
            yield previous, frame

    def _to_rgb(self, frame: Any) -> UInt8[np.ndarray, "height width 3"]:  # noqa: ANN401
        width, height = self._size
        if self.info.rotation_deg % 180:
            width, height = height, width
        # AREA keeps fine texture from turning into noise when shrinking.
        rgb = frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="AREA")
        return np.ascontiguousarray(np.rot90(rgb, k=-self.info.rotation_deg // 90))

    def _make_warning(self) -> str | None:
        counters, declared = self._counters, self.info.num_frames_declared
        parts = []
        if counters.corrupt or counters.bad_packets:
            parts.append(
                f"{counters.corrupt + counters.bad_packets} of {counters.decoded} frames are "
                "marked damaged by the decoder"
            )
        if counters.ended_early is not None:
            parts.append(f"reading stopped after {counters.decoded} frames: {counters.ended_early}")
        elif declared and counters.reached_end and not counters.seeked:
            # A few frames are lost at edit lists and late starts without any damage.
            missing = declared - counters.decoded
            if missing > max(2, declared // 20):
                parts.append(f"the file ends early: {counters.decoded} of {declared} frames decode")
        return "; ".join(parts) if parts else None


def _open(path: Path, limits: DecodeLimits) -> tuple[Any, Any]:
    """Open a file and pick its picture stream, or say why not."""
    try:
        size_bytes = path.stat().st_size
    except OSError as error:
        raise MediaError(
            f"Expected a video at {path}, got nothing there ({error.strerror}).", reason="missing"
        ) from error
    if not path.is_file():
        raise MediaError(f"Expected a video file at {path}, got a folder.", reason="missing")
    if size_bytes == 0:
        raise MediaError(f"{path.name} is an empty file.", fix="Fetch it again.", reason="empty")
    if size_bytes > limits.max_file_bytes:
        raise _too_large(path, f"{size_bytes} bytes", "a smaller file")
    try:
        container = av.open(
            f"file:{path.resolve()}", mode="r", options=_OPEN_OPTIONS, metadata_errors="replace"
        )
    except (FFmpegError, ValueError) as error:
        raise _explain_open_failure(path) from error
    streams = [s for s in container.streams.video if "attached_pic" not in str(s.disposition)]
    stream = next((s for s in streams if "default" in str(s.disposition)), None)
    stream = stream or (streams[0] if streams else None)
    problem = None
    if stream is None or stream.codec_context is None:
        problem = MediaError(f"{path.name} has no picture stream.", reason="no_picture")
    elif stream.codec_context.name not in _CODECS:
        problem = MediaError(
            f"{path.name} uses the codec {stream.codec_context.name}, which is not accepted.",
            fix="Convert it to H.264.",
            reason="not_a_video",
        )
    elif (stream.width or 0) * (stream.height or 0) > limits.max_frame_pixels:
        problem = _too_large(path, f"{stream.width}x{stream.height} pixels", "a smaller picture")
    if problem is not None:
        container.close()
        raise problem
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = 2
    return container, stream


def _explain_open_failure(path: Path) -> MediaError:
    with path.open("rb") as file:
        head = file.read(16)
    if head[4:8] in _CONTAINER_BOXES:
        if not _has_index(path):
            return MediaError(
                f"{path.name} is cut off: an MP4 file whose index (moov) is missing.",
                fix="Fetch or export it again.",
                reason="truncated",
            )
        return MediaError(f"{path.name} is a damaged MP4 file.", reason="broken")
    if head[:4] in {b"\x1aE\xdf\xa3", b"RIFF", b"GIF8"}:
        return MediaError(f"{path.name} is a damaged video file.", reason="broken")
    return MediaError(
        f"{path.name} is not a video of an accepted format (mp4, mov, mkv, webm, avi, gif, ts).",
        fix="Give a video file.",
        reason="not_a_video",
    )


def _has_index(path: Path) -> bool:
    """Walk the boxes of an MP4 file in search of its index."""
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        offset = 0
        while offset + 8 <= size_bytes:
            file.seek(offset)
            header = file.read(16)
            length, kind = int.from_bytes(header[:4], "big"), header[4:8]
            if kind in {b"moov", b"moof"}:
                return offset + length <= size_bytes
            if length == 1 and len(header) == 16:
                length = int.from_bytes(header[8:16], "big")
            if length < 8:
                return False
            offset += length
    return False


def _make_info(container: Any, stream: Any, frame: Any) -> VideoInfo:  # noqa: ANN401
    # FFmpeg counts the display matrix counter-clockwise.
    rotation_deg = round(-frame.rotation / 90) * 90 % 360
    width, height = frame.width, frame.height
    if rotation_deg % 180:
        width, height = height, width
    start_s = float(frame.time) if frame.time is not None else 0.0
    if stream.duration:
        duration_s = float(stream.duration * stream.time_base)
    elif container.duration:
        duration_s = max(0.0, container.duration / av.time_base - start_s)
    else:
        duration_s = 0.0
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    aspect = stream.sample_aspect_ratio
    return VideoInfo(
        width=width,
        height=height,
        fps=float(rate) if rate else 0.0,
        num_frames_declared=int(stream.frames) or None,
        duration_s=duration_s,
        codec={"libdav1d": "av1"}.get(stream.codec_context.name, stream.codec_context.name),
        rotation_deg=rotation_deg,
        start_s=start_s,
        pixel_aspect=float(aspect) if aspect else 1.0,
        has_audio=bool(container.streams.audio),
    )


def _fitted_size(width: int, height: int, short_side_px: int | None) -> tuple[int, int]:
    short = min(width, height)
    if short_side_px is None or short <= short_side_px:
        return width, height
    scale = short_side_px / short
    return max(1, round(width * scale)), max(1, round(height * scale))


def _in_span(
    frames: Iterator[tuple[float, Any]], start_s: float, end_s: float | None
) -> Iterator[tuple[float, Any]]:
    for pts_s, frame in frames:
        if end_s is not None and pts_s >= end_s - _TIME_SLACK_S:
            return
        if start_s <= 0 or pts_s >= start_s - _TIME_SLACK_S:
            yield pts_s, frame


def _on_grid(
    frames: Iterator[tuple[float, Any]], start_s: float, end_s: float | None, fps: float
) -> Iterator[tuple[float, Any]]:
    """Yield, for each time of a regular grid, the nearest frame."""
    previous: tuple[float, Any] | None = None
    origin_s = 0.0
    step_s = 1.0 / fps
    taken = 0
    for pts_s, frame in frames:
        if previous is None:
            origin_s = pts_s if start_s <= 0 else max(start_s, pts_s)
        while (wanted_s := origin_s + taken / fps) <= pts_s + _TIME_SLACK_S:
            if end_s is not None and wanted_s >= end_s - _TIME_SLACK_S:
                return
            is_previous = previous is not None and wanted_s - previous[0] < pts_s - wanted_s
            yield previous if is_previous and previous is not None else (pts_s, frame)
            taken += 1
        if previous is not None:
            step_s = pts_s - previous[0]
        previous = (pts_s, frame)
    if previous is None:
        return
    # The last frame is shown for about as long as the one before it.
    while (wanted_s := origin_s + taken / fps) < previous[0] + step_s / 2:
        if end_s is not None and wanted_s >= end_s - _TIME_SLACK_S:
            return
        yield previous
        taken += 1


def _too_large(path: Path, got: str, remedy: str) -> MediaError:
    return MediaError(
        f"{path.name} is over the limit: {got}.", fix=f"Give {remedy}.", reason="too_large"
    )
