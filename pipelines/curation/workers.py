"""Where stages of curation run: in this process, or in workers of Ray on any number of nodes.

Two Ray Data chains carry a run. One reads the sources of a batch, a task each. The other lives as
long as the run, so that its actors load their networks once: its source pulls groups of clips from
a small actor beside the driver, batch after batch. This is the only file of curation that names
Ray; it is imported when Ray is needed.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from animaray.pipelines.curation.guard import Stage
from animaray.pipelines.curation.rows import GROUP, SHELVED, SOURCE, Row, rows_of, table_of
from animaray.pipelines.curation.workplace import Marks, Workplace
from animaray.platform.disk import disk_error
from animaray.platform.errors import AnimarayError, MachineError
from animaray.platform.ray_session import worker_environment
from animaray.platform.stores import is_remote

# Half a CPU each: on a small machine all workers fit beside the caller's own tasks, and neither
# pool can starve the other of its last slot.
_CPUS = 0.5
_LOOK_ROUND_S = 30.0
_GOODBYE_S = 10.0
_STANDSTILL_S = 900.0
"""A group of clips takes minutes; with a node lost, no answer for so long is a standstill."""
_NO_CLIPS = table_of([{"clips": []}], GROUP)
_Measure = Callable[[Workplace], Callable[[list[Row]], list[Row]]]


class RunDesk:
    """What the workers of one run ask for: the next clips, and how often a row killed a process.

    It stands on the driver's node and ends with the run. That marks of deaths lie here and not in
    files needs no folder that all nodes see, and not in the store saves two requests a stage.
    """

    def __init__(self) -> None:
        self._groups: dict[int, pa.Table] = {}
        self._num_groups = 0
        self._is_closed = False
        self._news = asyncio.Condition()
        self._marks = Marks()
        self._failure: AnimarayError | None = None

    async def put(self, groups: Sequence[pa.Table]) -> None:
        """Hand in groups of clips; those before have been shelved."""
        async with self._news:
            self._groups = dict(enumerate(groups, start=self._num_groups))
            self._num_groups += len(groups)
            self._news.notify_all()

    async def close(self) -> None:
        """Say that no more groups come, and that those here need not be measured."""
        async with self._news:
            self._is_closed = True
            self._news.notify_all()

    async def take(self, place: int) -> pa.Table | None:
        """Wait for the group of a place; None behind the last. The same place, the same answer.

        A reader that died starts over from the first place: what was shelved is empty by then.
        """
        async with self._news:
            await self._news.wait_for(lambda: place < self._num_groups or self._is_closed)
        return None if self._is_closed else self._groups.get(place, _NO_CLIPS)

    async def fail(self, error: AnimarayError) -> None:
        """Note what stops the run."""
        self._failure = self._failure or error

    async def failure(self) -> AnimarayError | None:
        """Return what stopped the run first."""
        return self._failure

    async def begin(self, key: str) -> int:
        """Note that a try begins; return how many began before and never ended."""
        return self._marks.begin(key)

    async def end(self, key: str) -> None:
        """Note that no try is open."""
        self._marks.end(key)


def run_desk() -> Any:  # noqa: ANN401 - a handle of RunDesk
    """Put up the desk of a run on the driver's node; it goes with the last handle."""
    node = NodeAffinitySchedulingStrategy(_own_node(), soft=False)
    return ray.remote(RunDesk).options(num_cpus=0, scheduling_strategy=node).remote()


class DeskMarks(Marks):
    """Marks at the desk of a run: they outlive the worker."""

    def __init__(self, desk: Any) -> None:  # noqa: ANN401 - a handle of RunDesk
        self._desk = desk

    def begin(self, key: str) -> int:
        """Note that a try begins; return how many began before and never ended."""
        return int(ray.get(self._desk.begin.remote(key)))

    def end(self, key: str) -> None:
        """Note that no try is open; nobody waits for it."""
        self._desk.end.remote(key)

    def fail(self, error: AnimarayError) -> None:
        """Tell what stops the run, before it does."""
        ray.get(self._desk.fail.remote(error))


@contextmanager
def _telling(marks: Marks) -> Iterator[None]:
    """Tell the desk what stops the run; Ray Data would tell of it as text."""
    try:
        yield
    except Exception as error:
        known = error if isinstance(error, AnimarayError) else disk_error(error)
        if known is not None and isinstance(marks, DeskMarks):
            marks.fail(known)
        raise


