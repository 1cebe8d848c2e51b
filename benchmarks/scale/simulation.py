"""A million clips through the real chain, with rows standing for decoders and networks.

    python -m benchmarks.scale.simulation --clips 10000 100000 1000000 --out /tmp/simulation

Each size is one real `curate` in a process of its own: listing, hashing, Ray Data, splitting,
shelving, verdicts, near-duplicates, commits, merging and the summary are the product's; probing,
shots, cutting and networks are rows (stand_ins.py). A source has a hundred clips. For each tenth of
a run it says what a clip cost the driver (CPU, files and pipes read and written, rows received from
Ray, resident memory) and how long a commit took; then how long it takes to open the dataset, to
read one clip's row, and to find clips by their id. `--clip-bytes` sets the size of each clip's
video: the driver must not feel it. `--s3` lets the dataset lie on a SeaweedFS server of its own and
counts the requests. `--trace` puts strace on the driver and counts every byte of every socket, too
(slow: for small runs). Exits 1 when a clip moves more than 64 kB through the driver, or when the
last tenth costs half as much again as the second one.
"""

import argparse
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from animaray.platform.json_text import json_text
from benchmarks.scale.process_tree import run_measured
from benchmarks.scale.stand_ins import BYTES_OF_CLIP, CLIPS_OF_SOURCE

LIMIT_BYTES = 64 * 1024
"""Of the driver's traffic for a clip."""
_GROWTH = 1.5
_CLIPS_OF_SOURCE = 100
_LEAST_COMMITS = 20
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_NUM_LOOKED_UP = 1000
_TRACED = "read,write,readv,writev,pread64,pwrite64,sendto,recvfrom,sendmsg,recvmsg"
_RETURNED = re.compile(r"\)\s+= (\d+)$", re.MULTILINE)


