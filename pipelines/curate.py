"""Turn videos, wherever they are, into a curated dataset: `curate`; judge again without models.

    find inputs -> read (hash, probe, shots) -> near-duplicates -> split into clips
                -> cut and look -> judge and shelve -> commit

Every input ends in exactly one state (datasets.schemas.SOURCE_STATES) with a reason.
Running again goes on where the run before stopped: finished files are left out before they are
read, and each commit holds whole sources. Workers write all that is large; the driver commits.
"""

import itertools
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from animaray.datasets.commit_log import CommitLog, Writer
from animaray.datasets.compaction import merge_small_files
from animaray.datasets.publication import publish
from animaray.datasets.reader import CurationDataset
from animaray.datasets.vacuum import vacuum
from animaray.datasets.writers import writing
from animaray.models.perception.files import check_perception_files
from animaray.models.perception.permissive.rapid_ocr import find_networks
from animaray.pipelines.acquire.inputs import refuse_absent
from animaray.pipelines.curation.commit import Committer
from animaray.pipelines.curation.config import CurationConfig
from animaray.pipelines.curation.guard import guarded
from animaray.pipelines.curation.inputs import RunInputs, has_footage, read_known
from animaray.pipelines.curation.rows import SHELVED, Row, rows_of, table_of
from animaray.pipelines.curation.shelf import shelve
from animaray.pipelines.curation.summary import CurationSummary, summarize
from animaray.pipelines.curation.workplace import (
    Workplace,
    clear_staging,
    staging_of,
    workplace_of,
)
from animaray.pipelines.policy.verdicts import reapply_policy, renew_stale_verdicts
from animaray.pipelines.stages.clips import deal_clips, split_clips
from animaray.pipelines.stages.duplicates import find_duplicates
from animaray.pipelines.stages.identify import identify, refuse_withdrawn
from animaray.pipelines.stages.probe import probe
from animaray.pipelines.stages.shots import find_shots
from animaray.platform.disk import check_folder
from animaray.platform.errors import DatasetError
from animaray.platform.progress import StageProgress, stage_progress
from animaray.platform.ray_session import ray_session
from animaray.platform.stores import is_remote, local_copy, open_store

if TYPE_CHECKING:
    from animaray.pipelines.curation.workers import RayWorkers

__all__ = ["CurationConfig", "CurationSummary", "curate", "reapply_policy"]

_ROOM_PER_SOURCE_BYTE = 2
"""Clips are about as large as their source: once in the staging folder, once in the tables."""
_LEAST_ROOM_BYTES = 8 * 1024**2
"""For tracks, previews and the log of few small sources."""
_MANY_BYTES_PER_S = 4 * 1024**2
"""Of a video. Whose files are larger than that makes of `in_process_s` gets workers unseen."""

ProgressMaker = Callable[[str, int | None], StageProgress]


def curate(config: CurationConfig, progress: ProgressMaker = stage_progress) -> CurationSummary:
    """Curate every video that some sources name; joins the caller's Ray session or starts one.

    Args:
        progress: Makes one progress row from its name and total.
    """
    started = time.monotonic()
    refuse_absent(config.sources)
    if not is_remote(config.output_dir):
        check_folder(Path(config.output_dir), "The dataset")
    vacuum(config.output_dir)
    with writing(config.output_dir, exclusive=True) as writer:
        with ExitStack() as stack:
            run = _Run(config, progress, writer, stack)
            inputs = RunInputs(config, run.known)
            for rows in _batches(inputs, run, config.sources_per_batch):
                # Read: hash, probe, find shots; a source each.
                sources = run.read(rows)

                # Near-duplicates: in the batch and against all footage before it. A batch is the
                # same whatever was finished before, so a run that goes on finds the same ones.
                run.mark_duplicates(sources)
                run.commit([source for source in sources if source["state"] is not None])

                # Cut, look, judge and shelve: one source becomes many clips, in workers that hold
                # the networks. Sources are committed when their last clips have come.
                pending = [source for source in sources if source["state"] is None]
                for done, clips in run.measure(pending):
                    run.commit(done, clips)
        renew_stale_verdicts(config.output_dir)
        merge_small_files(config.output_dir)
        publish(config.output_dir)
    return summarize(
        CurationDataset.open(config.output_dir),
        [*inputs.finished, *run.input_ids],
        policy=run.place.policies[0].name,
        num_new_sources=len(run.input_ids),
        seconds_by_stage=run.seconds,
        wall_s=time.monotonic() - started,
        left_out=inputs.left_out,
    )


