"""Kill curation again and again and compare what comes out with a quiet run.

    python -m tests.faults.chaos --real ../shared/real --kills 30 --seed 0 --work /tmp/chaos \
        --out report.json
    python -m tests.faults.chaos --store --work /tmp/chaos-s3 --out report.json

The real command (`animaray curate`) runs over a folder of real and generated videos; at random
points of its life the driver, a Ray worker or a decoder gets SIGKILL (or the driver SIGINT), and
the same command is given again until it ends by itself. Then every table must equal the quiet
run's row for row, every stored video byte for byte; nothing may be there twice or be left over, and
no process may outlive its driver. No commit that anybody could read meanwhile may be lost. Kill
points spread over several such lives. With `--store` the datasets lie on an S3 server, which is
killed and started again, too; the quiet run's lies in a local folder all the same.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from animaray.datasets.world.library import write_world
from animaray.datasets.writers import LEASE_S
from animaray.platform.json_text import json_text
from animaray.platform.storage import write_json_atomic
from tests.faults.commit_witness import CommitWitness
from tests.faults.dataset_difference import (
    PLACES,
    count_rows,
    describe_differences,
    find_left_overs,
)
from tests.faults.s3_server import S3Server

REAL_FILES = (
    "v14.mp4", "v18.mp4", "v22.avi", "x01.webm", "x03.gif", "x05.mp4", "x07.mp4", "x09.mp4",
    "x10.mp4", "x13.mp4", "x15.mp4", "x16.mp4", "x17.mp4", "x18.mp4", "x19.mp4", "x20.mp4",
)  # fmt: skip
"""Short ones of every container and codec, with those that cannot be read."""
KINDS = ("driver", "worker", "decoder")
_BUCKET = "chaos"
_PATIENCE_S = 1800.0
_AFTERLIFE_S = 60.0
_NO_WORKERS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent", "ray::IDLE")
"""Helpers of Ray; two of them try for a minute or more to reach a session that is gone."""
_HELPER_ACTORS = ("ray::_StatsActor", "ray::_Autoscaling", "ray::ActorLocation")
_SLACK_S = 2.0
_STEP_S = 0.02
_STOPPED = 130


@dataclass(frozen=True, slots=True)
class Kill:
    """One planned kill."""

    at_s: float
    """Running time of the life at which it comes, seconds."""
    kind: str
    """driver, worker, decoder, ctrl_c, or store."""


def make_inputs(
    folder: Path, real: Path, num_generated: int, names: Sequence[str] = REAL_FILES
) -> None:
    """Write the folder of videos: real ones, generated ones, and a copy of one of them."""
    folder.mkdir(parents=True)
    for name in names:
        if (real / "videos" / name).exists():
            shutil.copy2(real / "videos" / name, folder / name)
    if num_generated:
        write_world(
            folder / "generated", num_videos=num_generated, seed=5, size=(192, 256), duration_s=2.0
        )
        for path in (folder / "generated").glob("*.json"):
            path.unlink()
    first = min(path for path in folder.rglob("*") if path.stat().st_size > 10_000)
    shutil.copy2(first, folder / f"copy{first.suffix}")


class Run:
    """One `animaray curate` process with everything that it starts."""

    def __init__(self, work: Path, command: list[str], environment: dict[str, str]) -> None:
        self._log = (work / "log.txt").open("ab")
        self.process = subprocess.Popen(  # noqa: S603 - our own command
            command, cwd=work, env=environment, stdin=subprocess.DEVNULL, stdout=self._log,
            stderr=self._log, start_new_session=True,
        )  # fmt: skip
        self.started = time.monotonic()
        self._known: dict[int, psutil.Process] = {}
        self.helpers: list[psutil.Process] = []
        """What Ray started besides workers; known once the driver has ended."""

    def find(self, kind: str) -> list[psutil.Process]:
        """Return the running processes of a kind."""
        if kind in {"driver", "ctrl_c"}:
            return [psutil.Process(self.process.pid)]
        found = [child for child in self._descendants() if kind_of(child) == kind]
        return [child for child in found if not _is_helper_actor(child)]

    def _descendants(self) -> list[psutil.Process]:
        try:
            found = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        self._known |= {child.pid: child for child in found}
        return found

    def wait_for_workers(self) -> float:
        """Wait until every worker and decoder that this run started is gone.

        Returns:
            Seconds that took.

        Raises:
            RuntimeError: Some are still there; they are ended now.
        """
        started = time.monotonic()
        self.process.wait()
        self._log.close()
        self.helpers = [child for child in self._known.values() if kind_of(child) is None]
        helpers = {child.pid for child in self.helpers}
        workers = [child for child in self._known.values() if child.pid not in helpers]
        while left := [child for child in workers if is_alive(child)]:
            if time.monotonic() - started > _AFTERLIFE_S:
                names = [child.name() for child in left]
                for child in left:
                    child.kill()
                raise RuntimeError(f"{len(left)} workers outlived their driver: {names}")
            time.sleep(_STEP_S)
        return time.monotonic() - started


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process still runs, zombies not counted."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _is_helper_actor(process: psutil.Process) -> bool:
    """Return whether a worker only counts or watches for Ray Data, and does no work of ours."""
    try:
        return process.cmdline()[0].startswith(_HELPER_ACTORS)
    except (psutil.Error, IndexError):
        return True


def kind_of(process: psutil.Process) -> str | None:
    """Return worker, decoder or None."""
    try:
        words = process.cmdline()
        if words and words[0].startswith("ray::"):
            return None if words[0].strip().startswith(_NO_WORKERS) else "worker"
        if "animaray.platform.media.decoder_child" in words:
            parent = process.parent()
            is_server = (
                parent is None or "animaray.platform.media.decoder_child" not in parent.cmdline()
            )
            return "decoder_server" if is_server else "decoder"
    except psutil.Error:
        pass
    return None


class Chaos:
    """All lives of one experiment."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._work: Path = arguments.work.absolute()
        self._rng = np.random.default_rng(arguments.seed)
        self._arguments = arguments
        self._server = S3Server(self._work / "server") if arguments.store else None
        for folder in ("ray", "tmp"):
            (self._work / folder).mkdir()
        self._environment = {
            **os.environ,
            "RAY_TMPDIR": str(self._work / "ray"),
            "TMPDIR": str(self._work / "tmp"),
        }
        if arguments.profile == "permissive":
            self._environment["ANIMARAY_WEIGHTS"] = str((arguments.real / "weights").absolute())
        self.kills: list[dict[str, Any]] = []
        self.codes: Counter[str] = Counter()
        self.afterlives_s: list[float] = []
        self.num_witnessed = 0
        self._free_at_s = 0.0
        self.losses: dict[str, list[str]] = {}
        self._helpers: list[psutil.Process] = []

    @contextmanager
    def store(self) -> Iterator[None]:
        """Run the S3 server meanwhile, if this experiment has one."""
        if self._server is None:
            yield
            return
        self._environment |= self._server.environment
        os.environ.update(self._server.environment)  # this process compares what lies there
        self._server.start()
        try:
            self._server.make_bucket(_BUCKET)
            yield
        finally:
            self._server.kill()

    def dataset(self, name: str) -> str | Path:
        """Return where the dataset of a life lies."""
        if self._server is None or name == "quiet":
            return self._work / name / "dataset"
        return f"s3://{_BUCKET}/{name}"

    def _command(self, name: str) -> list[str]:
        dataset = self.dataset(name)
        return [
            str(Path(sys.executable).parent / "animaray"), "curate", "run",
            str(self._work / "videos"), "--out", dataset if isinstance(dataset, str) else "dataset",
            "--profile", self._arguments.profile,
            "--set", "sources_per_commit=1", "--set", "store_media=all",
            # By workers from the first video on: else there is nobody to kill.
            "--set", "in_process_s=0", *self._arguments.more,
        ]  # fmt: skip

    def quiet(self) -> float:
        """Run once without any harm; return the seconds that it takes.

        Raises:
            RuntimeError: It failed.
        """
        folder = self._work / "quiet"
        folder.mkdir()
        run = Run(folder, self._command("quiet"), self._environment)
        code = run.process.wait()
        took_s = time.monotonic() - run.started
        if code not in {0, 3}:
            raise RuntimeError(f"the quiet run failed with {code}: {folder / 'log.txt'}")
        return took_s

    def live(self, name: str, plan: list[Kill]) -> list[Kill]:
        """Curate under kills until it ends by itself; return the kills that came too late.

        Raises:
            RuntimeError: It does not end, or Ctrl-C leaves something behind.
        """
        (self._work / name).mkdir()
        with CommitWitness(str(self.dataset(name))) as witness:
            left = self._live(name, sorted(plan, key=lambda kill: kill.at_s))
        self.num_witnessed += witness.num_seen
        self.losses[name] = witness.describe_losses()
        return left

    def _live(self, name: str, left: list[Kill]) -> list[Kill]:
        folder, lived_s = self._work / name, 0.0
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            # A dead driver's lease in a store has to run out first: until then all are refused.
            time.sleep(max(0.0, self._free_at_s - time.monotonic()))
            run = Run(folder, self._command(name), self._environment)
            while run.process.poll() is None and left:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"life {name} does not end: {folder / 'log.txt'}")
                if lived_s + time.monotonic() - run.started < left[0].at_s:
                    time.sleep(_STEP_S)
                elif self._kill(run, left[0], name, lived_s):
                    left.pop(0)
                else:
                    time.sleep(_STEP_S)  # none of its kind runs just now
            code = run.process.wait(timeout=max(1.0, deadline - time.monotonic()))
            lived_s += time.monotonic() - run.started
            self.codes[str(code)] += 1
            self.afterlives_s.append(run.wait_for_workers())
            self._helpers += run.helpers
            if code in {0, 3}:
                return left
            if code == _STOPPED and (left_over := self._staged(folder)):
                raise RuntimeError(f"life {name}: Ctrl-C left clips behind: {left_over[:3]}")

    def _staged(self, folder: Path) -> list[Path]:
        """Return files of clips that wait for their commit."""
        places = (folder / "dataset/_staging", self._work / "tmp")
        return [path for place in places for path in place.rglob("*.mp4")]

    def _kill(self, run: Run, kill: Kill, name: str, lived_s: float) -> bool:
        if kill.kind == "store":
            return self._kill_store(run, name, lived_s)
        found = run.find(kill.kind)
        if not found:
            return False
        if kill.kind in {"driver", "ctrl_c"}:
            run.find("worker")  # so that all are known that must end with it
        victim = found[int(self._rng.integers(len(found)))]
        try:
            title = " ".join(victim.cmdline())[:60]
            victim.send_signal(signal.SIGINT if kill.kind == "ctrl_c" else signal.SIGKILL)
        except psutil.NoSuchProcess:
            return False
        if kill.kind == "driver" and self._server is not None:
            self._free_at_s = time.monotonic() + LEASE_S + _SLACK_S
        self._note(run, name, lived_s, kind=kill.kind, victim=title)
        return True

    def _kill_store(self, run: Run, name: str, lived_s: float) -> bool:
        """Kill the S3 server; start it again after a while."""
        if self._server is None or not run.find("worker"):
            return False  # nothing to break before the run has begun its work
        away_s = float(self._rng.uniform(1.0, self._arguments.away_s))
        self._note(run, name, lived_s, kind="store", victim=f"away for {away_s:.1f} s")
        self._server.kill()
        time.sleep(away_s)
        self._server.start()
        return True

    def _note(self, run: Run, name: str, lived_s: float, *, kind: str, victim: str) -> None:
        at_s = round(lived_s + time.monotonic() - run.started, 2)
        self.kills.append({"life": name, "at_s": at_s, "kind": kind, "victim": victim})
        sys.stderr.write(f"{self.kills[-1]}\n")

    def plan(self, took_s: float) -> list[Kill]:
        """Return kills of all kinds in turn at random points of a run, shuffled."""
        wanted = self._arguments
        kinds = [KINDS[i % len(KINDS)] for i in range(wanted.kills)]
        kinds += ["ctrl_c"] * wanted.ctrl_c
        kinds += ["store"] * (wanted.store_kills if wanted.store else 0)
        self._rng.shuffle(kinds)
        return [Kill(float(self._rng.uniform(0.0, took_s)), kind) for kind in kinds]

    def plan_again(self, late: list[Kill], took_s: float) -> list[Kill]:
        """Return late kills at new points."""
        return [Kill(float(self._rng.uniform(0.0, took_s)), kill.kind) for kill in late]

    def end_helpers(self, patience_s: float = 180.0) -> int:
        """Wait for Ray's own helpers of all runs; end and count those that are still there."""
        _, left = psutil.wait_procs(self._helpers, timeout=patience_s)
        for process in left:
            process.kill()
        return len(left)

    def compare(self, name: str) -> list[str]:
        """Return every difference of a life's dataset from the quiet one, and what is left."""
        quiet, ours = self.dataset("quiet"), self.dataset(name)
        spilled = [f"spilled: {path}" for path in (self._work / "ray").glob("*/session_*/*spill*")]
        staged = [f"left: {path}" for path in self._staged(self._work / name)]
        return [
            *self.losses.get(name, []), *describe_differences(quiet, ours, PLACES),
            *find_left_overs(ours),
            *spilled, *staged,
        ]  # fmt: skip


