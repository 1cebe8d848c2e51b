"""Run a module of ours as a child process that is bounded, for work that needs the network.

The parent bounds time and environment and takes one JSON answer; the child confines itself to one
folder before it touches anything foreign. What needs no network goes through `fork_server`.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from animaray.platform.errors import ServiceError
from animaray.platform.json_text import json_text
from animaray.platform.sandbox.confinement import (
    allow_only,
    die_with_parent,
    forbid_system_calls,
    limit_resources,
)

_TAIL_CHARS = 400
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt", "/nix/store")
_NAMES_AND_CERTIFICATES = (
    "/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/etc/resolv.conf", "/etc/hosts",
    "/etc/host.conf", "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/services", "/etc/protocols",
    "/etc/passwd", "/etc/localtime", "/etc/timezone", "/etc/mime.types", "/etc/ld.so.cache",
    "/etc/alternatives", "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat",
    "/dev/urandom", "/dev/random",
)  # fmt: skip


def child_environment(**more: str) -> dict[str, str]:
    """Return what a child needs: our modules, wherever this process found them, and what is named.

    Nothing else of this process's environment reaches it.
    """
    return {
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        **more,
    }


async def run_bounded_child(
    module: str,
    what: str,
    request: dict[str, Any],
    folder: Path,
    timeout_s: float,
    **environment: str,
) -> dict[str, Any]:
    """Run a module whose main program calls `answer_request`; return its answer.

    Args:
        module: Name of the module.
        what: What messages call it.
        request: JSON values for it.
        folder: Where it works; what it prints is in `log.txt` there.
        timeout_s: It is killed with all its children after so many seconds.
        **environment: Variables, beside those of `child_environment`.

    Raises:
        ServiceError: It died (reason "crash") or took too long (reason "timeout").
    """
    result, log = folder / "result.json", folder / "log.txt"
    result.unlink(missing_ok=True)
    with log.open("wb") as sink:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", module,
            stdin=asyncio.subprocess.PIPE, stdout=sink, stderr=sink, cwd=folder,
            env=child_environment(TMPDIR=str(folder.absolute()), **environment),
            start_new_session=True,
        )  # fmt: skip
    try:
        async with asyncio.timeout(timeout_s):
            await process.communicate(json_text(request).encode())
    except TimeoutError as error:
        message = f"{what} took longer than {timeout_s:g} s and was killed."
        raise ServiceError(message, reason="timeout") from error
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    if result.is_file():
        answer: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return answer
    tail = log.read_text(encoding="utf-8", errors="replace")[-_TAIL_CHARS:]
    raise ServiceError(
        f"{what} died (exit code {process.returncode}): {tail}".strip(), reason="crash"
    )


def answer_request(handler: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Serve one request from standard input; the answer is complete or absent. For the child."""
    die_with_parent(signal.SIGKILL)
    answer = handler(json.loads(sys.stdin.buffer.read()))
    temporary = Path("result.tmp")
    temporary.write_text(json_text(answer), encoding="utf-8")
    temporary.rename("result.json")


def confine_to_folder(
    folder: Path,
    *,
    memory_bytes: int,
    cpu_s: float,
    written_bytes: int,
    reading: Iterable[Path] = (),
    programs: Iterable[str] = (),
) -> None:
    """Take away from this process what a downloader does not need, as far as the kernel allows.

    Left are: reading and writing in one folder, reading Python, the system's libraries and
    certificates, outgoing connections and some programs.

    Args:
        memory_bytes: Address space.
        cpu_s: Processor time.
        written_bytes: Size of the largest file that may be written.
        reading: Further files and folders that may be read.
        programs: Files outside the system's folders that may be run.
    """
    limit_resources(
        memory_bytes=memory_bytes, cpu_s=cpu_s, max_open_files=256, written_bytes=written_bytes
    )
    system = [Path(name) for name in (*_SYSTEM, sys.prefix, sys.base_prefix)]
    allow_only(
        reading=[
            *(Path(name) for name in (*_NAMES_AND_CERTIFICATES, *sys.path) if name),
            *system,
            *reading,
        ],
        writing=[folder, Path("/dev/null")],
        running=[*system, *(Path(name) for name in programs)],
        is_online=True,
    )
    forbid_system_calls(is_online=True)