@guarded("identify")
def _identify(row: Row, place: Workplace) -> Row:
    return identify(row, place.config.limits.max_file_bytes)


@guarded("probe")
def _probe(row: Row, place: Workplace) -> Row:
    return probe(row, place.config.limits)


@guarded("shots")
def _find_shots(row: Row, place: Workplace) -> Row:
    return find_shots(row, place.config.shots, place.config.limits)


@guarded("clips")
def _split(row: Row, place: Workplace) -> Row:
    return {**row, "clips": split_clips(row, place.config.clips)}


def read_source(row: Row, place: Workplace) -> Row:
    """Hash and probe a source and find its shots; its decoder is a bounded child process."""
    if (row.get("file_bytes") or 0) > place.config.limits.max_file_bytes:
        return _identify(row, place)  # an object that is not even fetched
    with local_copy(row["path"], Path(place.staging_dir)) as path:
        near = {**row, "path": str(path)}
        after = _find_shots(_probe(_identify(near, place), place), place)
    return {**after, "path": row["path"]}


class Measure:
    """Looks at, cuts, judges and shelves clips in one process, which loads the networks once."""

    def __init__(self, place: Workplace) -> None:
        from animaray.pipelines.curation.perception_worker import PerceptionWorker

        worker = PerceptionWorker.load(place.config, place.policies)
        self._look = guarded("measure", is_timed=False)(lambda row, _: worker(row))
        self._place = place

    def __call__(self, clips: Sequence[Row]) -> list[Row]:
        """Return the rows of clips that lie together in files from now on."""
        staging = self._place.staging_dir
        rows: list[Row] = []
        for source, together in itertools.groupby(clips, key=lambda clip: clip["path"]):
            with local_copy(source, Path(staging)) as path:
                near = {"path": str(path), "staging_dir": staging, "seconds": {}}
                rows += [self._look({**clip, **near}, self._place) for clip in together]
        return shelve(rows, self._place)


