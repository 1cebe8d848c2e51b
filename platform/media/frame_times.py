"""True times of frames: containers round them, leave them out, restart or misorder them.

Time goes on from frame to frame: where frames are missing the gap stays, where a recording's clock
restarts the next one follows it, where all frames carry one time the declared rate counts.
"""

import heapq
import itertools
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from jaxtyping import Float64

from animaray.platform.errors import MediaError

_WITHOUT_DISPLAY_TIMES = frozenset({"avi"})
_MAY_RESTART_AHEAD = frozenset({"mpegts", "mpeg", "flv", "ogg", "asf"})
"""Recordings that are joined as they are: a long jump is another clock, not a pause."""
_RESTART_AHEAD_S = 10.0
_RESTART_BACK_S, _REORDER_S = 0.25, 1.0
_MAX_DECLARED_FPS = 300.0
_GAP_STEPS = 1.5
_COMMON_RATES = tuple(
    sorted(
        {Fraction(rate) for rate in (5, 6, 8, 10, 12, 15, 16, 18, 20, 24, 25, 30, 48, 50, 60, 90,
                                     100, 120, 144, 200, 240)}
        | {Fraction(25, 2)}
        | {Fraction(rate * 1000, 1001) for rate in (12, 15, 24, 30, 48, 60, 90, 120, 240)}
    )
)  # fmt: skip


@dataclass(slots=True)
class PacketNote:
    """What a frame needs to know of the packet it came from."""

    offset_s: float
    """To be added to its own time stamps."""
    num_restarts: int
    """Clocks that ended before it."""
    stamp: int | None
    """Its place in the order of decoding, in the stream's unit of time."""
    time_s: float | None
    """When what it holds is shown, or decoded where the file does not tell, seconds."""
    pixel_aspect: Fraction | None = None
    """What the decoder said of the pixels' shape when it read the packet."""


class FrameClock:
    """Give the frames of a stream, in the order in which they are shown, growing times."""

    def __init__(self, name: str, container_format: str, time_base: Fraction, fps: float) -> None:
        """Start at the first packet, or after a seek.

        Args:
            name: Of the file, for errors.
            container_format: FFmpeg's name of the container.
            time_base: Unit of the stream's time stamps, seconds.
            fps: Frame rate that the container declares; 0 when it tells none.
        """
        formats = set(container_format.split(","))
        self._name = name
        self._may_restart_ahead = bool(formats & _MAY_RESTART_AHEAD)
        self._sorts = bool(formats & _WITHOUT_DISPLAY_TIMES)
        self._time_base = float(time_base)
        self._declared_step_s = 1.0 / fps if 0 < fps <= _MAX_DECLARED_FPS else None
        self._offset_s = 0.0
        self._packet_s: float | None = None
        self._has_order = False  # whether packets tell when they are to be decoded
        self._packet_step_s = self._declared_step_s or 0.04
        self._waiting: list[int] = []
        self._frame_s: float | None = None
        self._step_s: float | None = None
        self._stamp: int | None = None
        self.num_restarts = 0
        """Times that the clock of the file started anew."""
        self.num_shifts = 0
        """Times that frames were shifted against the stamps of the file."""
        self.num_invented = 0
        """Frames whose time follows from the rate, as they carry none of their own."""

    def note(self, packet: Any) -> PacketNote:  # noqa: ANN401 - av.Packet
        """Look at the next packet of the file, before it is decoded."""
        stamp = packet.dts if packet.dts is not None else packet.pts
        if stamp is not None:
            has_order = packet.dts is not None
            if has_order or not self._has_order:
                self._follow(stamp * self._time_base, has_order=has_order)
            self._has_order |= has_order
            if self._sorts and packet.size:
                heapq.heappush(self._waiting, stamp)
        if packet.duration:
            self._packet_step_s = packet.duration * self._time_base
        shown = stamp if packet.pts is None or self._sorts else packet.pts
        time_s = None if shown is None else shown * self._time_base + self._offset_s
        return PacketNote(self._offset_s, self.num_restarts, stamp, time_s)

    def _follow(self, now_s: float, *, has_order: bool) -> None:
        """Shift all that follows when the clock jumps."""
        if self._packet_s is not None and has_order == self._has_order:
            step_s = now_s - self._packet_s
            # Without decoding times, display times go back and forth within a group.
            is_back = step_s < -(self._packet_step_s / 2 if has_order else _REORDER_S)
            is_ahead = self._may_restart_ahead and step_s > _RESTART_AHEAD_S
            if is_back or is_ahead:
                self._offset_s += self._packet_s + self._packet_step_s - now_s
                self.num_shifts += 1
                # Pieces that overlap by a frame or two are one recording.
                self.num_restarts += abs(step_s) > _RESTART_BACK_S
                self._waiting.clear()
        self._packet_s = now_s

    def time_of(self, frame: Any, note: PacketNote) -> float:  # noqa: ANN401 - av.VideoFrame
        """Return when a frame is shown, seconds; later than the frame before.

        Raises:
            MediaError: Frames carry no times of their own, and the file declares no rate.
        """
        stamp = self._next_waiting(frame, note) if self._sorts else frame.pts
        previous = self._frame_s
        if stamp is None or (stamp == self._stamp and previous is not None):
            self.num_invented += 1
            time_s = 0.0 if previous is None else previous + self._step()
        else:
            time_s = stamp * self._time_base + note.offset_s
            if previous is not None and time_s <= previous:
                time_s = previous + self._step() / 10
            elif previous is not None and stamp != self._stamp:
                self._step_s = time_s - previous
        self._stamp, self._frame_s = stamp, time_s
        return time_s

    def _next_waiting(
        self,
        frame: Any,  # noqa: ANN401 - av.VideoFrame
        note: PacketNote,
    ) -> int | None:
        """Return the earliest packet time that no frame has had: AVI tells decoding times only."""
        waiting = self._waiting
        while frame.key_frame and note.stamp is not None and waiting and waiting[0] < note.stamp:
            heapq.heappop(waiting)  # of packets that gave no frame
        return heapq.heappop(waiting) if waiting else frame.pts

    def _step(self) -> float:
        step_s = self._declared_step_s or self._step_s
        if step_s is None:
            raise MediaError(
                f"The frames of {self._name} all carry the same time stamp, and it declares no "
                "frame rate.",
                fix="Write it again with time stamps: ffmpeg -r 25 -i IN -c:v libx264 OUT.mp4",
                reason="broken",
            )
        return step_s


