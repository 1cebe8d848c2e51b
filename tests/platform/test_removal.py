"""What is removed is ours by name; strangers' files, folders and links beside it stay."""

import ast
import logging
import re
from pathlib import Path

import pytest

from animaray.cli.demo.steps import _clear_videos
from animaray.datasets.vacuum import is_own_file
from animaray.pipelines.curation.workplace import clear_staging
from animaray.platform.errors import UsageError
from animaray.platform.removal import remove, remove_own
from animaray.training.checkpoints import (
    clear_temporary,
    commit_checkpoint,
    latest_checkpoint,
    prune_checkpoints,
    temporary_folder,
)

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (
    "platform", "models", "datasets", "pipelines", "training", "serving", "evaluation", "cli",
)  # fmt: skip


def put(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"mine")


def test_a_link_and_what_it_leads_to_stay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "animaray.removal")
    put(tmp_path / "theirs" / "thesis", tmp_path / "ours" / "a" / "b")
    (tmp_path / "ours" / "link").symlink_to(tmp_path / "theirs")
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    assert not remove(tmp_path / "link", "test")
    assert remove(tmp_path / "ours", "test")
    assert not remove(tmp_path / "ours", "test")
    assert (tmp_path / "theirs" / "thesis").exists()
    assert (tmp_path / "link").is_symlink()
    assert f"Removed {tmp_path / 'ours'}: test." in caplog.text
    assert remove_own(tmp_path / "link", re.compile(".*"), "test") == []


def test_staging_of_strangers_stays(tmp_path: Path) -> None:
    staging = tmp_path / "_staging"
    put(staging / "0123abcd" / "crashes" / "x", staging / "my folder" / "a.mp4", staging / "b.txt")
    (staging / "76543210").symlink_to(staging / "my folder")
    clear_staging(staging)
    assert {path.name for path in staging.iterdir()} == {"my folder", "b.txt", "76543210"}
    put(tmp_path / "other" / "_staging" / "0123abcd" / "x")
    clear_staging(tmp_path / "other" / "_staging")
    assert not (tmp_path / "other" / "_staging").exists()


def test_checkpoints_of_strangers_stay(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        temporary_folder(tmp_path, step).mkdir(parents=True)
        (temporary_folder(tmp_path, step) / "state").write_text(f"{step}")
        commit_checkpoint(tmp_path, step, world_size=1, strategy="ddp")
    # The best one, copied aside under a name of the user's own.
    (tmp_path / "step-00000010").rename(tmp_path / "step-00000010-best")
    put(tmp_path / "step-99999999-notes" / "manifest.json", tmp_path / ".step-my.tmp" / "a")
    (tmp_path / "step-00000015").symlink_to(tmp_path / "step-00000010-best")
    temporary_folder(tmp_path, 40).mkdir()
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.step == 30
    prune_checkpoints(tmp_path, 1)
    clear_temporary(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "step-00000010-best", "step-99999999-notes", ".step-my.tmp", "step-00000015",
        "step-00000030",
    }  # fmt: skip


def test_the_demo_removes_no_videos_of_strangers(tmp_path: Path) -> None:
    put(tmp_path / "clip_0001.mp4", tmp_path / "clip_0001.truth.json", tmp_path / "wedding.mp4")
    with pytest.raises(UsageError, match=r"what the demo did not make: wedding\.mp4"):
        _clear_videos(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["wedding.mp4"]
    (tmp_path / "wedding.mp4").unlink()
    _clear_videos(tmp_path)
    _clear_videos(tmp_path / "absent")


@pytest.mark.parametrize(
    ("path", "is_own"),
    [
        (f"clips/part-{'a1' * 10}.parquet", True),
        (f"verdicts/standard/part-{'a1' * 10}.parquet", True),
        (f"conditions/x-192/.part-{'a1' * 10}.parquet.0123abcd.tmp", True),
        (f"clips/../../part-{'a1' * 10}.parquet", False),
        (f"../clips/part-{'a1' * 10}.parquet", False),
        (f"/clips/part-{'a1' * 10}.parquet", False),
        (f"mine/part-{'a1' * 10}.parquet", False),
        ("clips/part-1.parquet", False),
        ("clips/mine.parquet", False),
    ],
)
def test_only_names_of_our_writers_are_ours(path: str, is_own: bool) -> None:
    assert is_own_file(path) == is_own


def test_whole_folders_are_removed_in_one_place() -> None:
    found = {
        path.relative_to(ROOT).as_posix()
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "rmtree"
    }
    assert found == {"platform/removal.py"}