class _Run:
    """One run: what it knows, where its stages run, and what became of its sources."""

    def __init__(
        self, config: CurationConfig, progress: ProgressMaker, writer: Writer, stack: ExitStack
    ) -> None:
        self._config, self._progress, self._stack = config, progress, stack
        self.place = workplace_of(config, writer.token)
        self._committer = Committer(self.place, writer)
        self._workers: RayWorkers | None = None
        self._alone: Measure | None = None
        self._seen_s = 0.0
        self.input_ids: list[str] = []
        self.seconds: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()

        staging = staging_of(config)
        # A process that died alone may have died of a source: let workers die of it.
        self._needs_workers = staging.exists() or _has_session()
        clear_staging(staging)
        # Once the workers have ended, however the run ends; a killed one leaves it to the next.
        stack.callback(clear_staging, staging)
        self.known, self._footage = read_known(config)

    def read(self, rows: Sequence[Row]) -> list[Row]:
        """Hash, probe and find the shots of sources; return them sorted by name."""
        self._check(rows)
        # The largest first: what starts last keeps a single worker busy after all others.
        waiting = sorted(rows, key=_size, reverse=True)
        found: list[Row] = []
        with self._progress("read videos", len(rows)) as shown:
            for row in self._read(waiting):
                found.append(row)
                self.seconds.update(row["seconds"])
                self._tell(shown, row["file_name"], [row["reason"]])
        _require_all(rows, found)
        withdrawn = CommitLog(self._config.output_dir).snapshot().withdrawn
        found = [refuse_withdrawn(row, withdrawn) for row in found]
        return sorted(found, key=lambda row: row["uri"])

    def _read(self, rows: list[Row]) -> Iterator[Row]:
        """Read in this process while there is little footage, and by workers from then on."""
        limit_s = self._config.in_process_s
        is_little = sum(map(_size, rows)) <= limit_s * _MANY_BYTES_PER_S
        while rows and is_little and not self._needs_workers and self._seen_s <= limit_s:
            row = read_source(rows.pop(0), self.place)
            self._seen_s += row.get("duration_s") or 0.0
            yield row
        if rows:
            yield from self._ray().read(rows)

    def mark_duplicates(self, sources: Sequence[Row]) -> None:
        """End sources that show what another one shows."""
        new = [row for row in sources if row["state"] is None]
        found = find_duplicates(new, self._footage)
        for row in new:
            if row["input_id"] in found:
                source_id, kind = found[row["input_id"]]
                others = [r["uri"] for r in new if r["source_id"] == source_id and r is not row]
                name = others[0] if others else self._footage.uri_of(source_id)
                row |= {
                    "state": "duplicate",
                    "reason": f"{kind}_duplicate",
                    "detail": f"same footage as {name}",
                    "duplicate_of": source_id,
                }

    def measure(self, sources: Sequence[Row]) -> Iterator[tuple[list[Row], list[pa.Table]]]:
        """Split sources into clips and have them measured; yield sources that are complete."""
        if not sources:
            return
        longest = sorted(sources, key=lambda row: -(row["duration_s"] or 0.0))
        with self._progress("measure clips", len(sources)) as shown:
            split = [(source, _split({**source, "seconds": {}}, self.place)) for source in longest]
            done: list[Row] = []
            clips: list[list[Row]] = []
            for source, after in split:
                ended = after if after["state"] is not None else after["clips"][0]
                if ended["state"] is not None:
                    how = {name: ended[name] for name in ("state", "reason", "detail")}
                    done.append({**source, **how})
                    self._tell(shown, source["file_name"], [ended["reason"]])
                else:
                    clips.append(after["clips"])
            yield done, []
            yield from self._measure({row["input_id"]: row for row in longest}, clips, shown)

    def _measure(
        self, sources: Mapping[str, Row], clips: Sequence[Sequence[Row]], shown: StageProgress
    ) -> Iterator[tuple[list[Row], list[pa.Table]]]:
        """Have clips measured; yield complete sources, a few at a time."""
        bundles = deal_clips(clips, self._config.num_workers)
        waiting: dict[str, _Bundle] = {}
        for groups in bundles:
            ids = dict.fromkeys(clip["input_id"] for group in groups for clip in group)
            bundle = _Bundle([sources[name] for name in ids], sum(map(len, groups)))
            waiting |= dict.fromkeys(ids, bundle)
        done: list[Row] = []
        shelved: list[pa.Table] = []
        for table in self._shelved([group for groups in bundles for group in groups]):
            self._note(table)
            bundle = waiting[table["input_id"][0].as_py()]
            bundle.clips.append(table)
            bundle.num_missing -= len(table)
            if bundle.num_missing:
                continue
            done += bundle.sources
            shelved += bundle.clips
            for source in bundle.sources:
                waiting.pop(source["input_id"])
                self._tell(shown, source["file_name"], [])
            if len(done) >= self._config.sources_per_commit:
                yield done, shelved
                done, shelved = [], []
        yield done, shelved
        come = [row for name, row in sources.items() if name not in waiting]
        _require_all(list(sources.values()), come)

    def commit(self, sources: Sequence[Row], clips: Sequence[pa.Table] = ()) -> None:
        """Commit sources that have ended, with all their clips."""
        if not sources:
            return
        self.input_ids += [row["input_id"] for row in sources]
        for row in self._committer.commit(sources, clips):
            if has_footage(row):
                self._footage.add(row)

    def _shelved(self, groups: Sequence[Sequence[Row]]) -> Iterator[pa.Table]:
        """Measure and shelve groups of clips where this run works."""
        if (
            self._workers is None
            and not self._needs_workers
            and (self._seen_s <= self._config.in_process_s)
        ):
            if self._alone is None:
                self._alone = Measure(self.place)
            for group in groups:
                yield table_of(self._alone(group), SHELVED)
        elif groups:
            yield from self._ray().measure(groups)

    def _ray(self) -> "RayWorkers":
        """Return the workers of Ray, which start once and stay to the end of the run."""
        if self._workers is None:
            self._stack.enter_context(ray_session())
            from animaray.pipelines.curation.workers import RayWorkers

            self._workers = RayWorkers(self.place, read_source, Measure)
            self._stack.callback(self._workers.close)
        return self._workers

    def _check(self, rows: Sequence[Row]) -> None:
        """Stop the run before it starts where something is missing: weights, or room."""
        check_perception_files(self._config.profile, self._config.pose_layout)
        if self._config.text.looks_at(self._config.profile):
            find_networks()
        needed = _ROOM_PER_SOURCE_BYTE * sum(map(_size, rows)) + _LEAST_ROOM_BYTES
        store = open_store(self.place.address)
        store.check_room(needed, f"Curating the next {len(rows)} sources")

    def _note(self, clips: pa.Table) -> None:
        """Count the seconds of some clips, and what speaks against each first of all."""
        for row in rows_of(clips.select(["seconds", "verdicts"])):
            self.seconds.update(row["seconds"])
            self._reasons.update(row["verdicts"][0]["reason_codes"][:1])

    def _tell(self, shown: StageProgress, file_name: str, reasons: Sequence[str | None]) -> None:
        """Advance a row of progress; its note says what speaks against most inputs so far."""
        self._reasons.update(reason for reason in reasons if reason)
        most = ", ".join(f"{reason} {count}" for reason, count in self._reasons.most_common(4))
        shown.advance(1, f"{file_name} (dropped: {most})" if most else file_name)


