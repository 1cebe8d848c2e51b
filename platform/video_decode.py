"""Decode video frames: upright RGB with true time stamps, from damaged files too.

Limits hold for what is really decoded; a damaged file gives its good frames plus a warning.
Untrusted files go through animaray.platform.video_child, which runs this in a bounded process.
"""

import heapq
import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter
from jaxtyping import Float64, UInt8

from animaray.platform.errors import MediaError
from animaray.platform.frame_choice import FrameSelection, choose_frames, copies_of
from animaray.platform.video_colour import to_rgb
from animaray.platform.video_file import (
    DecodeLimits,
    VideoInfo,
    check_picture_size,
    make_info,
    open_video,
    refuse_no_memory,
    refuse_too_large,
)


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
    untagged: int | None = None,
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
        untagged: Matrix of a video without colour tags; see `to_rgb`.
    """
    selection = FrameSelection(
        start_s=start_s, end_s=end_s, fps=fps, short_side_px=short_side_px, max_frames=max_frames
    )
    with FrameStream(path, selection, limits, untagged=untagged) as stream:
        return collect_frames(stream, stream.info)


def decode_together(
    path: Path | str, selections: Sequence[FrameSelection], *, limits: DecodeLimits | None = None
) -> list[DecodedVideo]:
    """Decode a trusted file once for several selections; each comes out as decoded alone.

    Errors are those of `decode_video`.
    """
    with FrameStream(path, limits=limits) as stream:
        kept: list[list[TimedFrame]] = [[] for _ in selections]
        for place, frame in stream.together(selections):
            kept[place].append(frame)
        return [_put_together(each, stream.info, stream.warning) for each in kept]


def collect_frames(frames: "FrameSource", info: VideoInfo) -> DecodedVideo:
    """Put streamed frames into one array.

    Raises:
        MediaError: No frame came (`reason` is broken).
    """
    kept = list(frames)
    return _put_together(kept, info, frames.warning)


def _put_together(kept: list[TimedFrame], info: VideoInfo, warning: str | None) -> DecodedVideo:
    """Move frames from a list, which is empty afterwards, into one array.

    Raises:
        MediaError: There is none (`reason` is broken).
    """
    if not kept:
        raise MediaError("Expected frames in the asked time span, got none.", reason="broken")
    pts_s = np.array([frame.pts_s for frame in kept], dtype=np.float64)
    frames = np.empty((len(kept), *kept[0].frame_uint8.shape), dtype=np.uint8)
    kept.reverse()
    for place in range(len(frames)):
        # What is copied goes at once: nothing is held twice.
        frames[place] = kept.pop().frame_uint8
    return DecodedVideo(frames_uint8=frames, pts_s=pts_s, info=info, warning=warning)


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
        *,
        untagged: int | None = None,
    ) -> None:
        self._path = Path(path)
        self._untagged = untagged
        self._selection = selection or FrameSelection()
        self._limits = limits or DecodeLimits()
        self._counters = _Counters()
        # One for all frames of a size: a new one each would plan the conversion anew each time.
        self._reformatters: defaultdict[tuple[int, int], VideoReformatter] = defaultdict(
            VideoReformatter
        )
        self._container, self._stream = open_video(self._path, self._limits)
        # One packet may give several frames, so one generator must yield them all.
        self._frames = self._decoded()
        try:
            self.info, self._first = self._read_first()
        except BaseException:
            self._container.close()
            raise

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
        """Yield the chosen frames; may be called once, and not with `together`."""
        for _, frame in self.together([self._selection]):
            yield frame

    def together(self, selections: Sequence[FrameSelection]) -> Iterator[tuple[int, TimedFrame]]:
        """Yield the frames of several selections in one pass, in time order.

        Args:
            selections: All start at the stream's own start or later.

        Yields:
            Which selection wants it, and the frame.
        """
        copies = copies_of(self._timed(self._from_start()), len(selections))
        chosen = [
            zip(itertools.repeat(place), choose_frames(copy, selection))
            for place, (copy, selection) in enumerate(zip(copies, selections, strict=True))
        ]
        sizes = [
            _fitted_size(self.info.width, self.info.height, selection.short_side_px)
            for selection in selections
        ]
        returned_bytes = 0
        for place, (pts_s, frame) in heapq.merge(*chosen, key=lambda item: item[1][0]):
            width, height = sizes[place]
            returned_bytes += width * height * 3
            if returned_bytes > self._limits.max_returned_bytes:
                refuse_too_large(
                    self._path,
                    f"more than {self._limits.max_returned_bytes} bytes of returned frames "
                    f"(the last of {width}x{height} pixels)",
                    "fewer frames",
                )
            yield place, TimedFrame(pts_s, self._to_rgb(frame, sizes[place]))
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

    def _to_rgb(
        self,
        frame: Any,  # noqa: ANN401 - av.VideoFrame
        size: tuple[int, int],
    ) -> UInt8[np.ndarray, "height width 3"]:
        width, height = size
        if self.info.rotation_deg % 180:
            width, height = height, width
        rgb = to_rgb(self._reformatters[size], frame, (width, height), untagged=self._untagged)
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
