"""Decode video frames: RGB as displayed with true time stamps, from damaged files too.

Limits hold for what is really decoded; a damaged file gives its good frames plus a warning.
Untrusted files go through platform/media/bounded_decoding, which runs this in a bounded process.
"""

import heapq
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, UInt8

from animaray.platform.errors import MediaError
from animaray.platform.media.displayed_picture import RgbConverter
from animaray.platform.media.frame_choice import FrameSelection, choose_frames, copies_of
from animaray.platform.media.frame_reading import FrameReader, StoredFrame
from animaray.platform.media.video_file import DecodeLimits, VideoInfo, make_info, refuse_too_large


class TimedFrame(NamedTuple):
    """One upright RGB frame and its true time stamp."""

    pts_s: float
    frame_uint8: UInt8[np.ndarray, "height width 3"]


class TimedPlanes(NamedTuple):
    """One upright frame as it is stored, 4:2:0 by BT.709 in limited range, and its time stamp."""

    pts_s: float
    planes_uint8: UInt8[np.ndarray, "rows width"]
    """Luma, then both chroma planes; two thirds of the rows are luma."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamEnd:
    """What is known of a stream once all its frames went by."""

    warning: str | None = None
    """What is wrong with the file."""
    num_corrupt: int = 0
    """Decoded frames that the decoder marked as damaged, and packets it refused."""
    breaks_s: tuple[float, ...] = ()
    """Times of frames that do not continue the one before: the picture's format is another, or the
    recording's clock restarted."""
    has_plain_clock: bool = True
    """False when times do not follow from the file's own stamps alone: `FrameSelection.seeks` must
    be False, too."""
    combed_share: float | None = None
    """Mean share of moving pixels with the combs of interlacing that nothing marks; None where it
    was not looked for, or nothing moves."""
    num_in_span: int = 0
    """Frames of the first selection's span, returned or not."""
    span_s: float = 0.0
    """Time from the first to the last of them."""


def probe_video(path: Path | str, *, limits: DecodeLimits | None = None) -> VideoInfo:
    """Read what a video declares and decode its first picture.

    A file that cannot be used raises MediaError with `reason` missing, empty, not_a_video,
    no_picture, truncated, broken or too_large.

    Args:
        limits: What the file may cost; None for the defaults.
    """
    with FrameStream(path, limits=limits) as frames:
        return frames.info


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
        start_s: This and the next ones: see `FrameSelection`.
        end_s: Stop before, seconds.
        fps: Of the regular grid.
        short_side_px: Of the frames returned.
        limits: What the file may cost; None for the defaults.
        untagged: Matrix of a video without colour tags; see `to_rgb`.
    """
    selection = FrameSelection(
        start_s=start_s, end_s=end_s, fps=fps, short_side_px=short_side_px, max_frames=max_frames
    )
    with FrameStream(path, selection, limits, untagged=untagged) as stream:
        return collect_frames(stream, stream.info)


def collect_frames(frames: "FrameSource", info: VideoInfo) -> DecodedVideo:
    """Put streamed frames into one array.

    Raises:
        MediaError: No frame came (`reason` is broken).
    """
    kept = list(frames)
    return put_together(kept, info, frames.end.warning)


def put_together(
    kept: list[TimedFrame], info: VideoInfo, warning: str | None = None
) -> DecodedVideo:
    """Move frames from a list, which is empty afterwards, into one array.

    Args:
        info: What the container declares.
        warning: What is wrong with a damaged file.

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
    """Anything that yields timed frames and then knows how the file fared."""

    end: StreamEnd = StreamEnd()
    """Valid once the iteration has ended."""

    def __iter__(self) -> Iterator[TimedFrame]:
        """Yield the frames in time order."""
        raise NotImplementedError

    @property
    def warning(self) -> str | None:
        """What is wrong with the file; valid once the iteration has ended."""
        return self.end.warning


