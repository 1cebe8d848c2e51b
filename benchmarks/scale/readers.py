"""Measure reading a dataset at several sizes: opening, look-ups, policies, checks, card, poses.

    python -m benchmarks.scale.readers --clips 10000 100000 1000000 --out /tmp/readers

Each measurement runs in a process of its own, so that its peak of memory is its own; the system's
file cache is warm. `plain` is what readers did before 2026-12-01, written out in `PlainReader`, and
measured on a sample of clips in the same process as the new way: its seconds for all clips are the
sample's times the number of clips.
"""

import argparse
import json
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from animaray.datasets.reader import CurationDataset, tracks_of_row
from animaray.models.pose.layouts import VISIBLE_CONFIDENCE
from animaray.pipelines.policy.policies import LAX, STANDARD
from animaray.pipelines.policy.tuning import tune
from animaray.pipelines.policy.verdicts import reapply_policy, renew_stale_verdicts
from animaray.pipelines.reports.card import dataset_card
from animaray.pipelines.reports.show import show_clip, show_dataset, show_why
from animaray.pipelines.reports.validation import validate
from animaray.platform.json_text import json_text
from benchmarks.scale.many_clips import ManyClips, write_many_clips

_LOOKUPS = 300
_SAMPLE = 200
Result = dict[str, Any]


class PlainReader:
    """Tracks of single clips as they were read before: all ids first, then a file for each row."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._dataset = CurationDataset.open(root)
        self._places: dict[str, tuple[str, int]] = {}

    def index(self, num_files: int) -> int:
        """Read the ids of each row group of some files of tracks; return the clips found."""
        for file in self._dataset.snapshot.of_table("tracks")[:num_files]:
            parquet = pq.ParquetFile(self._root / file.path, page_checksum_verification=True)
            for group in range(parquet.num_row_groups):
                ids = parquet.read_row_group(group, columns=["clip_id"])["clip_id"]
                for found in ids.to_pylist():
                    self._places[found] = (file.path, group)
        return len(self._places)

    def read_poses(self, clips: Sequence[dict[str, Any]]) -> int:
        """Read the usable keypoints of clips; return how many frames have some."""
        frames = 0
        for clip in clips:
            path, group = self._places[clip["clip_id"]]
            with pq.ParquetFile(self._root / path) as parquet:
                rows = parquet.read_row_group(group).to_pylist()
            row = next(row for row in rows if row["clip_id"] == clip["clip_id"])
            tracks = tracks_of_row(row)
            is_usable = (tracks.keypoint_confidence >= VISIBLE_CONFIDENCE).sum(axis=1) >= 4
            frames += len(tracks.keypoints[is_usable] / float(clip["height"]))
        return frames


def measure_open(root: Path) -> Result:
    """Open a dataset and read one clip: its row, its tracks, its video."""
    (clip_id,) = _some_clips(root, 1)
    started = time.perf_counter()
    dataset = CurationDataset.open(root)
    result = {"log_s": time.perf_counter() - started}
    dataset.clip(clip_id)
    result["first_row_s"] = time.perf_counter() - started
    dataset.tracks(clip_id)
    dataset.media_bytes(clip_id)
    return {**result, "with_tracks_and_video_s": time.perf_counter() - started}


def measure_lookups(root: Path) -> Result:
    """Look clips up at random, one call each."""
    dataset = CurationDataset.open(root)
    clip_ids = _some_clips(root, _LOOKUPS)
    calls: dict[str, Callable[[str], object]] = {
        "find": lambda clip_id: dataset.has_row("tracks", clip_id),
        "clip": dataset.clip,
        "tracks": dataset.tracks,
        "video": dataset.media_bytes,
    }
    result = {}
    for name, call in calls.items():
        call(clip_ids[0])
        started = time.perf_counter()
        for clip_id in clip_ids[1:]:
            call(clip_id)
        result[f"{name}_ms"] = 1e3 * (time.perf_counter() - started) / (len(clip_ids) - 1)
    started = time.perf_counter()
    result["kept_clips"] = len(dataset.clip_ids("lax"))
    return {**result, "kept_clips_s": time.perf_counter() - started}


def measure_poses(root: Path) -> Result:
    """Read the poses of all kept clips in one pass, and of a sample one by one."""
    from animaray.training.aligner_pairs import read_pose_clips

    dataset = CurationDataset.open(root)
    started = time.perf_counter()
    found = read_pose_clips(dataset, "lax")
    ours_s = time.perf_counter() - started
    plain = PlainReader(root)
    files = dataset.snapshot.of_table("tracks")
    num_clips = sum(file.rows for file in files)
    started = time.perf_counter()
    indexed = plain.index(max(1, len(files) // 20))
    index_s = (time.perf_counter() - started) * num_clips / indexed
    wanted = sorted(plain._places)  # noqa: SLF001 - our own, below
    sample = [dataset.clip(clip_id) for clip_id in random.Random(0).sample(wanted, _SAMPLE)]  # noqa: S311
    started = time.perf_counter()
    plain.read_poses(sample)
    read_s = (time.perf_counter() - started) * len(found.length) / len(sample)
    # All clips and their verdicts were held as Python rows, too.
    part = dataset.table("clips").slice(0, 10_000)
    started = time.perf_counter()
    part.to_pylist()
    rows_s = (time.perf_counter() - started) * num_clips / len(part)
    plain_s = index_s + read_s + rows_s
    return {
        "clips": len(found.length), "poses": len(found.keypoints), "ours_s": ours_s,
        "plain_index_s": index_s, "plain_read_s": read_s, "plain_rows_s": rows_s,
        "plain_s": plain_s, "times_faster": plain_s / ours_s,
    }  # fmt: skip


def measure_policies(root: Path) -> Result:
    """Judge all clips anew, look for stale verdicts, draw a tuning curve."""
    result: Result = {}
    for policy in (LAX, STANDARD):
        result[f"{policy.name}_s"], result[f"{policy.name}_kept"] = _timed(reapply_policy)(
            root, policy
        )
    result["peak_after_verdicts_mib"] = _peak_mib()
    result["renew_stale_s"], _ = _timed(renew_stale_verdicts)(root)
    result["tune_s"], _ = _timed(tune)(root, "max_drift", STANDARD)
    return result


def measure_validate(root: Path) -> Result:
    """Check every promise but the frames of the videos."""
    seconds, found = _timed(validate)(root, decode=False)
    return {"seconds": seconds, "problems": len(found.problems)}


def measure_card(root: Path) -> Result:
    """Gather the card."""
    return {"seconds": _timed(dataset_card)(root, "lax")[0]}


def measure_show(root: Path) -> Result:
    """Show the dataset, and why one clip went or stayed, from opening on."""
    (clip_id,) = _some_clips(root, 1)
    dataset_s, _ = _timed(lambda: show_dataset(CurationDataset.open(root)))()
    why_s, _ = _timed(lambda: show_why(CurationDataset.open(root), clip_id))()
    clip_s, _ = _timed(lambda: show_clip(CurationDataset.open(root), clip_id))()
    return {"dataset_s": dataset_s, "why_s": why_s, "clip_s": clip_s}


MEASURES = {
    "policies": measure_policies, "open": measure_open, "lookups": measure_lookups,
    "show": measure_show, "card": measure_card, "validate": measure_validate,
    "poses": measure_poses,
}  # fmt: skip


def _some_clips(root: Path, count: int) -> list[str]:
    """Return clips at random, from one file of tracks in many, so that nothing else is read."""
    chosen = random.Random(1)  # noqa: S311 - not for secrets
    files = CurationDataset.open(root).snapshot.of_table("tracks")
    found = []
    for file in chosen.choices(files, k=count):
        ids = pq.read_table(root / file.path, columns=["clip_id"])["clip_id"]
        found.append(ids[chosen.randrange(len(ids))].as_py())
    return found


def _timed(call: Callable[..., Any]) -> Callable[..., tuple[float, Any]]:
    def run(*arguments: object, **more: object) -> tuple[float, Any]:
        started = time.perf_counter()
        found = call(*arguments, **more)
        return time.perf_counter() - started, found

    return run


def _peak_mib() -> int:
    """Return the most memory of this process; `ru_maxrss` would begin with its parent's."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) // 1024  # type: ignore[index]


