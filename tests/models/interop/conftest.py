"""A whole published model in small: the authors' files, and a folder that diffusers wrote."""

import shutil
from types import SimpleNamespace

import pytest

from benchmarks.rehearsal.published_files import write_networks
from benchmarks.rehearsal.random_networks import NAMES, random_network
from benchmarks.rehearsal.sizes import SMALL


def write_published(networks, folder):
    write_networks(folder, lambda name: getattr(networks, name), SMALL)
    return folder


@pytest.fixture(scope="session")
def networks():
    """Return every network of a small published model, ready to compare with."""
    return SimpleNamespace(**{name: random_network(name, SMALL) for name in NAMES})


@pytest.fixture(scope="session")
def published(networks, tmp_path_factory):
    """Return the folder of its files; do not write to it."""
    return write_published(networks, tmp_path_factory.mktemp("published") / "source")


@pytest.fixture
def own_published(published, tmp_path):
    """Return a copy of its files that a test may spoil."""
    return shutil.copytree(published, tmp_path / "source")


@pytest.fixture(scope="session")
def weights_folder(published, tmp_path_factory):
    """Return the imported weights folder; do not write to it."""
    from animaray.models.interop.importing import ImportOptions, import_published

    out = tmp_path_factory.mktemp("imported") / "weights"
    import_published(published, out, ImportOptions(width_px=64, height_px=64))
    return out
