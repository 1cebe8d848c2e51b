"""Find out what this machine can do, and for each gap the command that closes it."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from animaray.platform.errors import MemoryNeedError
from animaray.platform.packages import (
    Finding,
    Installation,
    declared_packages,
    has_module,
    inspect_packages,
    installed_packages,
    this_installation,
)

MIN_MEMORY_BYTES = 6 * 1024**3
MIN_DISK_BYTES = 5 * 1024**3


def inspect_machine() -> list[Finding]:
    """Return findings about Python, memory, disk, packages and accelerators."""
    installed, how = installed_packages(), this_installation()
    gpu = _gpu(installed, how)
    packages = inspect_packages(
        declared_packages(),
        installed,
        how,
        has_gpu=gpu[0].state == "ok",
        has_runtime=has_module("onnxruntime"),
    )
    return [_python(), _memory(), _disk(), *packages, *gpu, _real_data()]


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
    good = (3, 11) <= sys.version_info[:2] < (3, 14)
    fix = None if good else "Use Python 3.11, 3.12 or 3.13: make setup PYTHON=python3.11"
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


def _gpu(installed: Mapping[str, str], how: Installation) -> list[Finding]:
    """Look for an NVIDIA GPU, and whether the installed torch can use it."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return [_no_gpu("none found (there is no nvidia-smi)", installed, how)]
    query = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        answer = subprocess.run(  # noqa: S603 - fixed arguments
            query,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        return [_no_gpu("none found (nvidia-smi does not answer)", installed, how)]
    names = "; ".join(answer.stdout.strip().splitlines())
    if answer.returncode != 0 or not names:
        said = " ".join((answer.stderr or answer.stdout).split())
        return [_no_gpu(f"none found (nvidia-smi: {said or answer.returncode})", installed, how)]
    findings = [Finding(subject="GPU", state="ok", detail=names)]
    torch = installed.get("torch", "")
    if torch.endswith("+cpu"):
        fix = how.setup(accel="gpu") if how.checkout else how.install("--force-reinstall", "torch")
        detail = f"{torch} is a build for the CPU only"
        findings.append(Finding(subject="torch on GPU", state="optional", detail=detail, fix=fix))
    return findings


def _no_gpu(what: str, installed: Mapping[str, str], how: Installation) -> Finding:
    """Say that there is no GPU, and what that means for what is installed."""
    if "onnxruntime-gpu" in installed:
        detail = f"{what}: what was installed for a GPU works on the CPU, slowly"
        fix = "on a machine with an NVIDIA GPU: install its driver, then `nvidia-smi` lists the GPU"
    else:
        detail = f"{what}: the generated world and small models run on the CPU"
        more = how.setup(accel="gpu") if how.checkout else "the packages of animaray[gpu]"
        fix = f"full-size training and serving need an NVIDIA GPU and {more}"
    return Finding(subject="GPU", state="optional", detail=detail, fix=fix)


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
