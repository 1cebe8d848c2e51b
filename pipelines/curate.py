"""Turn videos, wherever they are, into a curated dataset: `curate`; judge again without models.

    acquire -> probe -> shots -> (duplicates) -> clips -> encode -> picture -> faces -> pose
            -> camera -> motion -> verdict -> commit

Every input ends in exactly one state (datasets.schemas.SOURCE_STATES) with a reason.
Running again goes on where the run before stopped: finished files are left out before they are
read, and each commit holds whole sources.
"""

import itertools
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from animaray.datasets.commit_log import CommitLog
from animaray.datasets.compaction import merge_small_files
from animaray.datasets.publication import publish
from animaray.datasets.reader import CurationDataset
from animaray.datasets.vacuum import vacuum
from animaray.datasets.writers import writing
from animaray.models.perception.files import check_perception_files
from animaray.models.perception.permissive.rapid_ocr import find_networks
from animaray.pipelines.acquire.inputs import refuse_absent
from animaray.pipelines.curation.commit import BatchCommitter
from animaray.pipelines.curation.config import CurationConfig
from animaray.pipelines.curation.inputs import RunInputs
from animaray.pipelines.curation.stage_runner import Row
from animaray.pipelines.curation.summary import CurationSummary, summarize
from animaray.pipelines.policy.policies import find_policy
from animaray.pipelines.policy.verdicts import reapply_policy, renew_stale_verdicts
from animaray.pipelines.stages.duplicates import find_duplicates
from animaray.pipelines.stages.identify import refuse_withdrawn
from animaray.platform.disk import check_folder, check_room
from animaray.platform.errors import DatasetError
from animaray.platform.progress import StageProgress, stage_progress
from animaray.platform.ray_session import ray_session
from animaray.platform.removal import remove_own

__all__ = ["CurationConfig", "CurationSummary", "curate", "reapply_policy"]

STAGING_DIR = "_staging"
_STAGED_RUN = re.compile(r"[0-9a-f]{8}")

_ROOM_PER_SOURCE_BYTE = 2
"""Clips are about as large as their source: once in the staging folder, once in the tables."""
_LEAST_ROOM_BYTES = 8 * 1024**2
"""For tracks, previews and the log of few small sources."""

ProgressMaker = Callable[[str, int | None], StageProgress]


def curate(config: CurationConfig, progress: ProgressMaker = stage_progress) -> CurationSummary:
    """Curate every video that some sources name; joins the caller's Ray session or starts one.

    Args:
        progress: Makes one progress row from its name and total.
    """
    started = time.monotonic()
    refuse_absent(config.sources)
    check_folder(config.output_dir, "The dataset")
    vacuum(config.output_dir)
    with writing(config.output_dir, exclusive=True):
        staging = config.output_dir / STAGING_DIR
        _clear_staging(staging)
        known = _known_sources(config.output_dir)
        inputs = RunInputs(config, known)
        # A folder of its own: workers of a killed run may still write for a moment.
        run = _Run(config, progress, staging / secrets.token_hex(4), known)
        with ExitStack() as stack:
            # Once the workers have ended, however the run ends; a killed one leaves it to the next.
            stack.callback(_clear_staging, staging)
            for batch in itertools.chain(inputs.local(), inputs.remote()):
                run.end(batch.ended)
                if batch.pending and not run.is_ready:
                    _check_networks(config)
                    stack.enter_context(ray_session())
                    run.is_ready = True
                for part in _parts(batch.pending, config.sources_per_batch):
                    run.curate_batch(part)
        renew_stale_verdicts(config.output_dir)
        merge_small_files(config.output_dir)
        publish(config.output_dir)
    return summarize(
        CurationDataset.open(config.output_dir),
        [*inputs.finished, *run.input_ids],
        policy=find_policy(config.policy).name,
        num_new_sources=len(run.input_ids),
        seconds_by_stage=run.seconds,
        wall_s=time.monotonic() - started,
        left_out=inputs.left_out,
    )


