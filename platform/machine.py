"""Find out what this machine can do, and for each gap the command that closes it."""

import importlib.metadata
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from animaray.platform.errors import MemoryNeedError

MIN_MEMORY_BYTES = 6 * 1024**3
MIN_DISK_BYTES = 5 * 1024**3
PACKAGES = (
    "torch", "ray", "deepspeed", "diffusers", "onnxruntime", "onnxruntime-gpu", "av",
    "opencv-python-headless", "pyarrow", "cotracker", "onnx",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    state: str
    """"ok", "missing" or "optional"."""
    detail: str
    fix: str | None = None
    """The command that closes the gap, or None."""


def inspect_machine() -> list[Finding]:
    """Return findings about Python, packages, tools, memory, disk and accelerators."""
    findings = [_python(), _memory(), _disk(), *_packages(), _gpu(), _real_data()]
    return [finding for finding in findings if finding is not None]


def available_memory_bytes() -> int:
    """Return how much main memory this process may still take: the machine's, or its group's."""
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    for line in _text_of(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
    group = Path("/sys/fs/cgroup")
    limit, used = (_text_of(group / name) for name in ("memory.max", "memory.current"))
    if limit.strip().isdecimal() and used.strip().isdecimal():
        available = min(available, int(limit) - int(used))
    return max(0, available)


def check_memory(needed_bytes: int, available_bytes: int, *, what: str, remedy: str) -> None:
    """Refuse work that would not fit.

    Args:
        needed_bytes: Estimated peak.
        available_bytes: What is free.
        what: For the message, such as "This animation".
        remedy: What makes it smaller.

    Raises:
        MemoryNeedError: It needs more than is free.
    """
    if needed_bytes > available_bytes:
        needed, free = (value / 1024**3 for value in (needed_bytes, available_bytes))
        raise MemoryNeedError(
            f"{what} needs about {needed:.1f} GiB of memory, {free:.1f} GiB are free; nothing was"
            " started.",
            fix=remedy,
            reason="too_little_memory",
        )


def _text_of(path: Path) -> str:
    """Return a file's text, empty where there is none."""
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""


def find_free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port that is free on the host right now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    good = (3, 11) <= sys.version_info[:2] < (3, 13)
    fix = None if good else "Use Python 3.11: make setup PYTHON=python3.11"
    return Finding(subject="Python", state="ok" if good else "missing", detail=version, fix=fix)


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    good = total >= MIN_MEMORY_BYTES
    detail = f"{total / 1024**3:.1f} GiB, {os.cpu_count()} cores"
    fix = None if good else "6 GiB are needed for the demo; close other programs."
    return Finding(subject="Memory", state="ok" if good else "missing", detail=detail, fix=fix)


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    good = free >= MIN_DISK_BYTES
    fix = None if good else "5 GiB free are needed; see `animaray cache list`."
    detail = f"{free / 1024**3:.0f} GiB free in {Path.cwd()}"
    return Finding(subject="Disk", state="ok" if good else "missing", detail=detail, fix=fix)


def _packages() -> list[Finding]:
    fixes = {
        "onnxruntime-gpu": "make setup ACCEL=gpu",
        "cotracker": "pip install 'git+https://github.com/facebookresearch/co-tracker"
        "@82e02e8029753ad4ef13cf06be7f4fc5facdda4d' (CC-BY-NC, for the paper profile)",
        "onnx": "pip install -e '.[paper]' (to convert ArcFace's ONNX file, paper profile)",
    }
    findings = []
    for name in PACKAGES:
        try:
            version = importlib.metadata.version(name)
            findings.append(Finding(subject=name, state="ok", detail=version))
        except importlib.metadata.PackageNotFoundError:
            state = "optional" if name in fixes else "missing"
            fix = fixes.get(name, "make setup")
            findings.append(Finding(subject=name, state=state, detail="not installed", fix=fix))
    return findings


def _gpu() -> Finding:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Finding(
            subject="GPU",
            state="optional",
            detail="none: the generated world and small models run on the CPU",
            fix="full-size training and serving need an NVIDIA GPU and make setup ACCEL=gpu",
        )
    query = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False, timeout=20)  # noqa: S603 - fixed arguments
    names = "; ".join(answer.stdout.strip().splitlines()) or answer.stderr.strip()
    return Finding(subject="GPU", state="ok" if answer.returncode == 0 else "missing", detail=names)


def _real_data() -> Finding:
    folder = os.environ.get("ANIMARAY_WEIGHTS")
    if folder and Path(folder).is_dir():
        return Finding(subject="ANIMARAY_WEIGHTS", state="ok", detail=folder)
    return Finding(
        subject="ANIMARAY_WEIGHTS",
        state="optional",
        detail=f"not a folder: {folder}" if folder else "not set",
        fix="set it to a folder of weights for the permissive profile (`animaray weights list`)",
    )
