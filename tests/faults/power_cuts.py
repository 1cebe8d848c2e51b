"""Cut the power at every call of the commit protocol and look what is left.

    sudo python -m tests.faults.power_cuts --seeds 3 --out report.json

A dataset is written, judged, withdrawn from, compacted and merged on a file system of its own; the
power goes just before call k, for every k, and after the last. Then the file system is mounted
again and a checker that shares no code with the product reads it: every acknowledged commit must be
there with all its bytes, at most the one under way may be there too, and whole; the product must
read it and go on. The same is done with planted defects, and each of them must be found.
"""

import argparse
import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from animaray.datasets.commit_log import Commit, CommitLog
from animaray.datasets.compaction import compact, merge_small_files
from animaray.datasets.reader import CurationDataset
from animaray.datasets.shards import write_media_shard
from animaray.datasets.vacuum import unnamed_files, vacuum
from animaray.datasets.writers import writing
from animaray.pipelines.policy.verdicts import reapply_policy
from animaray.platform import storage, stores
from animaray.platform.json_text import json_text
from animaray.platform.storage import write_json_atomic
from benchmarks.scale.score_tables import ScoreTables, write_score_dataset
from tests.faults.cut_disk import Disk, cut_before_call, small_disk

Plant = Callable[[], AbstractContextManager[None]]


@dataclass
class Life:
    """One dataset on the disk, and what its writer was told."""

    root: Path
    seed: int
    acknowledged: list[Commit] = field(default_factory=list)

    def live(self) -> None:
        """Go through everything that commits: append, media, verdicts, withdraw, compact, merge."""
        with self._noting():
            tables = ScoreTables(num_sources=2, sources_per_commit=1, seed=self.seed)
            write_score_dataset(self.root, tables)
            self._add_media()
            reapply_policy(self.root)
            sources = CurationDataset.open(self.root).sources()
            CommitLog(self.root).withdraw([sources[0]["source_id"]], "asked to")
            compact(self.root)
            write_score_dataset(self.root, ScoreTables(num_sources=1, seed=self.seed + 1000))
            merge_small_files(self.root, min_files=2)

    def _add_media(self) -> None:
        rng = np.random.default_rng(self.seed)
        with writing(self.root):
            videos = {f"clip{i}": rng.bytes(int(rng.integers(1, 60_000))) for i in range(2)}
            file, _ = write_media_shard(self.root, videos)
            CommitLog(self.root).commit([file], inputs=["media"])

    @contextmanager
    def _noting(self) -> Iterator[None]:
        real = CommitLog.commit

        def commit(log: CommitLog, *arguments: Any, **options: Any) -> Commit:
            done = real(log, *arguments, **options)
            self.acknowledged.append(done)
            return done

        with mock.patch.object(CommitLog, "commit", commit):
            yield


def look_at(life: Life) -> list[str]:
    """Return what is wrong with a dataset after a cut, reading it without the product's code."""
    folder = life.root / "_commits"
    entries = sorted(folder.glob("[0-9]*.json")) if folder.is_dir() else []
    problems: list[str] = []
    if len(entries) < len(life.acknowledged):
        problems.append(f"lost: {len(life.acknowledged) - len(entries)} acknowledged commits")
    if len(entries) > len(life.acknowledged) + 1:
        problems.append("more commits than were ever begun")
    parent = ""
    removed: set[str] = set()
    files: list[dict[str, Any]] = []
    for number, path in enumerate(entries, start=1):
        data = path.read_bytes()
        try:
            entry = json.loads(data)
        except ValueError:
            return [*problems, f"torn: entry {number} is no JSON"]
        if (path.name, entry["version"], entry["parent"]) != (f"{number:08d}.json", number, parent):
            problems.append(f"history: entry {number} does not follow the one before")
        if number <= len(life.acknowledged):
            told = life.acknowledged[number - 1]
            if [file["path"] for file in entry["files"]] != [file.path for file in told.files]:
                problems.append(f"history: entry {number} is another than the acknowledged one")
        parent = hashlib.sha256(data).hexdigest()
        removed |= set(entry["removed"])
        files += entry["files"]
    for file in files:
        if file["path"] not in removed or (life.root / file["path"]).exists():
            problems += _look_at_file(life.root / file["path"], file)
    return problems


def _look_at_file(path: Path, file: dict[str, Any]) -> list[str]:
    if not path.is_file():
        return [f"half: {file['path']} is named and missing"]
    data = path.read_bytes()
    if len(data) == file["size_bytes"] and hashlib.sha256(data).hexdigest() == file["sha256"]:
        return []
    return [f"half: {file['path']} has {len(data)} of {file['size_bytes']} bytes, or other ones"]