def _rounded(value: object) -> object:
    return (
        float(np.format_float_positional(value, 3, fractional=False))
        if isinstance(value, float)
        else value
    )


def main() -> None:
    """Print one JSON object for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, nargs="+", default=[10_000])
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--measures", nargs="+", default=list(MEASURES), choices=MEASURES)
    parser.add_argument("--out", type=Path, default=Path("readers"))
    parser.add_argument("--keep", action="store_true", help="Keep the datasets, and take them")
    parser.add_argument("--one", choices=MEASURES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        result = MEASURES[arguments.one](arguments.out)
        print(json_text({**result, "peak_mib": _peak_mib()}))
        return
    for num_clips in arguments.clips:
        root = arguments.out / str(num_clips)
        result = {"clips": num_clips}
        if not (root / "_commits").is_dir():
            size = ManyClips(num_clips=num_clips, num_frames=arguments.frames)
            result["write_s"], _ = _timed(write_many_clips)(root, size)
        for name in arguments.measures:
            command = [sys.executable, "-m", __spec__.name, "--out", str(root), "--one", name]
            done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
            found = json.loads(done.stdout.splitlines()[-1])
            result[name] = {key: _rounded(value) for key, value in found.items()}
            print(json_text({num_clips: {name: result[name]}}), file=sys.stderr)
        print(json_text(result, indent=1))
        if not arguments.keep:
            shutil.rmtree(root)


if __name__ == "__main__":
    main()
