"""Show that curating many inputs takes bounded memory and a flat time per input.

    python -m benchmarks.scale.curation_scale --metadata 10000 --real 1000 --out /tmp/scale

Two runs of the real `curate`, each in a process of its own:

- `--metadata N` inputs of one second, of which a tenth are duplicates and a tenth unreadable.
  Rows stand for the decoders and networks; listing, hashing, duplicate search, verdicts, tables,
  fsyncs, commits, merging and the summary are the real ones.
- `--real N` tiny files through the whole chain, Ray Data included: texts and empty files, videos
  too short for a clip, exact copies, and every tenth a video of one second without anybody.

Wall and CPU milliseconds per input are given for each tenth of the run, with the driver's memory;
then the time of new verdicts on the result, and of a second run that finds everything done.
"""

import argparse
import itertools
import json
import math
import os
import resource
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from animaray.datasets.schemas import FAMILIES, SCORES
from animaray.pipelines.curation.config import CurationConfig
from animaray.platform.json_text import json_text
from animaray.platform.media.video import encode_mp4
from animaray.platform.progress import StageProgress
from benchmarks.scale.process_tree import run_measured

Row = dict[str, Any]
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def main() -> int:
    """Print one JSON object.

    Raises:
        SystemExit: A part failed.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--metadata", type=int, default=10_000)
    parser.add_argument("--real", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("curation_scale"))
    parser.add_argument("--part", choices=("metadata", "real"), help="run it in this process")
    arguments = parser.parse_args()
    if arguments.part is not None:
        print(json_text(_run_part(arguments)))
        return 0
    shutil.rmtree(arguments.out, ignore_errors=True)
    result: dict[str, Any] = {}
    for part in ("metadata", "real"):
        if getattr(arguments, part) < 10:
            continue
        command = [
            sys.executable, "-m", "benchmarks.scale.curation_scale",
            "--part", part, f"--{part}", str(getattr(arguments, part)),
            "--out", str(arguments.out / part), "--workers", str(arguments.workers),
        ]  # fmt: skip
        use = run_measured(command, {"OMP_NUM_THREADS": "1"})
        if use.exit_code != 0:
            raise SystemExit(f"{part} ended with {use.exit_code}: {use.output[-500:]}")
        result[part] = {
            **json.loads(use.output.splitlines()[-1]),
            "whole_tree": {
                "wall_s": round(use.wall_s, 1),
                "cpu_s": round(use.cpu_s, 1),
                "peak_private_mib": round(use.peak_mib),
                "largest_child_mib_by_tenth": [round(each) for each in use.child_mib],
                "others_share": round(use.others_cpu_share, 2),
            },
        }
    print(json_text(result, indent=1))
    return 0


def _run_part(arguments: argparse.Namespace) -> dict[str, Any]:
    from animaray.pipelines.curate import curate
    from animaray.pipelines.policy.policies import STANDARD
    from animaray.pipelines.policy.verdicts import reapply_policy

    is_real = arguments.part == "real"
    count = arguments.real if is_real else arguments.metadata
    videos = arguments.out / "videos"
    write_inputs(videos, count, is_real=is_real)
    config = CurationConfig(
        sources=(str(videos),),
        output_dir=arguments.out / "dataset",
        profile="generated",
        num_workers=arguments.workers,
        in_process_s=0.0 if is_real else math.inf,
        # At least ten batches, so that tenths of the run are comparable.
        sources_per_batch=min(500, max(1, count // 10)),
    )
    if not is_real:
        stand_in(arguments.out)
    meter = Meter()
    summary = curate(config, meter.progress)
    ending_s = meter.ending_s()
    started = time.perf_counter()
    again = curate(config, lambda name, total: StageProgress(name, total, quiet=True))
    resume_s = time.perf_counter() - started
    started = time.perf_counter()
    reapply_policy(config.output_dir, replace(STANDARD, name="other", max_drift=0.02))
    verdicts_s = time.perf_counter() - started
    if again.num_new_sources or sum(summary.sources_by_state.values()) != count:
        raise SystemExit(f"inputs are missing: {summary.sources_by_state}, {again}")
    return {
        "inputs": count,
        "states": summary.sources_by_state,
        "clips": summary.num_clips,
        "run_s": round(summary.wall_s, 1),
        "of_it_merging_and_summary_s": round(ending_s, 1),
        **meter.tenths(),
        "driver_peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "resume_s": round(resume_s, 2),
        "resume_share": round(resume_s / summary.wall_s, 4),
        "new_verdicts_s": round(verdicts_s, 2),
    }


def write_inputs(folder: Path, count: int, *, is_real: bool) -> None:
    """Write tiny files whose names mix all kinds evenly."""
    folder.mkdir(parents=True)
    for number in range(count):
        path = folder / f"{number:06d}.mp4"
        if not is_real or number % 10 in {1, 3, 5, 7}:
            path.write_text(f"this is text number {number}, whatever its name says")
        elif number % 10 == 9:
            path.touch()
        elif number % 10 == 8:
            shutil.copy(folder / f"{number - 2:06d}.mp4", path)
        else:
            path.write_bytes(_video(number, 16 if number % 10 == 0 else 6))


def _video(number: int, num_frames: int) -> bytes:
    """Return a tiny video; each shows another room."""
    rng = np.random.default_rng(number)
    room = np.kron(rng.integers(30, 226, (4, 6, 3)), np.ones((12, 12, 1))).astype(np.uint8)
    frames = np.repeat(room[None], num_frames, axis=0)
    for index in range(num_frames):
        frames[index, 10:30, 2 * index : 2 * index + 12] = 255
    return encode_mp4(frames, 16.0, crf=30)


class Meter:
    """Follow a run through its rows of progress."""

    def __init__(self) -> None:
        from animaray.pipelines import curate as curation

        self._read = 0
        self._batches: list[tuple[int, float, float, float]] = []
        self._is_over = False
        renew = curation.renew_stale_verdicts  # type: ignore[attr-defined]

        def renew_after_mark(root: Any) -> None:  # noqa: ANN401
            if not self._is_over:
                self._batches.append((self._read, *_now()))
                self._is_over = True
            renew(root)

        curation.renew_stale_verdicts = renew_after_mark  # type: ignore[attr-defined, assignment]

    def progress(self, name: str, total: int | None) -> StageProgress:
        """Return a silent row of progress; each batch begins with reading videos."""
        if name.startswith("read"):
            self._batches.append((self._read, *_now()))
            self._read += total or 0
        return StageProgress(name, total, quiet=True)

    def ending_s(self) -> float:
        """Return the time since the last batch's end: merging and summing up, seconds."""
        return time.perf_counter() - self._batches[-1][1]

    def tenths(self) -> dict[str, list[float]]:
        """Return what an input cost in each tenth of the batches, and the driver's memory then."""
        edges = [self._batches[round(k * (len(self._batches) - 1) / 10)] for k in range(11)]
        wall, cpu, memory = [], [], []
        for before, after in itertools.pairwise(edges):
            items = max(1, after[0] - before[0])
            wall.append(round(1000 * (after[1] - before[1]) / items, 1))
            cpu.append(round(1000 * (after[2] - before[2]) / items, 1))
            memory.append(float(round(after[3])))
        return {
            "wall_ms_per_input_by_tenth": wall,
            "driver_cpu_ms_per_input_by_tenth": cpu,
            "driver_mib_by_tenth": memory,
        }


