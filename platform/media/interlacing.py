"""Pictures of two fields from two moments: weave them into whole ones, and tell unmarked ones."""

import statistics
from collections import deque
from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
from av.error import BlockingIOError as NothingReadyError
from av.error import EOFError as EndOfFilterError
from av.filter import Graph
from jaxtyping import UInt8

_T = TypeVar("_T")
_SAMPLE_STEP = 12
_COLUMN_STEP = 4
_LEAST_DIFFERENCE = 10
_LEAST_MOVING_SHARE = 0.002


class Deinterlacer:
    """Rebuild the pictures that the decoder marks as interlaced, one for one; others pass.

    References:
        FFmpeg's bwdif (Weston three-field deinterlacing with the motion check of yadif).
    """

    def __init__(self) -> None:
        self._graph: Graph | None = None
        self._format: tuple[int, int, str] | None = None
        self._waiting: deque[Any] = deque()

    def add(self, frame: Any, facts: _T) -> Iterator[tuple[Any, _T]]:  # noqa: ANN401
        """Take one frame with what is known of it; yield what is ready, in order."""
        form = (frame.width, frame.height, frame.format.name)
        if self._graph is not None and form != self._format:
            yield from self.flush()
        if self._graph is None:
            if not frame.interlaced_frame:
                yield frame, facts
                return
            self._graph, self._format = _graph(frame), form
        self._waiting.append(facts)
        yield from self._pass(frame)

    def flush(self) -> Iterator[tuple[Any, Any]]:
        """Yield the frames that wait for a next one."""
        if self._graph is not None:
            yield from self._pass(None)
            self._graph = None
        self._waiting.clear()

    def _pass(self, frame: Any) -> Iterator[tuple[Any, Any]]:  # noqa: ANN401
        assert self._graph is not None  # noqa: S101 - the callers looked
        self._graph.vpush(frame)
        while self._waiting:
            try:
                ready = self._graph.vpull()
            except (NothingReadyError, EndOfFilterError):
                return
            yield ready, self._waiting.popleft()


def _graph(frame: Any) -> Graph:  # noqa: ANN401 - av.VideoFrame
    graph = Graph()
    graph.threads = 1
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )
    # The rest of the stream may hold whole pictures, too.
    weave = graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
    graph.link_nodes(source, weave, graph.add("buffersink"))
    graph.configure()
    return graph


class CombMeter:
    """Measure combs of moving edges: the trace of interlacing that no mark tells of.

    A pixel is combed when both lines beside it, of the other moment, differ from it in the same
    direction while the lines of its own moment do not. Every few frames two are compared.
    """

    def __init__(self) -> None:
        self._num_seen = 0
        self._previous: UInt8[np.ndarray, "height width"] | None = None
        self._shares: list[float] = []

    def add(self, frame: Any) -> None:  # noqa: ANN401 - av.VideoFrame
        """Look at the next frame."""
        place = self._num_seen % _SAMPLE_STEP
        self._num_seen += 1
        if place == 0:
            self._previous = _brightness(frame)
        elif place == 1 and self._previous is not None:
            luma = _brightness(frame)
            if luma is not None and luma.shape == self._previous.shape:
                share = combed_share(luma, self._previous)
                self._shares += [] if share is None else [share]
            self._previous = None

    @property
    def share(self) -> float | None:
        """Mean share of the moving pixels that are combed; None when nothing could be seen.

        The mean, because film in 30 frames a second (telecine) has combs in two of five only.
        """
        return statistics.fmean(self._shares) if self._shares else None


def combed_share(
    luma: UInt8[np.ndarray, "height width"], previous: UInt8[np.ndarray, "height width"]
) -> float | None:
    """Return the share of moving pixels that are combed; None where next to nothing moves."""
    now, before = luma.astype(np.int16), previous.astype(np.int16)
    middle = now[2:-2]
    moves = np.abs(middle - before[2:-2]) > _LEAST_DIFFERENCE
    if moves.size == 0 or moves.mean() < _LEAST_MOVING_SHARE:
        return None
    other = np.minimum(now[1:-3], now[3:-1]), np.maximum(now[1:-3], now[3:-1])
    own = np.minimum(now[:-4], now[4:]), np.maximum(now[:-4], now[4:])

    def stands_out(low: np.ndarray, high: np.ndarray) -> np.ndarray:
        return (middle - high > _LEAST_DIFFERENCE) | (low - middle > _LEAST_DIFFERENCE)

    combed = stands_out(*other) & ~stands_out(*own) & moves
    return float(combed.sum() / moves.sum())


def _brightness(frame: Any) -> UInt8[np.ndarray, "height width"] | None:  # noqa: ANN401
    """Return some columns of the first plane of an 8-bit picture; None for other formats."""
    form = frame.format
    if not form.name.startswith(("yuv", "nv", "gray")) or form.components[0].bits != 8:
        return None
    if form.is_rgb or form.name.startswith("yuyv") or frame.height < 8:
        return None
    plane = frame.planes[0]
    lines = np.frombuffer(plane, dtype=np.uint8).reshape(-1, plane.line_size)
    return lines[: frame.height, : frame.width : _COLUMN_STEP].copy()
