"""Decode video frames: upright RGB with true time stamps, from damaged files too.

Limits hold for what is really decoded; a damaged file gives its good frames plus a warning.
Untrusted files go through animaray.platform.video_child, which runs this in a bounded process.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter
from jaxtyping import Float64, UInt8

from animaray.platform.errors import MediaError
from animaray.platform.video_file import (
    DecodeLimits,
    VideoInfo,
    check_picture_size,
    make_info,
    open_video,
    refuse_no_memory,
    refuse_too_large,
)

_TIME_SLACK_S = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameSelection:
    """Which frames of a video are wanted, and how large."""

    start_s: float = 0.0
    """First time stamp wanted, seconds, in the file's own time; 0 or less takes the first frame."""
    end_s: float | None = None
    """Time stamp to stop before, seconds; None reads to the end."""
    fps: float | None = None
    """Take the frames nearest to a regular grid of this rate; a frame repeats where the file has
    fewer. None takes every frame."""
    short_side_px: int | None = None
    """Shrink so that the short side has this many pixels; never enlarges. None keeps the size."""
    max_frames: int | None = None
    """Return at most this many frames; None for all."""
    every: int = 1
    """Of the frames that the settings above choose, return each n-th, the first one first."""


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

    A file that cannot be used raises MediaError with `reason` missing, empty, not_a_video,
    no_picture, truncated, broken or too_large.

    Args:
        path: Local file.
        limits: What the file may cost; None for the defaults.
    """
    with FrameStream(path, limits=limits) as frames:
        return frames.info


def iterate_frames(  # noqa: PLR0913 - the same arguments as decode_video
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
    selection = FrameSelection(
        start_s=start_s, end_s=end_s, fps=fps, short_side_px=short_side_px, max_frames=max_frames
    )
    return FrameStream(path, selection, limits)


def decode_video(  # noqa: PLR0913 - a flat call reads best
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

    A file that cannot be used raises MediaError; see `probe_video` for the reasons.

    Args:
        path: Local file.
        start_s: This and the next ones: see `FrameSelection`.
        end_s: Stop before, seconds.
        fps: Of the regular grid.
        short_side_px: Of the frames returned.
        max_frames: Most frames returned.
        limits: What the file may cost; None for the defaults.
    """
    selection = FrameSelection(
        start_s=start_s, end_s=end_s, fps=fps, short_side_px=short_side_px, max_frames=max_frames
    )
    with FrameStream(path, selection, limits) as stream:
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

    `info` is valid at once, `warning` after the last frame. Errors are those of `probe_video`.
    """

    def __init__(
        self,
        path: Path | str,
        selection: FrameSelection | None = None,
        limits: DecodeLimits | None = None,
    ) -> None:
        self._path = Path(path)
        self._selection = selection or FrameSelection()
        self._limits = limits or DecodeLimits()
        self._counters = _Counters()
        # One for all frames: a new one each would plan the conversion anew each time.
        self._reformatter = VideoReformatter()
        self._container, self._stream = open_video(self._path, self._limits)
        # One packet may give several frames, so one generator must yield them all.
        self._frames = self._decoded()
        try:
            self.info, self._first = self._read_first()
        except BaseException:
            self._container.close()
            raise
        self._size = _fitted_size(self.info.width, self.info.height, self._selection.short_side_px)

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
        """Yield the chosen frames; may be called once."""
        wanted = self._selection.max_frames
        width, height = self._size
        budget = self._limits.max_returned_bytes // (width * height * 3)
        chosen = itertools.islice(self._chosen(), 0, None, self._selection.every)
        for returned, (pts_s, frame) in enumerate(chosen):
            if returned == wanted:
                break
            if returned >= budget:
                refuse_too_large(
                    self._path, f"{budget} returned frames of {width}x{height}", "fewer frames"
                )
            yield TimedFrame(pts_s, self._to_rgb(frame))
        self.warning = self._make_warning()

    def _read_first(self) -> tuple[VideoInfo, Any]:
        frame = next(self._frames, None)
        if frame is not None:
            return make_info(self._container, self._stream, frame), frame
        raise MediaError(
            f"{self._path.name} holds a picture stream, but no frame of it decodes.",
            fix="The file is damaged; fetch or export it again.",
            reason="broken" if self._counters.ended_early or self.num_corrupt else "truncated",
        )

    def _chosen(self) -> Iterator[tuple[float, Any]]:
        timed = self._timed(self._from_start())
        wanted = self._selection
        if wanted.fps is None:
            return _in_span(timed, wanted.start_s, wanted.end_s)
        return _on_grid(timed, wanted.start_s, wanted.end_s, wanted.fps)

    def _from_start(self) -> Iterator[Any]:
        """Decode from the key frame before start_s where that saves work."""
        start_s = self._selection.start_s
        if start_s - self.info.start_s <= 1.0:
            yield self._first
        elif (frame := self._seek(start_s)) is not None:
            self._counters.seeked = True
            yield frame
        else:
            self._container.close()
            self._container, self._stream = open_video(self._path, self._limits)
            self._frames = self._decoded()
        yield from self._frames

    def _seek(self, time_s: float) -> Any | None:  # noqa: ANN401 - av.VideoFrame
        """Jump to a key frame not after time_s; None when the file cannot."""
        offset = int(time_s / self._stream.time_base)
        self._frames = self._decoded()
        try:
            self._container.seek(offset, stream=self._stream, backward=True)
            frame = next(self._frames, None)
        except FFmpegError:
            return None
        is_usable = frame is not None and frame.pts is not None and frame.time <= time_s
        return frame if is_usable else None

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
                refuse_no_memory(self._path, error)
                counters.ended_early = error.strerror or type(error).__name__
                return
            try:
                frames = packet.decode()
            except FFmpegError as error:
                refuse_no_memory(self._path, error)
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
        check_picture_size(self._path, frame.width, frame.height, limits)
        if counters.decoded > limits.max_frames:
            refuse_too_large(self._path, f"more than {limits.max_frames} frames", "a shorter video")
        if counters.decoded_pixels > limits.max_decoded_pixels:
            refuse_too_large(
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
        rgb = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="rgb24",
            interpolation="AREA",
            threads=1,
        ).to_ndarray()
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
    origin_s, step_s, taken = 0.0, 1.0 / fps, 0
    for pts_s, frame in frames:
        if previous is None:
            origin_s = pts_s if start_s <= 0 else max(start_s, pts_s)
        while (wanted_s := origin_s + taken / fps) <= pts_s + _TIME_SLACK_S:
            if end_s is not None and wanted_s >= end_s - _TIME_SLACK_S:
                return
            middle_s = pts_s if previous is None else (previous[0] + pts_s) / 2
            # Half-way between two frames the earlier is taken.
            is_earlier = previous is not None and wanted_s <= middle_s + _TIME_SLACK_S
            yield previous if is_earlier and previous is not None else (pts_s, frame)
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
