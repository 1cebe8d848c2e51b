"""Curate on a Ray cluster whose two workers share no folder with each other or the driver.

    python -m tests.faults.two_nodes --store --real ../shared/real --work /tmp/two-nodes \
        --out report.json

Sources and dataset lie on an S3 server (SeaweedFS); the driver's folder, /tmp and /dev/shm are
empty in each worker's mount namespace (lone_nodes.py; needs root), the workers know no setting of
the driver's, and neither has room for all processes of a run. Four runs: on one machine into a
local folder; on both workers; with the server away for a minute in mid run; with a worker killed
at work. The tables must be equal, row for row, and no commit that anybody could read may be lost.
Without `--store` the nodes share all folders and nothing lies on a server: the third run is left
out.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from animaray.datasets.commit_log import COMMITS_DIR
from animaray.platform.errors import AnimarayError
from animaray.platform.json_text import json_text
from animaray.platform.storage import write_json_atomic
from animaray.platform.stores import open_store
from tests.faults.chaos import REAL_FILES, make_inputs
from tests.faults.commit_witness import CommitWitness
from tests.faults.dataset_difference import (
    PLACES,
    count_rows,
    describe_differences,
    find_left_overs,
)
from tests.faults.lone_nodes import LoneNodes, Node, can_hide
from tests.faults.s3_server import S3Server

_CPUS_OF_A_NODE = 1
_NUM_WORKERS = 3
"""Each holds half a CPU, so they need two nodes."""
_BUCKET = "nodes"
_INTERVAL_S = 0.5
_PATIENCE_S = 1200.0
"""A run that takes longer stands still; it is ended, and that is a problem of its own."""
_ENDED_WELL = (0, 3)
"""3: some inputs could not be read, as planned."""


@dataclass(slots=True)
class Watch:
    """What is seen of one run, and what is done to it once it has some commits."""

    nodes: dict[str, Node]
    harm: Callable[[dict[str, Node]], str | None]
    """Does it, and says so; None when the moment is not there yet."""
    seen_at_work: Counter[str] = field(default_factory=Counter)
    done: str | None = None

    def follow(self, process: subprocess.Popen[bytes], dataset: str) -> None:
        """Look at the nodes until the driver ends."""
        deadline = time.monotonic() + _PATIENCE_S
        while process.poll() is None:
            if time.monotonic() > deadline:
                process.kill()
            for name, node in self.nodes.items():
                self.seen_at_work[name] += bool(node.working())
            if self.done is None and num_commits(dataset) >= 2:
                self.done = self.harm(self.nodes)
            time.sleep(_INTERVAL_S)


def num_commits(dataset: str) -> int:
    """Return how many commits a dataset has; 0 when nobody answers."""
    try:
        return sum(1 for _ in open_store(dataset).files(COMMITS_DIR))
    except (AnimarayError, OSError):
        return 0


class Experiment:
    """All runs over one set of videos."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._work: Path = arguments.work.absolute()
        self._arguments = arguments
        self._environment = dict(os.environ)
        if arguments.profile == "permissive":
            weights = str((arguments.real / "weights").absolute())
            self._environment["ANIMARAY_WEIGHTS"] = weights
        self._server: S3Server | None = None
        self._sources = "videos"
        make_inputs(
            self._work / "videos",
            arguments.real.absolute(),
            arguments.generated,
            names=REAL_FILES[: arguments.real_files],
        )

    @contextmanager
    def store(self) -> Iterator[None]:
        """Run the S3 server meanwhile, with the videos on it, if this experiment has one."""
        if not self._arguments.store:
            yield
            return
        self._server = S3Server(self._work / "server")
        self._environment |= self._server.environment
        os.environ.update(self._server.environment)
        self._server.start()
        try:
            self._sources = f"{self._server.make_bucket(_BUCKET)}/videos"
            bucket = open_store(self._sources)
            for path in (self._work / "videos").rglob("*"):
                if path.is_file():
                    name = path.relative_to(self._work / "videos").as_posix()
                    bucket.write(name, path.read_bytes())
            # Nobody may find them but on the server.
            shutil.rmtree(self._work / "videos")
            yield
        finally:
            self._server.kill()

    def run(
        self, name: str, watch: Watch | None = None, cluster: LoneNodes | None = None
    ) -> dict[str, Any]:
        """Curate once, on a cluster or alone; compare with the first run."""
        folder = self._work / name
        folder.mkdir()
        dataset = str(folder / "dataset")
        if self._server is not None and watch is not None:
            dataset = f"s3://{_BUCKET}/{name}"
        environment = dict(self._environment)
        if cluster is not None:
            environment |= {"RAY_ADDRESS": cluster.address, "RAY_AUTH_MODE": "disabled"}
        started = time.monotonic()
        with CommitWitness(dataset) as witness:
            process = self._start(folder, dataset, environment)
            try:
                if watch is not None:
                    watch.follow(process, dataset)
                code = process.wait()
            finally:
                process.kill()
        problems = [*witness.describe_losses(), *find_left_overs(dataset)]
        if watch is not None:
            problems += describe_differences(self._work / "one/dataset", dataset, PLACES)
        if code not in _ENDED_WELL:
            problems.append(f"it ended with {code}: {folder / 'log.txt'}")
        return {
            "exit_code": code, "seconds": round(time.monotonic() - started, 1),
            "seen_at_work": dict(watch.seen_at_work) if watch else {},
            "harm": watch.done if watch else None, "commits_witnessed": witness.num_seen,
            "problems": problems,
        }  # fmt: skip

    def _start(
        self, folder: Path, dataset: str, environment: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        sources = self._sources
        if self._server is None:
            # A relative path, seen from the driver's folder.
            sources = os.path.relpath(self._work / "videos", folder)
        is_local = dataset.startswith("/")
        command = [
            str(Path(sys.executable).parent / "animaray"), "curate", "run",
            sources, "--out", "dataset" if is_local else dataset,
            "--profile", self._arguments.profile,
            "--set", "sources_per_commit=1", "--set", "store_media=all",
            "--set", "in_process_s=0", "--set", f"num_workers={_NUM_WORKERS}",
        ]  # fmt: skip
        with (folder / "log.txt").open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - our own command
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log,
            )  # fmt: skip

    def no_harm(self, _: dict[str, Node]) -> str | None:
        """Let a run be."""
        return None

    def take_server_away(self, _: dict[str, Node]) -> str | None:
        """Kill the server and start it again after a while."""
        if self._server is None:
            return None
        self._server.kill()
        time.sleep(self._arguments.away_s)
        self._server.start()
        return f"the server was away for {self._arguments.away_s:.0f} s"

    def kill_node(self, nodes: dict[str, Node]) -> str | None:
        """Kill the second node while it works."""
        working = nodes["second"].working()
        titles = [process.cmdline()[0] for process in working if process.is_running()]
        if not titles:
            return None
        nodes.pop("second").kill()
        return f"killed the node of {', '.join(titles)}"