def main() -> int:
    """Print one JSON object; 1 when the driver moves too much or something grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--clip-bytes", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--s3", action="store_true", help="the dataset lies on an S3 server")
    parser.add_argument("--trace", action="store_true", help="count the driver's sockets by strace")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", type=int, help="run this size in this process")
    parser.add_argument("--address", help="of the dataset of a part")
    arguments = parser.parse_args()
    if arguments.part is not None:
        print(json_text(_run_part(arguments)))
        return 0
    shutil.rmtree(arguments.out, ignore_errors=True)
    results = {str(count): _run_apart(arguments, count) for count in arguments.clips}
    print(json_text(results, indent=1))
    return int(any(result["problems"] for result in results.values()))


def _run_apart(arguments: argparse.Namespace, count: int) -> dict[str, Any]:
    folder = arguments.out / str(count)
    folder.mkdir(parents=True)
    environment = {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")]),
        # Ray starts its workers at nice 15: beside other work on the machine they would starve.
        "RAY_worker_niceness": "0",
        CLIPS_OF_SOURCE: str(_CLIPS_OF_SOURCE),
        BYTES_OF_CLIP: str(arguments.clip_bytes),
    }
    with _server(folder) if arguments.s3 else nullcontext() as server:
        address = "s3://simulation/dataset" if server else str(folder / "dataset")
        environment |= server.environment if server else {}
        command = [
            sys.executable, "-m", "benchmarks.scale.simulation", "--part", str(count),
            "--workers", str(arguments.workers), "--out", str(folder), "--address", address,
            *(["--trace"] if arguments.trace else []),
        ]  # fmt: skip
        use = run_measured(command, environment, interval_s=2.0)
        if use.exit_code != 0:
            raise SystemExit(f"{count} clips ended with {use.exit_code}: {use.output[-1000:]}")
        result: dict[str, Any] = json.loads(use.output.splitlines()[-1])
        if server is not None:
            result["requests"] = server.count_requests()
    result |= {
        "whole_tree_cpu_s": round(use.cpu_s, 1), "wall_s": round(use.wall_s, 1),
        "tree_cpu_ms_of_clip": round(1000 * use.cpu_s / count, 2),
        "largest_child_mib_by_tenth": [round(each) for each in use.child_mib],
        "others_share": round(use.others_cpu_share, 2),
    }  # fmt: skip
    print(f"{count} clips: {json_text(result)}", file=sys.stderr, flush=True)
    return result


@contextmanager
def _server(folder: Path) -> Iterator[Any]:
    from tests.faults.s3_server import S3Server

    server = S3Server(folder / "server")
    server.start()
    try:
        server.make_bucket("simulation")
        yield server
    finally:
        server.kill()


@dataclass(slots=True)
class Meter:
    """What the driver used, at each of its commits."""

    marks: list[dict[str, float]] = field(default_factory=list)
    received_bytes: int = 0
    """Of rows that came from Ray."""
    clips: int = 0

    def watch_commits(self) -> None:
        """Take a mark at each commit from now on, and time it."""
        from animaray.datasets.commit_log import CommitLog

        commit = CommitLog.commit

        def timed(log: CommitLog, files: Any = (), **named: Any) -> Any:  # noqa: ANN401
            started, cpu = time.perf_counter(), time.process_time()
            done = commit(log, files, **named)
            self.clips += sum(file.rows for file in files if file.table == "clips")
            self._mark(time.perf_counter() - started, time.process_time() - cpu)
            return done

        CommitLog.commit = timed  # type: ignore[method-assign, assignment]

    def watch_rows(self) -> None:
        """Count what Ray hands to this process."""
        import ray

        get = ray.get

        def counted(refs: Any, **named: Any) -> Any:  # noqa: ANN401
            values = get(refs, **named)
            for value in values if isinstance(values, list) else [values]:
                self.received_bytes += int(getattr(value, "nbytes", 0) or 0)
            return values

        ray.get = counted  # type: ignore[assignment]

    def _mark(self, commit_s: float, commit_cpu_s: float) -> None:
        moved = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.marks.append(
            {
                "clips": self.clips,
                "wall_s": time.perf_counter(),
                "cpu_s": time.process_time(),
                "moved": int(moved["rchar"]) + int(moved["wchar"]),
                "rows": self.received_bytes,
                "mib": pages * _PAGE_BYTES / 2**20,
                "commit_s": commit_s,
                "commit_cpu_s": commit_cpu_s,
            }
        )

    def tenths(self) -> dict[str, list[float]]:
        """Return what a clip cost in each tenth of the run, and a commit."""
        appends = [mark for mark in self.marks if mark["clips"]]
        edges = [appends[round(k * (len(appends) - 1) / 10)] for k in range(11)]
        found: dict[str, list[float]] = {}
        for before, after in itertools.pairwise(edges):
            clips = max(1.0, after["clips"] - before["clips"])
            inside = [
                m["commit_s"] for m in appends if before["clips"] < m["clips"] <= after["clips"]
            ]
            values = {
                "wall_ms_of_clip": 1000 * (after["wall_s"] - before["wall_s"]) / clips,
                "driver_cpu_ms_of_clip": 1000 * (after["cpu_s"] - before["cpu_s"]) / clips,
                "driver_kb_of_clip": (after["moved"] - before["moved"]) / clips / 1000,
                "row_kb_of_clip": (after["rows"] - before["rows"]) / clips / 1000,
                "commit_ms": 1000 * sorted(inside)[len(inside) // 2] if inside else 0.0,
                "driver_mib": after["mib"],
            }
            for name, value in values.items():
                found.setdefault(name, []).append(round(value, 2))
        return found


def _run_part(arguments: argparse.Namespace) -> dict[str, Any]:
    """Curate one size here.

    Raises:
        SystemExit: Clips are missing.
    """
    from animaray.pipelines.curation.config import CurationConfig
    from animaray.platform.progress import StageProgress
    from benchmarks.scale.stand_ins import stand_in_session

    videos = arguments.out / "videos"
    write_sources(videos, arguments.part // _CLIPS_OF_SOURCE)
    config = CurationConfig(
        sources=(str(videos),),
        output_dir=arguments.address,
        profile="generated",
        num_workers=arguments.workers,
    )
    meter = Meter()
    meter.watch_commits()
    with stand_in_session():
        from animaray.pipelines.curate import curate

        meter.watch_rows()
        with _traced(arguments.out) if arguments.trace else nullcontext():
            started, cpu = time.perf_counter(), time.process_time()
            summary = curate(config, lambda name, total: StageProgress(name, total, quiet=True))
            wall_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu
    tenths = meter.tenths()
    result = {
        "clips": summary.num_clips, "commits": len(meter.marks), "run_s": round(wall_s, 1),
        "driver_cpu_s": round(cpu_s, 1),
        "states": summary.sources_by_state, **tenths,
        "opening": _opening(arguments.address),
    }  # fmt: skip
    if arguments.trace:
        result["socket_and_file_kb_of_clip"] = round(
            _traced_bytes(arguments.out) / summary.num_clips / 1000, 1
        )
    if summary.num_clips != arguments.part:
        raise SystemExit(f"clips are missing: {summary.num_clips} of {arguments.part}")
    return {**result, "problems": _problems(result)}


def write_sources(folder: Path, count: int) -> None:
    """Write small files that stand for videos."""
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number:06d}.mp4").write_text(f"this stands for video number {number}")


def _problems(result: dict[str, Any]) -> list[str]:
    found = []
    if result["commits"] < _LEAST_COMMITS:
        return [f"{result['commits']} commits say nothing about growth: take more clips"]
    for name in ("driver_cpu_ms_of_clip", "commit_ms", "driver_kb_of_clip"):
        values = result[name]
        if values[-1] > _GROWTH * values[1] + 0.1:
            found.append(f"{name} grows: {values[1]} in the second tenth, {values[-1]} in the last")
    most = max(result["driver_kb_of_clip"]) * 1000
    most = max(most, 1000 * result.get("socket_and_file_kb_of_clip", 0.0))
    if most > LIMIT_BYTES:
        found.append(f"{most:.0f} bytes pass the driver for a clip")
    return found


def _opening(address: str) -> dict[str, float]:
    """Return how long a reader needs, in this process, with what it has imported."""
    from animaray.datasets.reader import CurationDataset

    ids = CurationDataset.open(address).table("clips", ["clip_id"])["clip_id"].to_pylist()
    started = time.perf_counter()
    dataset = CurationDataset.open(address)
    opened_s = time.perf_counter() - started
    dataset.clip(ids[len(ids) // 2])
    first_s = time.perf_counter() - started
    rng = np.random.default_rng(0)
    step = max(1, len(ids) // _NUM_LOOKED_UP)
    wanted = {"look_up_ms": ids[::step], "random_look_up_ms": rng.permutation(ids)[:100].tolist()}
    found = {"open_s": opened_s, "open_and_one_row_s": first_s}
    for name, some in wanted.items():
        started = time.perf_counter()
        for clip_id in some:
            dataset.clip(clip_id)
        found[name] = 1000 * (time.perf_counter() - started) / len(some)
    return {name: round(value, 3) for name, value in found.items()}


@contextmanager
def _traced(folder: Path) -> Iterator[None]:
    """Let strace write down what this process reads and writes, on any file or socket."""
    command = ["strace", "-f", "-qq", "-e", f"trace={_TRACED}", "-s", "0", "-p", str(os.getpid()),
               "-o", str(folder / "trace.txt")]  # fmt: skip
    tracer = subprocess.Popen(command)  # noqa: S603 - our own command
    time.sleep(3.0)
    try:
        yield
    finally:
        tracer.terminate()
        with suppress(subprocess.TimeoutExpired):
            tracer.wait(timeout=60)


def _traced_bytes(folder: Path) -> int:
    with (folder / "trace.txt").open() as lines:
        return sum(int(number) for line in lines for number in _RETURNED.findall(line))


if __name__ == "__main__":
    sys.exit(main())
