"""Turn a folder of videos into a curated dataset: `curate`, and `reapply_policy` without models.

    acquire -> probe -> shots -> (duplicates) -> clips -> encode -> picture -> faces -> pose
            -> camera -> motion -> verdict -> commit

Every input ends in exactly one state (kept, dropped, unreadable, duplicate, failed) with a reason.
Running again goes on where the run before stopped: finished files are left out before they are
read, and each commit holds whole sources.
"""

import fcntl
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from animaray.datasets.commit_log import CommitLog
from animaray.datasets.compaction import merge_small_files
from animaray.datasets.reader import CurationDataset
from animaray.pipelines.curation_commit import BatchCommitter
from animaray.pipelines.curation_config import CurationConfig
from animaray.pipelines.curation_summary import CurationSummary, summarize
from animaray.pipelines.policies import find_policy
from animaray.pipelines.stage_runner import Row, new_row
from animaray.pipelines.stages.acquire import is_unchanged, list_inputs
from animaray.pipelines.stages.duplicates import find_duplicates
from animaray.pipelines.verdicts import reapply_policy, renew_stale_verdicts
from animaray.platform.errors import DatasetError
from animaray.platform.progress import StageProgress, stage_progress
from animaray.platform.ray_session import ray_session

__all__ = ["CurationConfig", "CurationSummary", "curate", "reapply_policy"]

STAGING_DIR = "_staging"
_LOCK_FILE = "_lock"

ProgressMaker = Callable[[str, int | None], StageProgress]


def curate(config: CurationConfig, progress: ProgressMaker = stage_progress) -> CurationSummary:
    """Curate every video below a folder; joins the caller's Ray session or starts one.

    Args:
        config: What, how and where.
        progress: Makes one progress row from its name and total.
    """
    started = time.monotonic()
    paths = list_inputs(config.input_dir, limit=config.limit)
    with _only_writer(config.output_dir):
        staging = config.output_dir / STAGING_DIR
        shutil.rmtree(staging, ignore_errors=True)
        finished, pending = _without_finished(paths, config)
        run = _Run(config, progress)
        if pending:
            _check_profile(config.profile)
            with ray_session():
                for wave in _waves(pending, config.sources_per_wave):
                    run.curate_wave(wave)
        shutil.rmtree(staging, ignore_errors=True)
        renew_stale_verdicts(config.output_dir)
        merge_small_files(config.output_dir)
    return summarize(
        CurationDataset.open(config.output_dir),
        [*finished, *run.input_ids],
        policy=find_policy(config.policy).name,
        num_new_sources=len(run.input_ids),
        seconds_by_stage=run.seconds,
        wall_s=time.monotonic() - started,
    )


