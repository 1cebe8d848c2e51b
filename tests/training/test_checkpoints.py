from pathlib import Path

import pytest

from animaray.platform.errors import RunError
from animaray.platform.storage import read_json, sha256_file
from animaray.training.checkpoints import (
    MANIFEST,
    clear_temporary,
    commit_checkpoint,
    latest_checkpoint,
    prune_checkpoints,
    temporary_folder,
)


def _write(folder: Path, step: int, text: str = "weights") -> None:
    temporary = temporary_folder(folder, step)
    temporary.mkdir(parents=True)
    (temporary / "state.pt").write_text(text)
    commit_checkpoint(folder, step, world_size=2, strategy="ddp")


def test_a_committed_checkpoint_lists_its_files_with_hashes(tmp_path: Path) -> None:
    _write(tmp_path, 10)
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert (found.step, found.world_size, found.strategy) == (10, 2, "ddp")
    entry = read_json(found.path / MANIFEST)["files"]["state.pt"]
    assert entry == {"size_bytes": 7, "sha256": sha256_file(found.path / "state.pt")}


def test_unfinished_checkpoints_do_not_exist(tmp_path: Path) -> None:
    _write(tmp_path, 10)
    temporary_folder(tmp_path, 20).mkdir()
    (tmp_path / "step-00000030").mkdir()  # renamed, but its manifest never reached the disk
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 10
    clear_temporary(tmp_path)
    assert not temporary_folder(tmp_path, 20).exists()


def test_a_damaged_checkpoint_is_refused_and_named(tmp_path: Path) -> None:
    _write(tmp_path, 10)
    (tmp_path / "step-00000010" / "state.pt").write_text("x")
    with pytest.raises(RunError, match=r"is damaged: state.pt should have 7 bytes, found 1"):
        latest_checkpoint(tmp_path)


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        _write(tmp_path, step)
    prune_checkpoints(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000020", "step-00000030"]
    assert latest_checkpoint(tmp_path / "nothing") is None