class _Run:
    """One run's progress through its batches of sources."""

    def __init__(
        self,
        config: CurationConfig,
        progress: ProgressMaker,
        staging: Path,
        known: Sequence[Mapping[str, Any]],
    ) -> None:
        self._config = config
        self._progress = progress
        self._staging = str(staging.resolve())
        self._committer = BatchCommitter(config)
        self.input_ids: list[str] = []
        self.seconds: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        # What new footage may repeat. Reading it from the tables for each batch would cost more
        # with each batch.
        self._footage = [_footage(row) for row in known if _has_footage(row)]
        self.is_ready = False
        """Whether the networks are known to load and Ray is there."""

    def end(self, rows: Sequence[Row]) -> None:
        """Commit inputs that ended before anybody could look at them."""
        self.input_ids += [row["input_id"] for row in rows]
        if rows:
            self._committer.commit({row["input_id"]: row for row in rows}, [])

    def curate_batch(self, rows: Sequence[Row]) -> None:
        """Curate some sources whose near-duplicates are looked for together."""
        from animaray.pipelines.curation.chain import scan_sources

        needed = _ROOM_PER_SOURCE_BYTE * sum(_size(row) for row in rows) + _LEAST_ROOM_BYTES
        check_room(self._config.output_dir, needed, f"Curating the next {len(rows)} sources")

        # The largest first: what starts last keeps a single worker busy after all others.
        rows = [
            {**row, "staging_dir": self._staging} for row in sorted(rows, key=_size, reverse=True)
        ]
        scanned: list[Row] = []
        with self._progress("read videos", len(rows)) as shown:
            for row in scan_sources(rows, self._config):
                scanned.append(row)
                self._tell(shown, row["file_name"], [row["reason"]])
        _require_all(rows, scanned)
        withdrawn = CommitLog(self._config.output_dir).snapshot().withdrawn
        scanned = [refuse_withdrawn(row, withdrawn) for row in scanned]
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
        new = [row for row in scanned if row["state"] is None]
        # A file that failed before and is tried again is no duplicate of itself.
        new_ids = {row["input_id"] for row in new}
        known = [row for row in self._footage if row["input_id"] not in new_ids]
        found = find_duplicates(new, known, self._config.duplicates)
        names = {row["source_id"]: row["uri"] for row in [*new, *known]}
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
        from animaray.pipelines.curation.chain import measure_clips

        longest = sorted(sources.values(), key=lambda row: -(row["duration_s"] or 0.0))
        rows = [{**row, "seconds": {}} for row in longest]
        clips: dict[str, list[Row]] = {}
        complete: dict[str, Row] = {}
        finished: list[Row] = []
        with self._progress("measure clips", len(rows)) as shown:
            for clip in measure_clips(rows, self._config):
                self.seconds.update(clip["seconds"])
                input_id = clip["input_id"]
                clips.setdefault(input_id, []).append(clip)
                if len(clips[input_id]) < clip["num_clips"]:
                    continue
                complete[input_id] = sources[input_id]
                finished.append(sources[input_id])
                reasons: list[str | None] = []
                if len(complete) >= self._config.sources_per_commit:
                    reasons = self._commit(complete, clips)
                self._tell(shown, clip["file_name"], reasons)
            self._commit(complete, clips)
        _require_all(rows, finished)

    def _commit(self, complete: dict[str, Row], clips: dict[str, list[Row]]) -> list[str | None]:
        """Commit complete sources; return the first reason against each of their clips."""
        if not complete:
            return []
        rows = [clip for input_id in complete for clip in clips.pop(input_id)]
        committed, judged = self._committer.commit(complete, rows)
        self._footage += [_footage(row) for row in committed if _has_footage(row)]
        complete.clear()
        verdicts = [clip["verdicts"][find_policy(self._config.policy).name] for clip in judged]
        ended = [clip["reason"] for clip in rows if clip["clip_id"] is None]
        return [*ended, *(verdict.codes[0] if verdict.codes else None for verdict in verdicts)]

    def _tell(self, shown: StageProgress, file_name: str, reasons: Sequence[str | None]) -> None:
        """Advance a row of progress; its note says what speaks against most inputs so far."""
        self._reasons.update(reason for reason in reasons if reason)
        most = ", ".join(f"{reason} {count}" for reason, count in self._reasons.most_common(4))
        shown.advance(1, f"{file_name} (dropped: {most})" if most else file_name)


def _clear_staging(staging: Path) -> None:
    """Remove what runs left in the staging folder, and the folder when nothing else is in it."""
    remove_own(staging, _STAGED_RUN, "a run of `curate` has ended")
    with suppress(OSError):
        staging.rmdir()


def _known_sources(root: Path) -> list[dict[str, Any]]:
    return CurationDataset.open(root).sources() if CommitLog(root).head() else []


def _size(row: Row) -> int:
    """Return the bytes of a source; 0 where nothing is there, which reading it will say."""
    try:
        return Path(row["path"]).stat().st_size
    except OSError:
        return 0


def _has_footage(row: Mapping[str, Any]) -> bool:
    """Return whether a row of the sources table tells what can be seen in the source."""
    return row["state"] in {"kept", "dropped"} and row["hashes"] is not None


def _footage(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is needed to recognise a source."""
    names = ("input_id", "source_id", "uri", "width", "height", "duration_s", "hashes",
             "motion_signature")  # fmt: skip
    return {name: row[name] for name in names}


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


def _parts(rows: Sequence[Row], size: int) -> Iterator[Sequence[Row]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _check_networks(config: CurationConfig) -> None:
    """Load the networks once here: what is missing stops the run before it starts."""
    check_perception_files(config.profile, config.pose_layout)  # before torch is imported
    if config.text.looks_at(config.profile):
        find_networks()
    from animaray.models.perception.profiles import load_perception, load_point_tracker

    load_perception(config.profile, pose_layout=config.pose_layout)
    load_point_tracker(config.profile)
