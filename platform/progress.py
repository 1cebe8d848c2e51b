"""Show that work is alive: live rows on a terminal, one plain line each 30 s off it.

Everything goes to stderr; stdout is for results. Off a terminal each row also prints a line when
it starts and when it ends, so that a log file tells the story.
"""

import sys
import time
from io import TextIOBase
from types import TracebackType
from typing import IO, Literal, cast

from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as RichProgress

PLAIN_INTERVAL_S = 30.0

ProgressUnit = Literal["items", "bytes"]


class StageProgress:
    """One row of progress: a name, how many of how many, and a short note."""

    def __init__(
        self,
        name: str,
        total: int | None,
        *,
        stream: TextIOBase | None = None,
        quiet: bool = False,
        unit: ProgressUnit = "items",
    ) -> None:
        self.name = name
        self.total = total
        self.done = 0
        self.note = ""
        self._unit = unit
        self._found = 0
        self._quiet = quiet
        self._console = Console(
            file=cast("IO[str] | None", stream) or sys.stderr, highlight=False, soft_wrap=True
        )
        self._started = self._last_line = time.monotonic()
        self._live: RichProgress | None = None
        self._task = 0

    def __enter__(self) -> "StageProgress":
        """Show the row."""
        self._started = self._last_line = time.monotonic()
        if self._quiet:
            return self
        if self._console.is_terminal:
            self._live = RichProgress(
                TextColumn("{task.description:<18}"),
                BarColumn(bar_width=28),
                *self._counts(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=self._console,
                transient=False,
            )
            self._live.start()
            self._task = self._live.add_task(self.name, total=self.total, note="")
        else:
            self._line("started")
        return self

    def resume_at(self, done: int) -> None:
        """Start from what an earlier run did: it is counted, but says nothing about the pace."""
        self._found = done
        self.update(done=done)

    def advance(self, count: int = 1, note: str | None = None) -> None:
        """Count finished items; the note replaces the one before."""
        self.done += count
        self.update(note=note)

    def update(
        self, *, done: int | None = None, total: int | None = None, note: str | None = None
    ) -> None:
        """Set the count, the total or the note."""
        self.done = self.done if done is None else done
        self.total = self.total if total is None else total
        self.note = self.note if note is None else note
        if self._live is not None:
            task = TaskID(self._task)
            self._live.update(task, completed=self.done, total=self.total, note=self.note)
        elif not self._quiet and time.monotonic() - self._last_line >= PLAIN_INTERVAL_S:
            self._line("running")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the row; a failure is told, not hidden."""
        if self._live is not None:
            self._live.update(TaskID(self._task), completed=self.done, note=self.note)
            self._live.stop()
        elif not self._quiet:
            self._line("stopped" if kind else "done")

    def _counts(self) -> tuple[ProgressColumn, ...]:
        if self._unit == "bytes":
            return DownloadColumn(), TransferSpeedColumn()
        return (MofNCompleteColumn(),)

    def _line(self, state: str) -> None:
        self._last_line = time.monotonic()
        seconds = self._last_line - self._started
        note = f" {self.note}" if self.note else ""
        pace = self._pace(seconds)
        self._console.print(
            f"{self.name}: {state} {self._how_many()} after {seconds:.0f} s{pace}{note}"
        )

    def _how_many(self) -> str:
        if self._unit == "bytes":
            of = f" of {decimal(self.total)}" if self.total is not None else ""
            return f"{decimal(self.done)}{of}"
        return f"{self.done}/{self.total}" if self.total is not None else str(self.done)

    def _pace(self, seconds: float) -> str:
        """Return rate and time left; nothing before both can be told."""
        own = self.done - self._found
        if own <= 0 or seconds < 1.0:
            return ""
        rate = own / seconds
        shown = f"{rate:.2g}/s" if rate >= 1.0 else f"{60 * rate:.2g}/min"
        if self._unit == "bytes":
            shown = f"{decimal(int(rate))}/s"
        left = (self.total or 0) - self.done
        return f", {shown}" + (f", {left / rate:.0f} s left" if left > 0 else "")


def stage_progress(
    name: str, total: int | None = None, *, quiet: bool = False, unit: ProgressUnit = "items"
) -> StageProgress:
    """Return a progress row to use in a `with` statement."""
    return StageProgress(name, total, quiet=quiet, unit=unit)
