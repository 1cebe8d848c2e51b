"""Atomic files: complete or absent, and ids that depend on content only."""

from pathlib import Path

import pytest

from animaray.platform.errors import DatasetError
from animaray.platform.storage import (
    content_id,
    read_json,
    sha256_file,
    write_bytes_atomic,
    write_json_atomic,
)


def test_content_id_depends_on_every_part_and_their_borders() -> None:
    assert content_id("a", 1) == content_id("a", 1)
    assert content_id("a", 1) != content_id("a", 2)
    assert content_id("ab", "c") != content_id("a", "bc")


def test_atomic_write_leaves_only_the_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "data.bin"
    write_bytes_atomic(path, b"one")
    write_bytes_atomic(path, b"two")
    assert [entry.name for entry in path.parent.iterdir()] == ["data.bin"]
    assert path.read_bytes() == b"two"


def test_failed_write_keeps_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    write_bytes_atomic(path, b"one")
    with pytest.raises(TypeError):
        write_bytes_atomic(path, "text")  # type: ignore[arg-type]
    assert path.read_bytes() == b"one"
    assert len(list(tmp_path.iterdir())) == 1


def test_sha256_of_the_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert sha256_file(tmp_path / "empty").startswith("e3b0c44298fc1c149afbf4c8996fb924")


def test_json_round_trip_and_errors(tmp_path: Path) -> None:
    write_json_atomic(tmp_path / "a.json", {"b": [1, 2]})
    assert read_json(tmp_path / "a.json") == {"b": [1, 2]}
    with pytest.raises(DatasetError, match="Cannot read"):
        read_json(tmp_path / "absent.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(DatasetError, match="not valid JSON"):
        read_json(tmp_path / "bad.json")