class Groups(Datasource):
    """Groups of clips, as long as the desk has some: one task, which the driver's node runs."""

    def __init__(self, desk: Any) -> None:  # noqa: ANN401 - a handle of RunDesk
        super().__init__()  # type: ignore[no-untyped-call]
        self._desk = desk

    def estimate_inmemory_data_size(self) -> None:
        """Nobody knows."""
        return

    @property
    def supports_distributed_reads(self) -> bool:
        """The groups of a node that dies would have to be asked for again."""
        return False

    def get_read_tasks(self, *_: Any, **__: Any) -> list[Any]:  # noqa: ANN401 - ReadTask
        """Return the one task."""
        told = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None, input_files=None)
        return [ReadTask(partial(_groups_of, self._desk), told, schema=GROUP)]


def _groups_of(desk: Any) -> Iterator[pa.Table]:  # noqa: ANN401 - a handle of RunDesk
    place = 0
    while (group := ray.get(desk.take.remote(place))) is not None:
        yield group
        place += 1


class RayWorkers:
    """Workers of the Ray session that is open."""

    def __init__(
        self,
        place: Workplace,
        read: Stage,
        measure: _Measure,
    ) -> None:
        """Start the workers that measure, so that networks load while sources are read.

        Args:
            read: Looks at a source.
            measure: Makes what measures and shelves clips.
        """
        _quiet()
        self._config = place.config
        self._read = read
        self._desk = run_desk()
        self._place = replace(place, marks=DeskMarks(self._desk))
        self._shelved: queue.Queue[pa.Table | Exception] = queue.Queue()
        self._nodes = _living_nodes()
        self._drains = threading.Thread(
            target=self._drain, args=(self._chain(measure),), daemon=True
        )
        self._drains.start()

    def read(self, rows: Sequence[Row]) -> Iterator[Row]:
        """Read sources; rows come back in any order."""
        data = (
            # One row per block: sources differ in length by orders of magnitude.
            ray.data.from_arrow([table_of([row], SOURCE) for row in rows])
            .map_batches(
                partial(_read_block, read=self._read, place=self._place, driver=_own_node()),
                batch_size=None,
                batch_format="pyarrow",
                # One task per source and no pool: a child process decodes a source anyway.
                compute=ray.data.TaskPoolStrategy(size=min(self._config.num_workers, len(rows))),
                num_cpus=_CPUS,
                num_gpus=self._config.needs.read_num_gpus,
                memory=_memory(self._config.needs.read_memory_bytes),
                runtime_env={"env_vars": worker_environment()},
            )
        )  # fmt: skip
        try:
            for table in _tables(data):
                yield from rows_of(table)
        except Exception as error:
            raise self._failure_behind(error) from error

    def measure(self, groups: Sequence[Sequence[Row]]) -> Iterator[pa.Table]:
        """Measure and shelve groups of clips; rows come back in any order.

        Raises:
            Exception: What ended the chain.
        """
        missing = sum(len(group) for group in groups)
        ray.get(self._desk.put.remote([table_of([{"clips": each}], GROUP) for each in groups]))
        while missing:
            found = self._next()
            if isinstance(found, Exception):
                raise self._failure_behind(found) from found
            missing -= len(found)
            yield found

    def _next(self) -> pa.Table | Exception:
        """Wait for what a worker hands back.

        Raises:
            MachineError: A node was lost, and its worker finds no place on those that are left.
        """
        waited_s = 0.0
        while True:
            try:
                return self._shelved.get(timeout=_LOOK_ROUND_S)
            except queue.Empty:
                waited_s += _LOOK_ROUND_S
            # Ray starts a lost worker again for ever, and keeps its clips for it.
            if waited_s >= _STANDSTILL_S and (lost := self._nodes - _living_nodes()):
                raise MachineError(
                    f"Nothing was measured for {waited_s / 60:.0f} minutes since {len(lost)} of "
                    f"{len(self._nodes)} nodes were lost: those that are left have no room for "
                    "their workers.",
                    fix="Give the same command again, with nodes in their place or fewer workers "
                    "(--set num_workers=1): it goes on after what is committed.",
                )

    def close(self) -> None:
        """Let the workers end, and wait a moment for them: the session ends after this."""
        self._desk.close.remote()
        self._drains.join(_GOODBYE_S)

    def _failure_behind(self, error: Exception) -> Exception:
        """Return what a worker told of before Ray Data ended."""
        with suppress(ray.exceptions.RayError):
            told: AnimarayError | None = ray.get(self._desk.failure.remote())
            return told or error
        return error

    def _chain(self, measure: Callable[..., Any]) -> Any:  # noqa: ANN401 - ray.data.Dataset
        context = ray.data.DataContext.get_current().copy()
        # A block is one row here: groups go out and clips come back at once, not once many are
        # there.
        context.target_max_block_size = 1
        with ray.data.DataContext.current(context):
            return (
                ray.data.read_datasource(Groups(self._desk), num_cpus=0, override_num_blocks=1)
                .map_batches(
                    _MeasureBlock,
                    fn_constructor_args=(measure, self._place, _own_node()),
                    batch_size=None,
                    batch_format="pyarrow",
                    # Actors, because the networks are loaded once per process. One task each: an
                    # actor that is busy keeps nothing from one that is free; clips take seconds.
                    compute=ray.data.ActorPoolStrategy(
                        size=self._config.num_workers, max_tasks_in_flight_per_actor=1
                    ),
                    num_cpus=_CPUS,
                    num_gpus=self._config.needs.num_gpus,
                    memory=_memory(self._config.needs.measure_memory_bytes),
                    runtime_env={"env_vars": worker_environment()},
                )
            )  # fmt: skip

    def _drain(self, data: Any) -> None:  # noqa: ANN401 - ray.data.Dataset
        try:
            for table in _tables(data):
                self._shelved.put(table)
            self._shelved.put(MachineError("The workers ended before the clips did."))
        except Exception as error:  # noqa: BLE001 - raised again by who waits
            self._shelved.put(error)