def go_on(life: Life) -> list[str]:
    """Let the product read the dataset, sweep it and commit again; return what is wrong."""
    try:
        if CommitLog(life.root).head():
            for row in CurationDataset.open(life.root).sources():
                assert row["state"] == "kept"
        problems = CommitLog(life.root).verify()
        life.root.mkdir(exist_ok=True)
        vacuum(life.root)
        write_score_dataset(life.root, ScoreTables(num_sources=1, seed=life.seed + 2000))
        problems += CommitLog(life.root).verify()
        return problems + [f"left: {path}" for path in unnamed_files(life.root)]
    except Exception as error:  # noqa: BLE001 - any is a finding
        return [f"reader: {type(error).__name__}: {error}"]


def cut_at_every_call(
    disk: Disk, *, seed: int, step: int = 1, first: int = 1, defect: Plant | None = None
) -> dict[str, Any]:
    """Cut the power before every step-th call of one life, and after its last.

    Args:
        disk: Where the dataset lies.
        seed: Of the dataset.
        step: Calls between two cuts.
        first: Call of the first cut.
        defect: What to break in the product.

    Returns:
        Points, commits that were acknowledged in all, calls by name, and problems by kind.
    """
    calls: Counter[str] = Counter()
    problems: list[dict[str, Any]] = []
    num_acknowledged = num_points = 0
    number = first
    is_done = False
    while not is_done:
        life = Life(disk.mount_point / f"life{number}", seed)
        os.sync()
        with defect() if defect else nullcontext():
            call = cut_before_call(disk, number, life.live)
        is_done = call is None
        if is_done:
            disk.cut_power()
        disk.start_again()
        num_points += 1
        num_acknowledged += len(life.acknowledged)
        calls[call or "end"] += 1
        found = look_at(life)
        found += [] if found or defect else go_on(life)
        problems += [{"seed": seed, "call": number, "name": call, "problem": p} for p in found]
        _clear(disk)
        number += step
    return {
        "points": num_points, "acknowledged": num_acknowledged, "calls": dict(calls),
        "points_with_problems": len({problem["call"] for problem in problems}),
        "problems": problems,
    }  # fmt: skip


def _clear(disk: Disk) -> None:
    for path in disk.mount_point.glob("life*"):
        shutil.rmtree(path)


@contextmanager
def no_folder_sync() -> Iterator[None]:
    """Plant: names in folders are not synced."""
    with (
        mock.patch.object(storage, "sync_folder"),
        mock.patch.object(stores, "sync_folder"),
    ):
        yield


@contextmanager
def no_file_sync() -> Iterator[None]:
    """Plant: the bytes of files are not synced, folders are."""
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            real(descriptor)

    with mock.patch.object(os, "fsync", fsync):
        yield


@contextmanager
def entry_before_data() -> Iterator[None]:
    """Plant: files are written to the disk only after the entry that names them."""
    pending: list[tuple[Path, bytes]] = []
    real_commit, real_write = CommitLog.commit, storage.write_bytes_atomic

    def commit(log: CommitLog, *arguments: Any, **options: Any) -> Commit:
        for path, _ in pending:
            path.parent.mkdir(parents=True, exist_ok=True)
        done = real_commit(log, *arguments, **options)
        while pending:
            real_write(*pending.pop())
        return done

    def write(path: Path, data: bytes) -> None:
        pending.append((path, data))

    with (
        mock.patch.object(CommitLog, "commit", commit),
        mock.patch.object(stores, "write_bytes_atomic", write),
    ):
        yield


DEFECTS: dict[str, Plant] = {
    "no folder sync": no_folder_sync,
    "no file sync": no_file_sync,
    "entry before data": entry_before_data,
}


def main() -> int:
    """Run the cuts; 0 when the product lost nothing and every planted defect was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="Lives, each cut at every call")
    parser.add_argument("--defect-step", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("power_cuts.json"))
    arguments = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, small_disk(Path(folder)) as disk:
        Life(disk.mount_point / "warm", 0).live()  # imports happen before anything is counted
        runs = [cut_at_every_call(disk, seed=seed) for seed in range(arguments.seeds)]
        planted = {
            name: cut_at_every_call(disk, seed=0, step=arguments.defect_step, defect=plant)
            for name, plant in DEFECTS.items()
        }
    calls = sum((Counter(run["calls"]) for run in runs), Counter())
    report = {
        "points": sum(run["points"] for run in runs),
        "acknowledged_commits": sum(run["acknowledged"] for run in runs),
        "calls": dict(calls.most_common()),
        "problems": [problem for run in runs for problem in run["problems"]],
        "planted": {
            name: {
                "points": run["points"], "found_at": run["points_with_problems"],
                "first": run["problems"][0]["problem"] if run["problems"] else None,
            }
            for name, run in planted.items()
        },
        "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip
    write_json_atomic(arguments.out, report)
    print(json_text(report, indent=2))
    is_found = all(run["problems"] for run in planted.values())
    return 0 if not report["problems"] and is_found else 1


if __name__ == "__main__":
    sys.exit(main())
