"""Frames of one clip for those who measure it, decoded in as few passes as can be.

Once a clip is stored its own file is read; before, the span of the source, in a bounded child.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from animaray.pipelines.stages.cut_clip import of_source
from animaray.platform.media.video import (
    ChildFrameStream,
    DecodedVideo,
    DecodeLimits,
    FrameSelection,
    FrameSource,
    FrameStream,
    StreamEnd,
    TimedFrame,
    VideoInfo,
    put_together,
)


@dataclass(frozen=True, slots=True)
class FramePass:
    """One decoding from start to end."""

    source: FrameSource
    """Whose end is known once all frames went by."""
    info: VideoInfo
    frames: Iterator[tuple[int, TimedFrame]]
    """Which selection wants a frame, and the frame, in time order."""


class ClipSamples:
    """Frames of one of our own clips, decoded at the first call and handed out once each."""

    def __init__(self, media_path: str, together: Sequence[FrameSelection] = ()) -> None:
        """Say what will be asked for.

        Args:
            together: Selections that are decoded in one pass; another one takes a pass of its own.
        """
        self._path = media_path
        self._waiting = tuple(together)
        self._ready: dict[FrameSelection, DecodedVideo] = {}

    def take(self, selection: FrameSelection, *, keeps: bool = False) -> DecodedVideo:
        """Return frames, and keep none of them unless somebody else will ask, too.

        Raises:
            MediaError: The clip does not decode.
        """
        if selection in self._waiting:
            for _ in self._collect(()):
                pass
        if selection in self._ready:
            return self._ready[selection] if keeps else self._ready.pop(selection)
        with self._open([selection]) as decoding:
            kept = [frame for _, frame in decoding.frames]
            return put_together(kept, decoding.info, decoding.source.end.warning)

    def stream(self, selection: FrameSelection) -> Iterator[TimedFrame]:
        """Yield frames one by one, in the pass that also collects what is waited for.

        Raises:
            MediaError: The clip does not decode.
        """
        yield from self._collect((selection,))

    def _collect(self, streamed: tuple[FrameSelection, ...]) -> Iterator[TimedFrame]:
        """Decode once for all that wait and keep it; yield what is streamed."""
        wanted = self._waiting
        kept: list[list[TimedFrame]] = [[] for _ in wanted]
        with self._open([*wanted, *streamed]) as decoding:
            for place, frame in decoding.frames:
                if place < len(kept):
                    kept[place].append(frame)
                else:
                    yield frame
            self._waiting = ()
            for selection, each in zip(wanted, kept, strict=True):
                self._ready[selection] = put_together(
                    each, decoding.info, decoding.source.end.warning
                )

    @contextmanager
    def _open(self, selections: Sequence[FrameSelection]) -> Iterator[FramePass]:
        """Start one decoding."""
        with FrameStream(self._path) as stream:
            yield FramePass(stream, stream.info, stream.together(selections))


class SourceSamples(ClipSamples):
    """Frames of a clip that is not cut yet, as large as they will be stored."""

    def __init__(
        self,
        row: dict[str, Any],
        limits: DecodeLimits,
        size: tuple[int, int],
        together: Sequence[FrameSelection] = (),
    ) -> None:
        """Name the clip.

        Args:
            row: With path, clip_start_s, clip_end_s, clip_fps and has_plain_clock.
            limits: What decoding may cost.
            size: Width and height that the stored clip will have, pixels.
            together: Selections that are decoded in one pass, their times from the clip's start.
        """
        super().__init__(row["path"], together)
        self._row = row
        self._limits = limits
        self._size = size
        self._end = StreamEnd()

    def facts(self) -> dict[str, Any]:
        """Return the columns that cutting would add, of the last pass; one is over."""
        end = self._end
        return {
            "clip_num_frames": end.num_in_span,
            "clip_duration_s": end.span_s + 1.0 / self._row["clip_fps"],
            "clip_damaged_share": end.num_corrupt / max(1, end.num_in_span),
            "clip_combed_share": end.combed_share,
        }

    @contextmanager
    def _open(self, selections: Sequence[FrameSelection]) -> Iterator[FramePass]:
        with ChildFrameStream(
            self._path, self._limits, *(self._in_source(each) for each in selections)
        ) as stream:
            width, height = self._size
            info = replace(stream.info, width=width, height=height)
            yield FramePass(stream, info, stream.together())
            self._end = stream.end

    def _in_source(self, selection: FrameSelection) -> FrameSelection:
        """Return a selection of the clip as one of the source."""
        largest = min(self._size)
        return replace(
            of_source(self._row, selection),
            short_side_px=min(selection.short_side_px or largest, largest),
        )