def _tables(data: Any) -> Iterator[pa.Table]:  # noqa: ANN401 - ray.data.Dataset
    """Yield blocks as they come: to fetch one ahead would keep the last one back."""
    yield from data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)


def _read_block(table: pa.Table, read: Stage, place: Workplace, driver: str) -> pa.Table:
    rows = rows_of(table)
    with _telling(place.marks):
        for row in rows:
            _require_visible(row, driver)
        return table_of([read(row, place) for row in rows], SOURCE)


class _MeasureBlock:
    """Measures blocks of groups in one process, with its networks."""

    def __init__(self, measure: _Measure, place: Workplace, driver: str) -> None:
        self._marks, self._driver = place.marks, driver
        self._problem: AnimarayError | None = None
        try:
            self._measure = measure(place)
        except AnimarayError as error:
            # An actor that does not start is started again for ever.
            self._problem = error

    def __call__(self, table: pa.Table) -> pa.Table:
        """Measure and shelve the clips of some groups.

        Raises:
            AnimarayError: The networks did not load.
        """
        groups = [group["clips"] for group in rows_of(table) if group["clips"]]
        with _telling(self._marks):
            if self._problem is not None:
                raise self._problem
            for clip in (clip for group in groups for clip in group):
                _require_visible(clip, self._driver)
            return table_of([row for group in groups for row in self._measure(group)], SHELVED)


def _require_visible(row: Row, driver: str) -> None:
    """Refuse a node that does not see what the driver saw: the input is not to blame.

    Raises:
        MachineError: The source is not there on this node.
    """
    if is_remote(row["path"]) or row["state"] is not None:
        return
    if _own_node() != driver and not Path(row["path"]).exists():
        raise MachineError(
            f"{row['path']} is there where the command runs, and not on a node with workers.",
            fix="Name sources of an object store (s3://...), or put them into a folder that every"
            " node has under the same path; the same command goes on.",
        )


def _nodes() -> list[dict[str, Any]]:
    """Return what Ray tells of the nodes that live."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in nodes if node["Alive"]]


def _living_nodes() -> set[str]:
    return {node["NodeID"] for node in _nodes()}


def _own_node() -> str:
    node: str = ray.get_runtime_context().get_node_id()
    return node


def _quiet() -> None:
    # Ray Data announces each execution; the progress rows of ours tell more.
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False


def _memory(wanted_bytes: int) -> int:
    """Return what to reserve for one worker: never more than a whole node has.

    On a node that is smaller than the need one worker at a time works, instead of none for ever.
    """
    largest = max(node["Resources"].get("memory", 0.0) for node in _nodes())
    return min(wanted_bytes, int(largest)) if largest else wanted_bytes
