"""Run a command and account for its whole tree of processes: CPU seconds and memory.

Read from /proc, so that it needs nothing installed. A process that ended is counted by the parent
that waited for it; a whole branch that was killed at once is counted as it was last seen.
"""

import itertools
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, kw_only=True, slots=True)
class TreeUse:
    """What a command and everything that it started used."""

    exit_code: int
    output: str
    """What the command itself printed to stdout."""
    wall_s: float
    cpu_s: float
    """Of all processes, user and system."""
    peak_mib: float
    """Largest sum of private memory of all processes at a time."""
    peak_root_mib: float
    """Largest resident memory of the command's own process."""
    child_mib: tuple[float, ...]
    """Largest resident memory of any other process of the tree, in each tenth of the run."""
    others_cpu_share: float
    """Share of the machine's CPU time meanwhile that other programs used."""


def run_measured(
    command: Sequence[str], environment: Mapping[str, str], *, interval_s: float = 0.25
) -> TreeUse:
    """Run a command to its end and sample its tree."""
    started, busy_before = time.monotonic(), _machine_busy_s()
    process = subprocess.Popen(  # noqa: S603 - the benchmark's own command
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True
    )
    cpu_s, peak, peak_root = 0.0, 0, 0
    assert process.stdout is not None  # noqa: S101 - asked for above
    os.set_blocking(process.stdout.fileno(), False)
    output = b""
    largest_child: list[int] = []
    while process.poll() is None:
        tree = _descendants(process.pid)
        # The sum may shrink when a branch is killed and nobody waited for it.
        cpu_s = max(cpu_s, sum(entry.cpu_s for entry in tree))
        peak = max(peak, sum(_private_bytes(entry.pid) for entry in tree))
        peak_root = max(peak_root, _resident_bytes(process.pid))
        children = (_resident_bytes(entry.pid) for entry in tree if entry.pid != process.pid)
        largest_child.append(max(children, default=0))
        output += _read_all(process.stdout.fileno())
        time.sleep(interval_s)
    output += _read_all(process.stdout.fileno())
    wall_s = time.monotonic() - started
    cores = len(os.sched_getaffinity(0))
    busy_s = _machine_busy_s() - busy_before
    return TreeUse(
        exit_code=process.returncode,
        output=output.decode(errors="replace"),
        wall_s=wall_s,
        cpu_s=cpu_s,
        peak_mib=peak / 2**20,
        peak_root_mib=peak_root / 2**20,
        child_mib=tuple(max(part, default=0) / 2**20 for part in _tenths(largest_child)),
        others_cpu_share=max(0.0, busy_s - cpu_s) / (wall_s * cores),
    )


def _tenths(values: Sequence[int]) -> list[Sequence[int]]:
    edges = [round(len(values) * part / 10) for part in range(11)]
    return [values[first:last] for first, last in itertools.pairwise(edges)]


@dataclass(frozen=True, slots=True)
class _Entry:
    pid: int
    parent: int
    cpu_s: float


def _descendants(root: int) -> list[_Entry]:
    entries = {entry.pid: entry for entry in _all_processes()}
    children: dict[int, list[_Entry]] = {}
    for entry in entries.values():
        children.setdefault(entry.parent, []).append(entry)
    found, queue = [], [root]
    while queue:
        pid = queue.pop()
        if pid in entries:
            found.append(entries[pid])
        queue += [child.pid for child in children.get(pid, [])]
    return found


def _all_processes() -> list[_Entry]:
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        # utime, stime, and those of children that were waited for.
        ticks = sum(int(field) for field in fields[11:15])
        found.append(_Entry(int(folder.name), int(fields[1]), ticks / _TICKS))
    return found


def _private_bytes(pid: int) -> int:
    """Return resident memory that is not shared: shared pages would count once per process."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return 0
    return (int(fields[1]) - int(fields[2])) * _PAGE_BYTES


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0


def _machine_busy_s() -> float:
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, irq, softirq = (int(field) for field in fields[:7])
    return (user + nice + system + irq + softirq) / _TICKS


def _read_all(descriptor: int) -> bytes:
    data = b""
    while True:
        try:
            block = os.read(descriptor, 65536)
        except BlockingIOError:
            return data
        if not block:
            return data
        data += block
