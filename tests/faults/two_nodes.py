"""Curate on a Ray cluster of two local nodes, once undisturbed and once with a node killed.

    python -m tests.faults.two_nodes --real ../shared/real --work /tmp/two-nodes --out report.json

Both nodes are real (a raylet, an object store and workers of their own) and have a working folder
and an environment that differ from the driver's, so that a file reached by a relative path or a
setting that only the driver has would show. Neither has room for all workers. The tables must equal
those of a private session on one node, row for row, in both runs.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from animaray.platform.json_text import json_text
from animaray.platform.storage import write_json_atomic
from tests.faults.chaos import REAL_FILES, make_inputs
from tests.faults.dataset_difference import count_rows, describe_differences, find_left_overs

_CPUS_OF_A_NODE = 1
_NUM_WORKERS = 3
"""Each holds half a CPU, so they need two nodes."""


@contextmanager
def two_nodes(folder: Path) -> Iterator[tuple[str, Any, Any]]:
    """Yield the address of a cluster, the cluster, and the node that may die."""
    # Set before Ray is imported: a cluster file of our own, which no other session can find.
    os.environ |= {"RAY_TMPDIR": str(folder), "RAY_AUTH_MODE": "disabled"}
    os.environ.pop("ANIMARAY_WEIGHTS", None)
    os.chdir("/")
    from ray.cluster_utils import Cluster

    options = {"num_cpus": _CPUS_OF_A_NODE, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=options)
    try:
        yield cluster.address, cluster, cluster.add_node(num_cpus=_CPUS_OF_A_NODE)
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call] # Ray's own


def curate(
    folder: Path, videos: Path, profile: str, environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    """Start `animaray curate` in a folder of its own."""
    folder.mkdir()
    # A relative path, seen from the driver's folder.
    command = [
        str(Path(sys.executable).parent / "animaray"), "curate", "run",
        os.path.relpath(videos, folder), "--out", "dataset", "--profile", profile,
        "--set", "sources_per_commit=1", "--set", "store_media=all",
        "--set", f"num_workers={_NUM_WORKERS}",
    ]  # fmt: skip
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(  # noqa: S603 - our own command
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )


def workers_of(node: Any) -> list[psutil.Process]:
    """Return the processes of a node that work on curation."""
    found: list[psutil.Process] = []
    for infos in node.all_processes.values():
        for info in infos:
            with suppress(psutil.Error):
                found += psutil.Process(info.process.pid).children(recursive=True)
    names = ("ray::Map", "ray::FlatMap", "ray::Measure", "ray::_MapWorker", "ray::MapWorker")
    working = []
    for process in found:
        with suppress(psutil.Error):
            if " ".join(process.cmdline()).startswith(names):
                working.append(process)
    return working


def watch(
    process: subprocess.Popen[bytes],
    cluster: Any,
    victim: Any,
    *,
    kill: bool,
) -> dict[str, Any]:
    """Wait for the driver; kill a node while it works, once the dataset has a commit.

    Returns:
        How often each node was seen at work, and what was killed.
    """
    seen: Counter[str] = Counter()
    killed: list[str] = []
    nodes = {"head": cluster.head_node, "second": victim}
    cwd = Path(f"/proc/{process.pid}/cwd").readlink()
    while process.poll() is None:
        for name, node in nodes.items():
            seen[name] += bool(workers_of(node))
        working = workers_of(victim) if kill and not killed else []
        commits = list(cwd.glob("dataset/_commits/*.json"))
        if working and len(commits) >= 2:
            killed = [worker.cmdline()[0] for worker in working]
            cluster.remove_node(nodes.pop("second"), allow_graceful=False)
        time.sleep(0.2)
    return {"exit_code": process.returncode, "seen_at_work": dict(seen), "killed": killed}


def main() -> int:
    """Run all three; 0 when the tables agree."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", type=Path, default=Path("../shared/real"))
    parser.add_argument("--profile", default="permissive")
    parser.add_argument("--generated", type=int, default=4)
    parser.add_argument("--real-files", type=int, default=8)
    parser.add_argument("--work", type=Path, required=True, help="A folder that does not exist")
    parser.add_argument("--out", type=Path, default=Path("two_nodes.json"))
    arguments = parser.parse_args()
    work, out = arguments.work.absolute(), arguments.out.absolute()
    work.mkdir(parents=True)
    environment = dict(os.environ)
    if arguments.profile == "permissive":
        environment["ANIMARAY_WEIGHTS"] = str((arguments.real / "weights").absolute())
    videos, quiet = work / "videos", work / "one/dataset"
    make_inputs(
        videos,
        arguments.real.absolute(),
        arguments.generated,
        names=REAL_FILES[: arguments.real_files],
    )
    one = curate(work / "one", videos, arguments.profile, environment)
    report: dict[str, Any] = {"command": " ".join(sys.argv), "one": {"exit_code": one.wait()}}
    (work / "ray").mkdir()
    with two_nodes(work / "ray") as (address, cluster, second):
        joined = {**environment, "RAY_ADDRESS": address, "RAY_AUTH_MODE": "disabled"}
        for name, kill in (("two", False), ("two_one_killed", True)):
            started = time.monotonic()
            process = curate(work / name, videos, arguments.profile, joined)
            try:
                report[name] = watch(process, cluster, second, kill=kill)
            finally:
                process.kill()
            report[name]["seconds"] = round(time.monotonic() - started, 1)
            dataset = work / name / "dataset"
            report[name]["problems"] = [
                *describe_differences(quiet, dataset), *find_left_overs(dataset),
            ]  # fmt: skip
            write_json_atomic(out, report)
    report["rows"] = count_rows(quiet)
    write_json_atomic(out, report)
    print(json_text(report, indent=2))
    is_spread = min(report["two"]["seen_at_work"].values()) > 0
    is_equal = not report["two"]["problems"] and not report["two_one_killed"]["problems"]
    return 0 if is_spread and is_equal and report["two_one_killed"]["killed"] else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the cluster ends with us
    sys.exit(main())