@dataclass(frozen=True, slots=True)
class FrameRate:
    """The rate of a whole video, from the times of all its frames."""

    fps: float
    """Frames per second where frames follow each other; pauses do not count."""
    is_variable: bool
    """Whether the steps differ by more than rounding explains."""


def measure_rate(
    times_s: Float64[np.ndarray, " frames"], declared_fps: float, tick_s: float
) -> FrameRate:
    """Return the rate of frames: a common or the declared one where the times agree with it.

    Times that are rounded to milliseconds tell 24 from 23.976 only over many frames; the median
    step would tell 58.8 for 60.

    Args:
        times_s: Of all frames, growing.
        declared_fps: What the container says; 0 for nothing.
        tick_s: What times are rounded to.
    """
    steps = np.diff(times_s)
    if len(steps) == 0:
        return FrameRate(
            declared_fps if 0 < declared_fps <= _MAX_DECLARED_FPS else 25.0, is_variable=False
        )
    usual_s = float(np.median(steps))
    runs = _runs(times_s, steps, usual_s)
    longest = max(runs, key=len)
    if len(longest) < 3:
        return FrameRate(1.0 / usual_s, is_variable=len(steps) > 2)
    measured = (len(longest) - 1) / float(longest[-1] - longest[0])
    slack_s = tick_s * 1.05 + 1e-6
    for rate in _candidates(declared_fps, measured):
        if abs(rate / measured - 1) < 0.02 and _spread(runs, rate) <= slack_s:
            return FrameRate(rate, is_variable=False)
    fitted = _fitted_rate(longest, measured)
    is_variable = _spread(runs, fitted) > max(0.25 / fitted, slack_s)
    return FrameRate(fitted, is_variable=is_variable)


def _candidates(declared_fps: float, measured: float) -> list[float]:
    """Return rates in the order in which they are believed where the times agree."""
    common = sorted(map(float, _COMMON_RATES), key=lambda rate: abs(rate - measured))
    if declared_fps <= 0:
        return common
    # What a container counts itself from rounded times is no common rate, though near one.
    is_common = any(abs(declared_fps / rate - 1) < 1e-5 for rate in common)
    return [declared_fps, *common] if is_common else [*common, declared_fps]


def _runs(
    times_s: Float64[np.ndarray, " frames"], steps: Float64[np.ndarray, " steps"], usual_s: float
) -> list[Float64[np.ndarray, " _"]]:
    """Split the frames where a step is longer than usual."""
    borders = np.flatnonzero(steps > _GAP_STEPS * usual_s) + 1
    edges = [0, *borders.tolist(), len(times_s)]
    return [times_s[first:end] for first, end in itertools.pairwise(edges)]


def _spread(runs: list[Float64[np.ndarray, " _"]], rate: float) -> float:
    """Return how far, at most, the frames of a run lie from an even grid, end to end, seconds."""
    worst = 0.0
    for run in runs:
        offsets = run - np.arange(len(run)) / rate
        worst = max(worst, float(offsets.max() - offsets.min()))
    return worst


def _fitted_rate(run: Float64[np.ndarray, " _"], measured: float) -> float:
    """Return the rate of the line of least squares through the times of a run."""
    places = np.arange(len(run)) - (len(run) - 1) / 2
    step_s = float(places @ (run - run.mean())) / float(places @ places)
    return 1.0 / step_s if step_s > 0 else measured
