"""A Ray cluster on this machine whose nodes share no folder: a head without CPUs, and workers.

Each node is a raylet with an object store and workers of its own. In a mount namespace of its own
(needs root) a node has an empty file system over /tmp, over /dev/shm and over every folder that is
hidden from it; in a process namespace of its own it dies at once, as a machine that loses its
power. All have another working folder and another environment than the driver.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from tests.faults.s3_server import free_port

_PATIENCE_S = 180.0
_KEPT = ("PATH", "HOME", "LANG", "OMP_NUM_THREADS")
"""What of our environment a node sees."""
_WORKING = (
    "ray::Map", "ray::FlatMap", "ray::Measure", "ray::_MapWorker", "ray::MapBatches", "ray::Write",
    "ray::ReadRange",
)  # fmt: skip
_OBJECT_STORE_BYTES = 200 * 1024**2


class Node:
    """One node of a cluster, as a process of ours with everything below it."""

    def __init__(self, command: list[str], log: Path, hidden: Sequence[Path]) -> None:
        mounts = [
            f"mkdir -p {folder} && mount -t tmpfs none {folder}"
            for folder in ("/tmp", "/dev/shm", *hidden)  # noqa: S108 - emptied, not used
        ]
        script = " && ".join([*mounts, "mkdir -p /tmp/node", "cd /", "exec " + " ".join(command)])
        apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        full = [*apart, "bash", "-c", script] if hidden else command
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        environment |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
        with log.open("ab") as opened:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                full, cwd="/", env=environment, stdin=subprocess.DEVNULL, stdout=opened,
                stderr=opened, start_new_session=True,
            )  # fmt: skip

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def processes(self) -> list[psutil.Process]:
        """Return everything that runs on the node."""
        with suppress(psutil.Error):
            return psutil.Process(self._process.pid).children(recursive=True)
        return []

    def working(self) -> list[psutil.Process]:
        """Return the processes that work on curation just now."""
        found = []
        for process in self.processes():
            with suppress(psutil.Error):
                if " ".join(process.cmdline()).startswith(_WORKING):
                    found.append(process)
        return found

    def kill(self) -> None:
        """End the node with all its processes, as a power cut would."""
        everything = self.processes()
        self._process.kill()
        for process in everything:
            with suppress(psutil.Error):
                process.kill()
        self._process.wait()


class LoneNodes:
    """A head, and as many workers as are added; use as a context."""

    def __init__(self, folder: Path, hidden: Sequence[Path]) -> None:
        """Plan a cluster.

        Args:
            folder: Of the head, where the driver lives, too.
            hidden: Folders that no worker sees; without any the nodes share all folders.
        """
        folder.mkdir()
        self._folder, self._hidden = folder, hidden
        self._port = free_port()
        self._nodes: list[Node] = []

    @property
    def address(self) -> str:
        """Return what RAY_ADDRESS is for a driver."""
        return f"127.0.0.1:{self._port}"

    def __enter__(self) -> "LoneNodes":
        """Start the head."""
        options = ["--head", f"--port={self._port}", "--num-cpus=0", "--include-dashboard=false"]
        self._start([*options, "--node-ip-address=127.0.0.1", f"--temp-dir={self._folder}"], ())
        return self

    def __exit__(self, *_: object) -> None:
        """End every node."""
        for node in self._nodes:
            node.kill()

    def add(self, num_cpus: int) -> Node:
        """Start a worker on an address of its own."""
        number = len(self._nodes) + 1
        folder = "/tmp/node" if self._hidden else f"{self._folder}-{number}"  # noqa: S108 - its own
        options = [f"--address={self.address}", f"--num-cpus={num_cpus}", f"--temp-dir={folder}"]
        return self._start([*options, f"--node-ip-address=127.0.0.{number}"], self._hidden)

    def _start(self, options: list[str], hidden: Sequence[Path]) -> Node:
        command = [
            str(Path(sys.executable).parent / "ray"), "start", "--block", "--disable-usage-stats",
            f"--object-store-memory={_OBJECT_STORE_BYTES}", *options,
        ]  # fmt: skip
        log = self._folder / f"node{len(self._nodes)}.txt"
        node = Node(command, log, hidden)
        self._nodes.append(node)
        deadline = time.monotonic() + _PATIENCE_S
        while "Ray runtime started" not in log.read_text():
            if time.monotonic() > deadline or not node.is_alive:
                node.kill()
                raise RuntimeError(f"A node did not start: {log}")
            time.sleep(0.5)
        return node


def can_hide() -> bool:
    """Return whether this machine gives us mount namespaces."""
    return os.getuid() == 0 and shutil.which("unshare") is not None
