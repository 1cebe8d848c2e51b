"""Fixtures shared by all tests: seeds, the real media, one local Ray session."""

import os
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


def _shared_folder(variable: str, name: str) -> Path:
    folder = Path(os.environ.get(variable, ROOT.parent / "shared" / name))
    if not folder.is_dir():
        pytest.skip(f"{name} data is absent: set {variable} to its folder (looked in {folder})")
    return folder


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
def real_data() -> Path:
    """Return the folder of real videos, photographs and annotations, or skip."""
    return _shared_folder("ANIMARAY_REAL_DATA", "real")


@pytest.fixture(scope="session")
def golden_data() -> Path:
    """Return the folder of tensors made by the authors' modules, or skip."""
    return _shared_folder("ANIMARAY_GOLDEN", "golden")


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """Yield with one private Ray session for the whole test run."""
    from animaray.platform.ray_session import ray_session

    with ray_session(num_cpus=4):
        yield