class _Run:
    """One run's progress through its waves of sources."""

    def __init__(self, config: CurationConfig, progress: ProgressMaker) -> None:
        self._config = config
        self._progress = progress
        self._committer = BatchCommitter(config)
        self.input_ids: list[str] = []
        self.seconds: Counter[str] = Counter()

    def curate_wave(self, paths: Sequence[Path]) -> None:
        """Curate some sources whose near-duplicates are looked for together."""
        from animaray.pipelines.curation_chain import scan_sources

        rows = [new_row(str(path), str(self._config.input_dir)) for path in paths]
        scanned: list[Row] = []
        with self._progress("read videos", len(rows)) as shown:
            for row in scan_sources(rows, self._config):
                scanned.append(row)
                shown.advance(1, row["file_name"])
        scanned.sort(key=lambda row: row["uri"])
        for row in scanned:
            self.seconds.update(row["seconds"])
        self.input_ids += [row["input_id"] for row in scanned]
        self._mark_duplicates(scanned)
        ended = {row["input_id"]: row for row in scanned if row["state"] is not None}
        if ended:
            self._committer.commit(ended, [])
        pending = {row["input_id"]: row for row in scanned if row["state"] is None}
        if pending:
            self._measure(pending)

    def _mark_duplicates(self, scanned: Sequence[Row]) -> None:
        known = []
        if CommitLog(self._config.output_dir).head():
            known = [
                row
                for row in CurationDataset.open(self._config.output_dir).sources()
                if row["state"] in {"kept", "dropped"} and row["hashes"] is not None
            ]
        new = [row for row in scanned if row["state"] is None]
        # A file that failed before and is tried again is no duplicate of itself.
        new_ids = {row["input_id"] for row in new}
        known = [row for row in known if row["input_id"] not in new_ids]
        found = find_duplicates(new, known, self._config.duplicates)
        names = {row["source_id"]: row["uri"] for row in [*known, *new]}
        for row in new:
            if row["input_id"] in found:
                source_id, kind = found[row["input_id"]]
                others = [r["uri"] for r in new if r["source_id"] == source_id and r is not row]
                name = others[0] if others else names[source_id]
                row |= {
                    "state": "duplicate",
                    "reason": f"{kind}_duplicate",
                    "detail": f"same footage as {name}",
                    "duplicate_of": source_id,
                }

    def _measure(self, sources: dict[str, Row]) -> None:
        """Measure clips and commit a batch whenever enough sources are complete."""
        from animaray.pipelines.curation_chain import measure_clips

        staging = str((self._config.output_dir / STAGING_DIR).resolve())
        rows = [{**row, "staging_dir": staging, "seconds": {}} for row in sources.values()]
        clips: dict[str, list[Row]] = {}
        complete: dict[str, Row] = {}
        with self._progress("look at clips", len(rows)) as shown:
            for clip in measure_clips(rows, self._config):
                self.seconds.update(clip["seconds"])
                input_id = clip["input_id"]
                clips.setdefault(input_id, []).append(clip)
                if len(clips[input_id]) < clip["num_clips"]:
                    continue
                complete[input_id] = sources[input_id]
                shown.advance(1, clip["file_name"])
                if len(complete) >= self._config.sources_per_commit:
                    self._commit(complete, clips)
            self._commit(complete, clips)

    def _commit(self, complete: dict[str, Row], clips: dict[str, list[Row]]) -> None:
        if complete:
            self._committer.commit(complete, [c for i in complete for c in clips.pop(i)])
            complete.clear()


def _without_finished(
    paths: Sequence[Path], config: CurationConfig
) -> tuple[list[str], list[Path]]:
    """Split files into input ids that are finished and files to look at, reading none of them."""
    if CommitLog(config.output_dir).head() == 0:
        return [], list(paths)
    done: dict[str, dict[tuple[int, int], str]] = {}
    for row in CurationDataset.open(config.output_dir).sources():
        if not (config.retry_failed and row["state"] == "failed") and row["file_bytes"] is not None:
            key = (row["file_bytes"], row["modified_ns"])
            done.setdefault(row["uri"], {})[key] = row["input_id"]
    finished, pending = [], []
    for path in paths:
        known = done.get(path.relative_to(config.input_dir).as_posix(), {})
        match = is_unchanged(path, known)
        if match is None:
            pending.append(path)
        else:
            finished.append(match)
    return finished, pending


def _waves(paths: Sequence[Path], size: int) -> Iterator[Sequence[Path]]:
    for start in range(0, len(paths), size):
        yield paths[start : start + size]


def _check_profile(profile: str) -> None:
    """Load the networks once here: what is missing stops the run before it starts."""
    from animaray.models.frozen.profiles import load_perception

    load_perception(profile)


@contextmanager
def _only_writer(root: Path) -> Iterator[Any]:
    """Hold the folder's lock; the system releases it if this process dies.

    Raises:
        DatasetError: Another process curates into the folder.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / _LOCK_FILE).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DatasetError(
                f"Another process is curating into {root}.",
                fix="Wait for it, or choose another --out.",
                reason="locked",
            ) from error
        yield
