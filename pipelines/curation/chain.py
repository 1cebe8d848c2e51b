"""The two Ray Data chains of curation: sources to shots, and shots to measured clips.

Rows carry paths and small arrays; a video's bytes never pass between stages. Each row travels as
one opaque column, because rows of different states have different columns and Arrow would have to
guess their types. This is the only file of curation that names Ray.
"""

import logging
import os
import pickle
from collections.abc import Iterator, Sequence
from typing import Any

import ray

from animaray.pipelines.curation.config import CurationConfig
from animaray.pipelines.curation.crash_guard import guard_against_crashes
from animaray.pipelines.curation.stage_runner import Row, run_stage
from animaray.pipelines.stages.clips import split_clips
from animaray.pipelines.stages.identify import identify
from animaray.pipelines.stages.probe import probe
from animaray.pipelines.stages.shots import find_shots

Packed = dict[str, bytes]

# Half a CPU each: on a small machine all workers fit beside the caller's own tasks, and neither
# pool can starve the other of its last slot.
_CPUS = 0.5


def scan(packed: Packed, config: CurationConfig) -> Packed:
    """Hash, probe and cut one source into shots."""

    def read(row: Row) -> Row:
        row = run_stage("probe", lambda r: probe(r, config.limits), row)
        return run_stage("shots", lambda r: find_shots(r, config.shots, config.limits), row)

    limit = config.limits.max_file_bytes
    row = run_stage("identify", lambda r: identify(r, limit), _unpack(packed))
    return _pack(guard_against_crashes(read, row, f"{row.get('input_id')}.scan", what="source"))


def split(packed: Packed, config: CurationConfig) -> list[Packed]:
    """Split one source into its clips."""
    return [_pack(clip) for clip in _split(_unpack(packed), config)]


def scan_sources(rows: Sequence[Row], config: CurationConfig) -> Iterator[Row]:
    """Hash, probe and cut sources into shots; rows come back in any order."""
    data = _dataset(rows).map(
        scan,
        fn_kwargs={"config": config},
        # One task per source and no pool: a source is decoded by its own child process anyway.
        compute=ray.data.TaskPoolStrategy(size=min(config.num_workers, len(rows))),
        num_cpus=_CPUS,
        num_gpus=config.needs.read_num_gpus,
        memory=_memory(config.needs.read_memory_bytes),
        **_remote_options(),
    )
    yield from _rows_of(data)


def measure_clips(rows: Sequence[Row], config: CurationConfig) -> Iterator[Row]:
    """Cut sources into clips and measure them; those that may be kept lie in the staging folder."""
    workers = min(config.num_workers, len(rows))
    # Equal needs, so that Ray runs the two in one process and clips need no hand-over.
    needs = {
        "num_cpus": _CPUS,
        "num_gpus": config.needs.num_gpus,
        "memory": _memory(config.needs.measure_memory_bytes),
        **_remote_options(),
    }
    data = (
        _dataset(rows)
        # One source becomes many clips.
        .flat_map(split, fn_kwargs={"config": config}, **needs)
        # An actor pool, because the networks are loaded once per process.
        .map(
            Measure,
            fn_constructor_args=(config,),
            # None waits for a worker that is busy while another one is free: each takes seconds.
            compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
            **needs,
        )
    )
    yield from _rows_of(data)


class Measure:
    """Holds the perception worker of one process, with its networks."""

    def __init__(self, config: CurationConfig) -> None:
        from animaray.pipelines.curation.perception_worker import PerceptionWorker

        self._worker = PerceptionWorker.load(config)

    def __call__(self, packed: Packed) -> Packed:
        """Score one packed clip."""
        return _pack(self._worker(_unpack(packed)))


def _split(row: Row, config: CurationConfig) -> list[Row]:
    """Split one source; a failure keeps its row."""
    clips: list[Row] = []

    def stage(pending: Row) -> Row:
        clips.extend(split_clips(pending, config.clips))
        return pending

    after = run_stage("clips", stage, row)
    return clips if after["state"] is None else [{**after, "clip_id": None, "num_clips": 0}]


def _dataset(rows: Sequence[Row]) -> Any:  # noqa: ANN401 - ray.data.Dataset
    # Ray Data announces each execution; the progress rows of ours tell more.
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # One row per block: sources differ in length by orders of magnitude.
    return ray.data.from_items([_pack(row) for row in rows], override_num_blocks=len(rows))


def _rows_of(data: Any) -> Iterator[Row]:  # noqa: ANN401 - ray.data.Dataset
    for packed in data.iter_rows():
        yield _unpack(packed)


def _memory(wanted_bytes: int) -> int:
    """Return what to reserve for one worker: never more than a whole node has.

    On a node that is smaller than the need one worker at a time works, instead of none for ever.
    """
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    largest = max(node["Resources"].get("memory", 0.0) for node in nodes if node["Alive"])
    return min(wanted_bytes, int(largest)) if largest else wanted_bytes


def _remote_options() -> dict[str, Any]:
    """Hand our environment to the workers of a session that somebody else started."""
    names = ("ANIMARAY_WEIGHTS", "ANIMARAY_CACHE_DIR", "OMP_NUM_THREADS")
    variables = {name: os.environ[name] for name in names if name in os.environ}
    variables.setdefault("OMP_NUM_THREADS", "1")
    return {"runtime_env": {"env_vars": variables}}


def _pack(row: Row) -> Packed:
    return {"row": pickle.dumps(row)}


def _unpack(packed: Packed) -> Row:
    return pickle.loads(packed["row"])  # noqa: S301 - written by our own worker a moment ago
