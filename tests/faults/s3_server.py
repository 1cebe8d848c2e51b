"""A real S3 server (SeaweedFS) on this machine's loopback, that can be killed and started again."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

_PATIENCE_S = 120.0
_REQUESTS = re.compile(
    r'^SeaweedFS_s3_request_total\{[^}]*type="(\w+)"[^}]*\} (\S+)$', re.MULTILINE
)
_DEVIATION = 10_000
"""SeaweedFS speaks gRPC on each port plus this."""


class S3Server:
    """One server with one folder; `kill` and `start` it as often as wanted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._ports = [free_port() for _ in range(5)]
        self._process: subprocess.Popen[bytes] | None = None
        self.endpoint = f"http://127.0.0.1:{self._ports[3]}"

    @property
    def environment(self) -> dict[str, str]:
        """Return what a program needs to find the server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "any",
            "AWS_REGION": "us-east-1",
        }

    def start(self) -> None:
        """Start the server and wait until it answers."""
        master, volume, filer, s3, metrics = self._ports
        command = [
            str(Path(sys.executable).parent / "weed"), "server", "-s3", f"-dir={self._folder}",
            "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-master.port={master}",
            f"-volume.port={volume}", f"-filer.port={filer}", f"-s3.port={s3}",
            "-volume.max=100", "-master.volumeSizeLimitMB=64",
            f"-metricsPort={metrics}", "-s3.port.iceberg=0", "-s3.port.lance=0",
        ]  # fmt: skip
        # With keys in its environment it would ask for them.
        environment = {n: v for n, v in os.environ.items() if not n.startswith("AWS_")}
        with (self._folder / "log.txt").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=self._folder, env=environment, start_new_session=True,
            )  # fmt: skip
        self._wait()

    def make_bucket(self, name: str) -> str:
        """Make a bucket; return its address."""
        deadline = time.monotonic() + _PATIENCE_S
        request = urllib.request.Request(f"{self.endpoint}/{name}", method="PUT")  # noqa: S310
        while True:
            try:
                urllib.request.urlopen(request, timeout=10).close()  # noqa: S310 - loopback
            except urllib.error.HTTPError as error:
                if error.code == 409:  # it is there already
                    break
                if time.monotonic() > deadline:
                    raise
            else:
                break
            time.sleep(0.2)
        return f"s3://{name}"

    def count_requests(self) -> dict[str, int]:
        """Return how many requests of each kind the server has answered since it was started."""
        url = f"http://127.0.0.1:{self._ports[4]}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read().decode()
        counts: Counter[str] = Counter()
        for kind, number in _REQUESTS.findall(text):
            counts[kind] += int(float(number))
        return dict(counts)

    def kill(self) -> None:
        """End the server as a power cut of its machine would end the process."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _wait(self) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            if self._process is not None and self._process.poll() is not None:
                break
            try:
                urllib.request.urlopen(f"{self.endpoint}/status", timeout=5).close()  # noqa: S310
            except urllib.error.HTTPError:
                return
            except OSError:
                time.sleep(0.2)
            else:
                return
        self.kill()
        raise RuntimeError(f"The S3 server did not start: see {self._folder / 'log.txt'}.")


def free_port() -> int:
    """Return a port that is free, with the one that SeaweedFS derives from it."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
            if port + _DEVIATION > 65_535:
                continue
            try:
                other.bind(("127.0.0.1", port + _DEVIATION))
            except OSError:
                continue
            return port