@dataclass(slots=True)
class _Bundle:
    """Sources that are committed together."""

    sources: list[Row]
    num_missing: int
    """Clips that have not come."""
    clips: list[pa.Table] = field(default_factory=list)


def _has_session() -> bool:
    """Return whether workers are named or there already."""
    ray = sys.modules.get("ray")
    return bool(os.environ.get("RAY_ADDRESS")) or (ray is not None and ray.is_initialized())


def _size(row: Row) -> int:
    """Return the bytes of a source; 0 where nothing is there, which reading it will say."""
    if row.get("file_bytes") is not None:
        return int(row["file_bytes"])
    try:
        return Path(row["path"]).stat().st_size
    except OSError:
        return 0


def _require_all(rows: Sequence[Row], finished: Sequence[Row]) -> None:
    """Refuse to go on when the engine lost rows: every input must end in a state.

    Raises:
        DatasetError: Fewer rows came back than went in.
    """
    lost = {row["uri"] for row in rows} - {row["uri"] for row in finished}
    if lost:
        raise DatasetError(
            f"{len(lost)} of {len(rows)} sources did not come back, the first: {min(lost)}.",
            fix="Run the same command again; what is committed stays.",
            reason="lost",
        )


def _batches(inputs: RunInputs, run: _Run, size: int) -> Iterator[list[Row]]:
    """Yield inputs that are to be looked at, as they come; commit those that ended elsewhere."""
    for batch in itertools.chain(inputs.local(), inputs.remote()):
        run.commit(batch.ended)
        for start in range(0, len(batch.pending), size):
            yield batch.pending[start : start + size]