def _now() -> tuple[float, float, float]:
    """Return wall and CPU seconds, and this process's resident memory, MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return time.perf_counter(), time.process_time(), pages * _PAGE_BYTES / 2**20


def stand_in(folder: Path) -> None:
    """Replace decoders and networks by rows that stand for their results."""
    from animaray.pipelines import curate as curation
    from animaray.pipelines.curation import perception_worker
    from animaray.pipelines.stages.identify import identify
    from benchmarks.scale.score_tables import ScoreTables, draw_clip, draw_source

    tables = ScoreTables(num_sources=1)
    media = _video(0, 16)
    spare = folder / "spare"
    spare.mkdir()

    def read_source(row: Row, *_: Any) -> Row:  # noqa: ANN401
        number = int(Path(row["path"]).stem)
        facts = draw_source(number - 1 if number % 10 == 8 else number, tables)
        shown = {
            name: facts[name]
            for name in ("codec", "width", "height", "fps", "duration_s", "start_s",
                         "num_frames", "rotation_deg", "pixel_aspect", "has_audio",
                         "num_damaged_frames", "cut_times_s", "hashes", "motion_signature")
        }  # fmt: skip
        end = {"state": "unreadable", "reason": "broken", "detail": "stand-in"}
        shot = {"start_s": 0.0, "end_s": 4.0, "cut_before": False, "cut_after": False}
        return {
            **identify(row), **shown, "warning": None, "shots": [shot],
            **(end if number % 10 == 9 else {}),
        }  # fmt: skip

    def cut(row: Row, *_: Any) -> Row:  # noqa: ANN401
        paths = {}
        for name in ("media_path", "preview_path", "poster_path"):
            paths[name] = str(spare / f"{row['clip_id']}.{name}")
            Path(paths[name]).write_bytes(media)
        return {
            **row, **paths, "clip_width": 64, "clip_height": 96, "clip_fps": 12.0,
            "clip_num_frames": 12, "clip_duration_s": 1.0,
        }  # fmt: skip

    class Looks:
        @classmethod
        def load(cls, *_: Any) -> "Looks":  # noqa: ANN401
            return cls()

        def __call__(self, row: Row) -> Row:
            clip = draw_clip(int(Path(row["path"]).stem), 0, row, tables)
            scores = {
                f"{family}_scores": {n: v for n, v in clip.items() if n in SCORES[family]}
                for family in FAMILIES
            }
            states = {f"{family}_state": "ok" for family in FAMILIES}
            row = cut(row)
            return {**row, **scores, **states, "identity_embedding": clip["identity_embedding"]}

    curation.read_source = read_source  # type: ignore[assignment]
    perception_worker.PerceptionWorker = Looks  # type: ignore[assignment, misc]


if __name__ == "__main__":
    sys.exit(main())
