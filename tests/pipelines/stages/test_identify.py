"""Identifying: ids follow from bytes and place, unchanged files are known without reading."""

from pathlib import Path

import pytest

from animaray.pipelines.stages.identify import ADDS, identify, is_unchanged, list_inputs
from animaray.platform.errors import ConfigError


def row_of(path: Path, root: Path) -> dict[str, object]:
    return {"path": str(path), "root": str(root), "state": None, "reason": None, "detail": None}


def test_folder_is_listed_by_suffix_sorted_and_limited(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.MOV", "note.txt", ".hidden.mp4", "sub/c.webm", ".cache/d.mp4"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    names = [path.relative_to(tmp_path).as_posix() for path in list_inputs(tmp_path)]
    assert names == ["a.MOV", "b.mp4", "sub/c.webm"]
    assert len(list_inputs(tmp_path, limit=2)) == 2


def test_missing_or_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Expected a folder of videos"):
        list_inputs(tmp_path / "none")
    with pytest.raises(ConfigError, match="it is empty"):
        list_inputs(tmp_path)


def test_equal_bytes_share_a_source_but_not_an_input(tmp_path: Path) -> None:
    for name in ("one.mp4", "two.mp4"):
        (tmp_path / name).write_bytes(b"same bytes")
    one, two = (identify(row_of(tmp_path / name, tmp_path)) for name in ("one.mp4", "two.mp4"))
    assert one["source_id"] == two["source_id"]
    assert one["input_id"] != two["input_id"]
    assert one["file_bytes"] == 10
    assert set(ADDS) <= set(one)


def test_unreadable_file_ends_with_a_reason(tmp_path: Path) -> None:
    row = identify(row_of(tmp_path / "gone.mp4", tmp_path))
    assert (row["state"], row["reason"]) == ("unreadable", "missing")
    assert set(ADDS) <= set(row)


def test_unchanged_files_are_recognised_unread(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"x")
    known = {(path.stat().st_size, path.stat().st_mtime_ns): "id"}
    assert is_unchanged(path, known) == "id"
    path.write_bytes(b"xy")
    assert is_unchanged(path, known) is None
    assert is_unchanged(tmp_path / "none.mp4", known) is None
