"""Read the frames of an open video as they are stored, each with its true time and shape.

Damage is counted and read over; a damaged file gives its good frames. Limits hold for what is
really decoded.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from av.error import FFmpegError

from animaray.platform.errors import MediaError
from animaray.platform.media.displayed_picture import (
    UPRIGHT,
    Orientation,
    Presentation,
    orientation_of,
    presentation_of,
)
from animaray.platform.media.frame_times import FrameClock, PacketNote
from animaray.platform.media.interlacing import CombMeter, Deinterlacer
from animaray.platform.media.video_file import (
    DecodeLimits,
    check_picture_size,
    declared_rate,
    open_video,
    refuse_no_memory,
    refuse_too_large,
)

_MAX_HELD_BYTES = 256 * 1024**2


@dataclass(frozen=True, slots=True)
class StoredFrame:
    """One decoded frame, not yet converted."""

    pts_s: float
    picture: Any
    """av.VideoFrame, deinterlaced."""
    shown: Presentation
    """How it is to be displayed."""


@dataclass(slots=True)
class ReadingCounters:
    """What went by while reading, for limits and the warning."""

    packets: int = 0
    decoded: int = 0
    decoded_pixels: int = 0
    corrupt: int = 0
    bad_packets: int = 0
    ended_early: str | None = None
    reached_end: bool = False
    skipped: bool = False
    """Whether some of the file was not decoded at all."""


class FrameReader:
    """Decode one file from its start or from near a later time."""

    def __init__(
        self, path: Path, limits: DecodeLimits, *, in_child: bool = False, inspects: bool = False
    ) -> None:
        """Open the file; errors are those of `open_video`.

        Args:
            limits: What it may cost.
            in_child: Whether this is the bounded child.
            inspects: Whether to look for combs of interlacing that is not marked.
        """
        self._path, self._limits, self._in_child = path, limits, in_child
        self.counters = ReadingCounters()
        self.breaks_s: list[float] = []
        """Times of frames that do not continue the one before: the picture's format is another, or
        the recording's clock restarted."""
        self._combs = CombMeter() if inspects else None
        self._coded_aspect: Fraction | None = None
        self._lies: tuple[tuple[int, ...], Orientation] = ((), UPRIGHT)
        self._open()
        self._aspect: Fraction | None = self.stream.sample_aspect_ratio

    def _open(self) -> None:
        self.container, self.stream = open_video(self._path, self._limits, in_child=self._in_child)
        self._clock = self._new_clock()
        # One packet may give several frames, so one generator must yield them all.
        self.frames = self._decoded(self._demuxed())

    def _new_clock(self) -> FrameClock:
        return FrameClock(
            self._path.name,
            self.container.format.name,
            self.stream.time_base,
            declared_rate(self.stream),
        )

    def close(self) -> None:
        """Close the file."""
        self.container.close()

    @property
    def num_corrupt(self) -> int:
        """Decoded frames that the decoder marked as damaged, and packets it refused."""
        return self.counters.corrupt + self.counters.bad_packets

    @property
    def has_plain_clock(self) -> bool:
        """False when times do not follow from the file's own stamps alone: never seek in it."""
        clock = self._clock
        return clock.num_shifts == 0 and 2 * clock.num_invented <= self.counters.decoded

    @property
    def combed_share(self) -> float | None:
        """Share of moving pixels that are combed; None when not looked for or not seen."""
        return self._combs.share if self._combs is not None else None

    def seek(self, time_s: float) -> StoredFrame | None:
        """Jump to a key frame not after a time; None (and at the start again) if it cannot."""
        offset = int(time_s / self.stream.time_base)
        self._clock = self._new_clock()
        self.frames = self._decoded(self._demuxed())
        try:
            self.container.seek(offset, stream=self.stream, backward=True)
            frame = next(self.frames, None)
        except FFmpegError:
            frame = None
        if frame is None or frame.pts_s > time_s:
            self.container.close()
            self._open()
            return None
        self.counters.skipped = True
        return frame

    def skip_to(self, time_s: float) -> None:
        """Go to the key frame before a time without an index: packets pass by undecoded."""
        self.container.close()
        self._open()
        self.frames = self._decoded(self._demuxed_from(time_s))
        self.counters.skipped = True

    def _demuxed(self) -> Iterator[tuple[Any, PacketNote]]:
        """Yield packets with their notes; a file that cannot be read on ends early."""
        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                self.counters.reached_end = True
                return
            except FFmpegError as error:
                refuse_no_memory(self._path, error)
                self.counters.ended_early = error.strerror or type(error).__name__
                return
            self.counters.packets += bool(packet.size)
            yield packet, self._clock.note(packet)

    def _demuxed_from(self, time_s: float) -> Iterator[tuple[Any, PacketNote]]:
        held: list[tuple[Any, PacketNote]] = []
        held_bytes = 0
        packets = self._demuxed()
        for packet, note in packets:
            is_after = (note.time_s or 0.0) > time_s
            if packet.is_keyframe and not is_after:
                held, held_bytes = [], 0
            held.append((packet, note))
            held_bytes += packet.size
            if is_after or held_bytes > _MAX_HELD_BYTES:
                break
        yield from held
        del held
        yield from packets

    def _decoded(self, packets: Iterable[tuple[Any, PacketNote]]) -> Iterator[StoredFrame]:
        """Yield every frame that decodes; count and skip packets that do not."""
        fields = Deinterlacer()
        previous: tuple[Presentation, int] | None = None
        for packet, note in packets:
            packet.opaque = note
            try:
                frames = packet.decode()
            except FFmpegError as error:
                refuse_no_memory(self._path, error)
                self.counters.bad_packets += 1
                continue
            note.pixel_aspect = self._aspect_now()
            for frame in frames:
                own = frame.opaque if isinstance(frame.opaque, PacketNote) else note
                self._count(frame)
                shown = presentation_of(frame, own.pixel_aspect, self._orientation(frame, own))
                check_picture_size(self._path, *shown.size, self._limits)
                time_s = self._clock.time_of(frame, own)
                now = shown, own.num_restarts
                if previous is not None and now != previous:
                    self.breaks_s.append(time_s)
                previous = now
                yield from self._ready(fields.add(frame, (time_s, shown)))
        yield from self._ready(fields.flush())

    def _ready(
        self, frames: Iterable[tuple[Any, tuple[float, Presentation]]]
    ) -> Iterator[StoredFrame]:
        for picture, (time_s, shown) in frames:
            if self._combs is not None:
                self._combs.add(picture)
            yield StoredFrame(time_s, picture, shown)

    def _orientation(self, frame: Any, note: PacketNote) -> Orientation:  # noqa: ANN401
        """Return how a frame lies; looked up anew where the stream changes in any way."""
        key = frame.rotation, frame.width, frame.height, note.num_restarts
        if key != self._lies[0]:
            self._lies = key, orientation_of(frame)
        return self._lies[1]

    def _aspect_now(self) -> Fraction | None:
        """Return the pixels' aspect: the container's word, until the codec's changes."""
        coded = self.stream.codec_context.sample_aspect_ratio
        if self._coded_aspect is None:
            self._coded_aspect = coded
        elif coded is not None and coded != self._coded_aspect:
            self._aspect = self._coded_aspect = coded
        return self._aspect

    def _count(self, frame: Any) -> None:  # noqa: ANN401 - av.VideoFrame
        counters, limits = self.counters, self._limits
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

    def read_first(self) -> StoredFrame:
        """Return the first frame.

        Raises:
            MediaError: None decodes.
        """
        frame = next(self.frames, None)
        if frame is not None:
            return frame
        raise MediaError(
            f"{self._path.name} holds a picture stream, but no frame of it decodes.",
            fix="The file is damaged; fetch or export it again.",
            reason="broken" if self.counters.ended_early or self.num_corrupt else "truncated",
        )
