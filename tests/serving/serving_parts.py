"""What the serving tests share: a clock, job requests, a PostgreSQL server of their own."""

import getpass
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from animaray.serving.http.app import make_app
from animaray.serving.http.service import AnimationService
from animaray.serving.http.tenants import Tenants
from animaray.serving.jobs.database import Job
from animaray.serving.jobs.files import JobFiles
from animaray.serving.jobs.limits import ServingLimits
from animaray.serving.jobs.store import JobStore


class Clock:
    """Unix time that only moves when a test moves it."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def job_request(**changes: Any) -> Job:
    job_id = secrets.token_hex(16)
    values: dict[str, Any] = {
        "job_id": job_id,
        "tenant": "public",
        "fingerprint": "f" * 64,
        "options": {"seed": 7},
        "picture_name": f"uploads/{job_id}/reference_image",
        "video_name": f"uploads/{job_id}/driving_video",
        "idempotency_key": None,
    }
    return Job(**{**values, **changes})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def postgres_url(folder: Path) -> Iterator[str]:
    """Run a PostgreSQL server of our own on a loopback port, or skip when it is not installed."""
    pytest.importorskip("psycopg", reason="psycopg is not installed (extra `postgres`)")
    initdb, postgres = shutil.which("initdb"), shutil.which("postgres")
    if initdb is None or postgres is None:
        pytest.skip("PostgreSQL is not installed")
    is_root = os.getuid() == 0
    account: str | None = None
    if is_root:  # PostgreSQL refuses to run as root
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL cannot run as root, and there is no user `postgres`")
        account = "postgres"
        for parent in [folder, *folder.parents]:
            if parent == Path("/tmp"):  # noqa: S108 - where pytest keeps its folders
                break
            parent.chmod(0o755)
        shutil.chown(folder, account)
    data, port = folder / "data", free_port()
    user = account or getpass.getuser()
    subprocess.run(  # noqa: S603 - found on PATH
        [initdb, "-D", str(data), "-U", user, "--auth=trust", "--no-sync"],
        user=account, check=True, capture_output=True, cwd=folder,
    )  # fmt: skip
    server = subprocess.Popen(  # noqa: S603 - found on PATH
        [postgres, "-D", str(data), "-p", str(port), "-c", "listen_addresses=127.0.0.1",
         "-c", f"unix_socket_directories={folder}", "-c", "shared_buffers=16MB"],
        user=account, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder,
    )  # fmt: skip
    try:
        url = f"postgresql+psycopg://{user}@127.0.0.1:{port}/postgres"
        _await_answer(url, server)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=20)


def _await_answer(url: str, server: subprocess.Popen[bytes]) -> None:
    import psycopg  # an optional driver: only where the fixture did not skip

    deadline = time.monotonic() + 60
    while True:
        assert server.poll() is None, "PostgreSQL ended at once"
        try:
            psycopg.connect(url.replace("+psycopg", ""), connect_timeout=5).close()
        except psycopg.OperationalError:  # not listening yet, or still starting up
            assert time.monotonic() < deadline, "PostgreSQL did not start"
            time.sleep(0.1)
        else:
            return


@dataclass
class Server:
    """The HTTP face on a real socket, and what lies behind it."""

    url: str
    service: AnimationService
    store: JobStore
    files: JobFiles


@contextmanager
def run_app(
    data_dir: Path,
    limits: ServingLimits,
    digests: dict[str, str] | None = None,
    port: int | None = None,
    allowed_hosts: tuple[str, ...] = (),
) -> Iterator[Server]:
    """Serve the application from a thread until the block ends."""
    store = JobStore(f"sqlite:///{data_dir}/jobs.sqlite")
    files = JobFiles(data_dir)
    service = AnimationService(store, files, limits, Tenants(digests), worker_timeout_s=10.0)
    port = port or free_port()
    config = uvicorn.Config(
        make_app(service, allowed_hosts=allowed_hosts),
        host="127.0.0.1",
        port=port,
        log_level="error",
        ws="none",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield Server(f"http://127.0.0.1:{port}", service, store, files)
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        store.close()


def upload_files() -> dict[str, Any]:
    """Return files that look right to the ingress, which does not decode."""
    return {
        "reference_image": ("me.jpg", b"\xff\xd8\xff\xe0" + bytes(500), "image/jpeg"),
        "driving_video": ("dance.mp4", b"\x00\x00\x00\x18ftypisom" + bytes(900), "video/mp4"),
    }
