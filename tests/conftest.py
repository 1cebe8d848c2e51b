"""Fixtures shared by all tests: seeds, the real media, one local Ray session."""

import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("DS_ACCELERATOR", "cpu")

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


def _shared_folder(variable: str, name: str) -> Path:
    folder = Path(os.environ.get(variable, ROOT.parent / "shared" / name))
    if not folder.is_dir():
        pytest.skip(f"{name} data is absent: set {variable} to its folder (looked in {folder})")
    return folder


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