def main() -> int:
    """Run the experiment; 0 when nothing differs and nothing is left."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", type=Path, default=Path("../shared/real"))
    parser.add_argument("--profile", default="permissive")
    parser.add_argument("--generated", type=int, default=6)
    parser.add_argument("--real-files", type=int, default=len(REAL_FILES))
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--ctrl-c", type=int, default=3)
    parser.add_argument("--store", action="store_true", help="Datasets lie on an S3 server")
    parser.add_argument("--store-kills", type=int, default=3, help="Kills of that server")
    parser.add_argument("--away-s", type=float, default=20.0, help="It is away that long at most")
    parser.add_argument("--kills-per-life", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, required=True, help="A folder that does not exist")
    parser.add_argument("--out", type=Path, default=Path("chaos.json"))
    parser.add_argument("more", nargs="*", help="After --: more options of curate")
    arguments = parser.parse_args()
    # A shell's background job ignores Ctrl-C, and so would what it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    arguments.work.mkdir(parents=True)
    names = REAL_FILES[: arguments.real_files]
    make_inputs(arguments.work / "videos", arguments.real, arguments.generated, names)
    chaos = Chaos(arguments)
    with chaos.store():
        report = run_lives(chaos, arguments)
    report["helpers_of_ray_left"] = chaos.end_helpers()
    write_json_atomic(arguments.out, report)
    print(json_text({**report, "kills": len(chaos.kills)}, indent=2))
    return 0 if not any(report["problems"].values()) else 1


def run_lives(chaos: Chaos, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run once in quiet and then as many lives as the kills need; return the report."""
    took_s = chaos.quiet()
    plan = chaos.plan(took_s)
    problems: dict[str, list[str]] = {"quiet": find_left_overs(chaos.dataset("quiet"))}
    report: dict[str, Any] = {"problems": problems}
    number = 0
    while plan:
        now, plan = plan[: arguments.kills_per_life], plan[arguments.kills_per_life :]
        name = f"life{number}"
        late = chaos.live(name, now)
        # A kill that came after the end gets a new point in a later life.
        plan += chaos.plan_again(late, took_s)
        problems[name] = chaos.compare(name)
        number += 1
        report = {
            "command": " ".join(sys.argv), "quiet_s": round(took_s, 1), "lives": number,
            "kills": chaos.kills, "kills_by_kind": Counter(kill["kind"] for kill in chaos.kills),
            "exit_codes": chaos.codes, "commits_witnessed": chaos.num_witnessed,
            "slowest_end_of_workers_s": round(max(chaos.afterlives_s), 1),
            "rows": count_rows(chaos.dataset("quiet")), "problems": problems,
        }  # fmt: skip
        write_json_atomic(arguments.out, report)
    return report


if __name__ == "__main__":
    sys.exit(main())
