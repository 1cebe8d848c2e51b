"""Make the next batches in another thread while the present one is trained on."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar("Item")

_DEPTH = 2
_POLL_S = 0.2


class Prefetcher(Generic[Item]):
    """Calls `make` on each number in order, up to two ahead, and measures the waiting."""

    def __init__(self, make: Callable[[int], Item], numbers: Sequence[int]) -> None:
        self._make = make
        self._numbers = numbers
        self._queue: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(_DEPTH)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)
        self._wait_s = 0.0

    def __enter__(self) -> "Prefetcher[Item]":
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the thread; batches made ahead are dropped."""
        self._stop.set()
        self._thread.join()

    def next(self) -> Item:
        """Return the next item; an error of `make` is raised here."""
        started = time.monotonic()
        item, error = self._queue.get()
        self._wait_s += time.monotonic() - started
        if error is not None:
            raise error
        return item  # type: ignore[return-value]  # None only together with an error

    def take_wait_s(self) -> float:
        """Return the seconds waited in `next` since the last call."""
        waited, self._wait_s = self._wait_s, 0.0
        return waited

    def _run(self) -> None:
        for number in self._numbers:
            try:
                made: tuple[Item | None, BaseException | None] = (self._make(number), None)
            except Exception as error:  # noqa: BLE001 - handed to the caller of next()
                made = (None, error)
            while not self._stop.is_set():
                try:
                    self._queue.put(made, timeout=_POLL_S)
                    break
                except queue.Full:
                    continue
            if self._stop.is_set() or made[1] is not None:
                return