def main() -> int:
    """Run all; 0 when the tables agree and each harm was done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", type=Path, default=Path("../shared/real"))
    parser.add_argument("--profile", default="permissive")
    parser.add_argument("--generated", type=int, default=4)
    parser.add_argument("--real-files", type=int, default=8)
    parser.add_argument("--store", action="store_true", help="All lies on an S3 server")
    parser.add_argument("--away-s", type=float, default=60.0, help="How long that is away")
    parser.add_argument("--work", type=Path, required=True, help="A folder that does not exist")
    parser.add_argument("--out", type=Path, default=Path("two_nodes.json"))
    arguments = parser.parse_args()
    if arguments.store and not can_hide():
        parser.error("--store needs root, for mount namespaces")
    arguments.work.mkdir(parents=True)
    out = arguments.out.absolute()
    experiment = Experiment(arguments)
    report: dict[str, Any] = {"command": " ".join(sys.argv)}
    hidden = [arguments.work.absolute()] if arguments.store else []
    with experiment.store():
        report["one"] = experiment.run("one")
        with LoneNodes(arguments.work.absolute() / "ray", hidden) as cluster:
            nodes = {name: cluster.add(_CPUS_OF_A_NODE) for name in ("first", "second")}
            plan = {"two": experiment.no_harm, "two_one_killed": experiment.kill_node}
            if arguments.store:
                plan["two_store_away"] = experiment.take_server_away
            for name in sorted(plan, key=["two", "two_store_away", "two_one_killed"].index):
                report[name] = experiment.run(name, Watch(nodes, plan[name]), cluster)
                write_json_atomic(out, report)
        report["rows"] = count_rows(arguments.work / "one/dataset")
    write_json_atomic(out, report)
    print(json_text(report, indent=2))
    runs = [report[name] for name in plan]
    is_spread = min(report["two"]["seen_at_work"].get(name, 0) for name in ("first", "second")) > 0
    is_equal = not any(run["problems"] for run in [report["one"], *runs])
    is_harmed = all(report[name]["harm"] for name in plan if name != "two")
    return 0 if is_spread and is_equal and is_harmed else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the cluster ends with us
    sys.exit(main())