class FrameStream(FrameSource):
    """Open a video and yield RGB frames, as displayed, one by one.

    `info` is valid at once, `end` after the last frame. Errors are those of `probe_video`.
    """

    def __init__(
        self,
        path: Path | str,
        selection: FrameSelection | None = None,
        limits: DecodeLimits | None = None,
        *,
        untagged: int | None = None,
        in_child: bool = False,
    ) -> None:
        self._path = Path(path)
        self._untagged = untagged
        self._selection = selection or FrameSelection()
        self._limits = limits or DecodeLimits()
        self._reader = FrameReader(self._path, self._limits, in_child=in_child, inspects=in_child)
        self._last_s = 0.0
        self._num_in_span, self._span_s = 0, (0.0, 0.0)
        try:
            self._first = self._reader.read_first()
            self.info = make_info(
                self._reader.container, self._reader.stream, self._first.shown, self._first.pts_s
            )
        except BaseException:
            self._reader.close()
            raise

    def __enter__(self) -> "FrameStream":
        """Return the stream."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._reader.close()

    @property
    def num_decoded(self) -> int:
        """Frames decoded so far, returned or not."""
        return self._reader.counters.decoded

    @property
    def num_corrupt(self) -> int:
        """Decoded frames that the decoder marked as damaged, and packets it refused."""
        return self._reader.num_corrupt

    def __iter__(self) -> Iterator[TimedFrame]:
        """Yield the chosen frames; may be called once, and not with `together`."""
        for _, frame in self.together([self._selection]):
            yield frame

    def together(self, selections: Sequence[FrameSelection]) -> Iterator[tuple[int, TimedFrame]]:
        """Yield the frames of several selections in one pass, in time order, all in RGB.

        Args:
            selections: All start at the stream's own start or later; the first one's span is
                counted.

        Yields:
            Which selection wants it, and the frame.
        """
        for place, picture in self.pictures([replace(each, planes=False) for each in selections]):
            if isinstance(picture, TimedFrame):
                yield place, picture

    def pictures(
        self, selections: Sequence[FrameSelection]
    ) -> Iterator[tuple[int, TimedFrame | TimedPlanes]]:
        """Yield what `together` does, as planes where a selection wants them and they are there.

        Args:
            selections: As in `together`.

        Yields:
            Which selection wants it, and the picture.
        """
        copies = copies_of(self._timed(selections[0]), len(selections))
        chosen = [
            zip(itertools.repeat(place), choose_frames(copy, selection))
            for place, (copy, selection) in enumerate(zip(copies, selections, strict=True))
        ]
        converters = [RgbConverter(each.short_side_px, self._untagged) for each in selections]
        returned_bytes = 0
        for place, (pts_s, frame) in heapq.merge(*chosen, key=lambda item: item[1][0]):
            converter = converters[place]
            width, height = converter.size_for(frame.shown)
            returned_bytes += width * height * 3
            if returned_bytes > self._limits.max_returned_bytes:
                refuse_too_large(
                    self._path,
                    f"more than {self._limits.max_returned_bytes} bytes of returned frames "
                    f"(the last of {width}x{height} pixels)",
                    "fewer frames",
                )
            planes = None
            if selections[place].planes:
                planes = converter.planes(frame.picture, frame.shown)
            if planes is not None:
                yield place, TimedPlanes(pts_s, planes)
            else:
                yield place, TimedFrame(pts_s, converter.convert(frame.picture, frame.shown))
        self.end = StreamEnd(
            warning=self._make_warning(),
            num_corrupt=self._reader.num_corrupt,
            breaks_s=tuple(self._reader.breaks_s),
            has_plain_clock=self._reader.has_plain_clock,
            combed_share=self._reader.combed_share,
            num_in_span=self._num_in_span,
            span_s=self._span_s[1] - self._span_s[0],
        )

    def _timed(self, counted: FrameSelection) -> Iterator[tuple[float, StoredFrame]]:
        """Yield decoded frames with their times, from near the start that is wanted."""
        for frame in self._from_start():
            self._last_s = frame.pts_s
            if counted.spans(frame.pts_s):
                self._span_s = (self._span_s[0] if self._num_in_span else frame.pts_s, frame.pts_s)
                self._num_in_span += 1
            yield frame.pts_s, frame

    def _from_start(self) -> Iterator[StoredFrame]:
        """Decode from the key frame before start_s where that saves work."""
        start_s = self._selection.start_s
        if start_s - self.info.start_s <= 1.0:
            yield self._first
        elif not self._selection.seeks:
            self._reader.skip_to(start_s)
        elif (frame := self._reader.seek(start_s)) is not None:
            yield frame
        yield from self._reader.frames

    def _make_warning(self) -> str | None:
        counters, declared = self._reader.counters, self.info.num_frames_declared
        parts = []
        if self.num_corrupt:
            parts.append(
                f"{self.num_corrupt} of {counters.decoded} frames are marked damaged by the decoder"
            )
        if counters.ended_early is not None:
            parts.append(f"reading stopped after {counters.decoded} frames: {counters.ended_early}")
        elif declared and counters.reached_end and not counters.skipped:
            # A few frames are lost at edit lists and late starts without any damage, and what an
            # edit list leaves out may be missing from the packets, but not from the time.
            missing = declared - counters.packets
            missing_s = self.info.start_s + self.info.duration_s - self._last_s
            step_s = 1.0 / self.info.fps if self.info.fps > 0 else 0.04
            is_short = missing_s > max(3 * step_s, self.info.duration_s / 20)
            if missing > max(2, declared // 20) and is_short:
                parts.append(f"the file ends early: {counters.decoded} of {declared} frames decode")
        return "; ".join(parts) if parts else None
