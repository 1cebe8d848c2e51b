"""Say what Ray itself costs in a curation: CPU seconds by kind of process, and inside the workers.

    ANIMARAY_WEIGHTS=../shared/real/weights python -m benchmarks.scale.ray_share \
        --work /tmp/ray-share -- ../shared/real/videos --profile permissive

Everything after `--` is handed to `animaray curate run`. Each process of the tree is asked for its
CPU seconds four times a second and counted under what it was doing then: the driver, decoders,
each stage of the chain by Ray's name of it, Ray's daemons. With `--inside` py-spy
(`uv pip install py-spy`) looks into driver and workers, too, and says what share of their time lies
in Ray's own code, with no line of ours above it (threads that wait left out). Exits 1 when any part
of Ray takes more than a tenth.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

from animaray.platform.json_text import json_text

LIMIT = 0.1
_INTERVAL_S = 0.25
_DAEMONS = {
    "gcs_server": "ray: gcs", "raylet/raylet": "ray: raylet", "dashboard": "ray: agents",
    "runtime_env": "ray: agents", "log_monitor": "ray: agents", "monitor.py": "ray: agents",
    "ray::DashboardAgent": "ray: agents", "ray::RuntimeEnvAgent": "ray: agents",
    "ray::_": "ray: helper actors", "ray::Autoscal": "ray: helper actors",
    "ray::ActorLocation": "ray: helper actors",
}  # fmt: skip
"""What a command line holds, and what it is then; `ray::_MapWorker` is a stage all the same."""
_FOLDERS = ("pipelines", "models", "datasets", "platform", "cli")
_WAITING = (
    "Worker.main_loop ", "wait (threading.py", "select (selectors.py", "get (queue.py",
    "_worker (concurrent/futures/thread.py", "accept (socket.py",
)  # fmt: skip
"""Last frames of a thread that only waits: py-spy often takes it for a working one."""
_FILE = re.compile(r"\((\S+\.py):\d+\)$")
_SPLIT = re.compile(r';(?=(?:[^"]*"[^"]*")*[^"]*$)')


def main() -> int:
    """Print one JSON object; 1 when a part of Ray takes more than a tenth."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--inside", action="store_true", help="look into the workers by py-spy")
    parser.add_argument("curate", nargs="+", help="After --: sources and options of curate")
    arguments = parser.parse_args()
    shutil.rmtree(arguments.work, ignore_errors=True)
    arguments.work.mkdir(parents=True)
    curate = [
        str(Path(sys.executable).parent / "animaray"), "curate", "run", *arguments.curate,
        "--out", str(arguments.work / "dataset"),
    ]  # fmt: skip
    seconds = cpu_by_kind(curate, arguments.work / "log.txt")
    total = sum(seconds.values())
    found: dict[str, Any] = {
        "cpu_s": round(total, 1),
        "share_by_kind": {kind: round(s / total, 4) for kind, s in seconds.most_common()},
    }
    parts = {kind: s / total for kind, s in seconds.items() if kind.startswith("ray: ")}
    if arguments.inside:
        inside = share_inside(curate, arguments.work)
        found["in Ray's own code, share of a process's samples"] = inside
        workers = sum(s for kind, s in seconds.items() if kind.startswith("stage "))
        parts["ray: inside workers"] = inside["workers"] * workers / total
        parts["ray: inside the driver"] = inside["driver"] * seconds["driver"] / total
    found["ray_parts"] = {name: round(share, 4) for name, share in parts.items()}
    found["ray_in_all"] = round(sum(parts.values()), 4)
    print(json_text(found, indent=1))
    return int(max(parts.values(), default=0.0) > LIMIT)


def cpu_by_kind(command: list[str], log: Path) -> Counter[str]:
    """Run a command; return the CPU seconds of its tree by what each process was doing.

    Raises:
        SystemExit: It failed.
    """
    seconds: Counter[str] = Counter()
    spent: dict[int, float] = {}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("ab") as opened:
        process = psutil.Popen(  # our own command
            command, env=environment, stdin=subprocess.DEVNULL, stdout=opened, stderr=opened
        )
    while process.poll() is None:
        for each in _tree(process):
            try:
                now = sum(each.cpu_times()[:2])
                kind = kind_of(each.cmdline(), is_root=each.pid == process.pid)
            except psutil.Error:
                continue
            seconds[kind] += now - spent.get(each.pid, 0.0)
            spent[each.pid] = now
        time.sleep(_INTERVAL_S)
    if process.returncode not in {0, 3}:
        raise SystemExit(f"curate ended with {process.returncode}: {log}")
    return seconds


def _tree(process: Any) -> Iterable[psutil.Process]:  # noqa: ANN401 - psutil.Popen has no types
    try:
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def kind_of(command: list[str], *, is_root: bool) -> str:
    """Return what a process of a curation is."""
    text = " ".join(command)
    if is_root:
        return "driver"
    if "decoder_child" in text:
        return "decoder"
    if text.startswith(("ray::_MapWorker", "ray::MapWorker")):
        return f"stage {text.removeprefix('ray::').strip().split('.')[0]}"
    for part, kind in _DAEMONS.items():
        if part in text:
            return kind
    if text.startswith("ray::"):
        name = text.removeprefix("ray::").strip().split(".")[0]
        return f"stage {name}" if name != "IDLE" else "ray: idle or starting workers"
    if "default_worker" in text or "setup_worker" in text:
        return "ray: idle or starting workers"
    return "other"


def share_inside(command: list[str], work: Path) -> dict[str, float]:
    """Run the command anew under py-spy; return the share of Ray's own code in each group.

    Raises:
        SystemExit: It failed, or py-spy is not there.
    """
    spy = Path(sys.executable).parent / "py-spy"
    if not spy.exists():
        raise SystemExit("--inside needs py-spy: uv pip install py-spy")
    raw = work / "stacks.txt"
    shutil.rmtree(work / "dataset", ignore_errors=True)
    options = ["record", "--subprocesses", "--format", "raw", "--rate", "25", "--output", str(raw)]
    done = subprocess.run(  # noqa: S603 - our own command
        [str(spy), *options, "--", *command], stdin=subprocess.DEVNULL, capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    if not raw.exists():
        raise SystemExit(f"py-spy failed: {done.stderr.decode(errors='replace')[-500:]}")
    return share_of_stacks(raw)


def share_of_stacks(raw: Path) -> dict[str, float]:
    """Return the share of Ray's own code in what py-spy saw of driver and workers."""
    counts: dict[str, Counter[bool]] = {"driver": Counter(), "workers": Counter()}
    ours = {path.name for folder in _FOLDERS for path in Path(folder).rglob("*.py")}
    for line in raw.read_text().splitlines():
        stack, _, number = line.rpartition(" ")
        parts = _SPLIT.split(stack)
        processes = [part for part in parts if part.startswith("process ")]
        frames = [part for part in parts if not part.startswith("process ")]
        is_driver, is_worker = len(processes) == 1, '"ray::Map' in processes[-1]
        if not frames or not (is_driver or is_worker) or any(w in frames[-1] for w in _WAITING):
            continue
        files = {found[1] for frame in frames[1:] if (found := _FILE.search(frame))}
        counts["driver" if is_driver else "workers"][bool(files & ours)] += int(number)
    return {name: round(count[False] / max(1, count.total()), 4) for name, count in counts.items()}


if __name__ == "__main__":
    sys.exit(main())
