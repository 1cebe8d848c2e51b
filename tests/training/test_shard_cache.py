"""Copies of shards: checked, bounded, shared; and rows read the same with and without them."""

from pathlib import Path

import numpy as np
import pytest

from animaray.cli.cache import cache_folders
from animaray.cli.main import run
from animaray.datasets.commit_log import CommitLog, CommittedFile
from animaray.datasets.encoded_clips import open_encoded_clips
from animaray.datasets.shard_cache import ShardCache
from animaray.platform.errors import DatasetError
from animaray.platform.stores import open_store
from tests.training.conftest import ENCODER_ID


def _shards(root: Path) -> list[CommittedFile]:
    return CommitLog(root).snapshot().of_table(f"conditions/{ENCODER_ID}")


def test_a_shard_is_copied_once_and_checked(encoded_dataset: Path, tmp_path: Path) -> None:
    store, (first, second) = open_store(encoded_dataset), _shards(encoded_dataset)
    cache = ShardCache(tmp_path / "cache", 10**9)
    copy = cache.fetch(store, first)
    assert copy is not None
    assert copy.read_bytes() == (encoded_dataset / first.path).read_bytes()
    (encoded_dataset / first.path).unlink()
    assert cache.fetch(store, first) == copy
    (encoded_dataset / second.path).write_bytes(b"x" * second.size_bytes)
    with pytest.raises(DatasetError, match="is not what its commit names"):
        cache.fetch(store, second)
    assert len(list((tmp_path / "cache").glob("*.parquet"))) == 1


def test_what_was_used_last_goes_last(encoded_dataset: Path, tmp_path: Path) -> None:
    store, (first, second) = open_store(encoded_dataset), _shards(encoded_dataset)
    cache = ShardCache(tmp_path, max(first.size_bytes, second.size_bytes))
    one = cache.fetch(store, first)
    other = cache.fetch(store, second)
    assert one is not None
    assert other is not None
    assert (one.exists(), other.exists()) == (False, True)
    assert ShardCache(tmp_path, first.size_bytes - 1).fetch(store, first) is None


def test_rows_are_the_same_from_a_copy(encoded_dataset: Path, tmp_path: Path) -> None:
    cache = ShardCache(tmp_path / "cache", 10**9)
    direct, copied = (open_encoded_clips(encoded_dataset, cache=of) for of in (None, cache))
    for clip_id in direct.clip_ids:
        one, other = direct.load(clip_id), copied.load(clip_id)
        np.testing.assert_array_equal(one.latents, other.latents)
    assert len(list((tmp_path / "cache").glob("*.parquet"))) == 2


def test_the_usual_folder_is_listed_and_pruned(
    encoded_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANIMARAY_CACHE_DIR", str(tmp_path))
    folder, _ = cache_folders()["shards"]
    ShardCache(folder, 10**9).fetch(open_store(encoded_dataset), _shards(encoded_dataset)[0])
    (folder / "notes.txt").write_text("not ours")
    assert run(["cache", "prune", "shards", "--yes"]) == 0
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
