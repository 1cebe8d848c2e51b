"""Shards: one row group per video, plain bytes, equal rows give equal files."""

from pathlib import Path

import pyarrow.parquet as pq

from animaray.datasets.shards import write_media_shard, write_shard
from animaray.platform.storage import sha256_file

VIDEOS = {"clip1": b"first video", "clip2": b"second video"}


def test_each_video_is_a_row_group_and_a_plain_byte_range(tmp_path: Path) -> None:
    file, groups = write_media_shard(tmp_path, VIDEOS)
    parquet = pq.ParquetFile(tmp_path / file.path)
    assert parquet.num_row_groups == 2
    row = parquet.read_row_group(groups["clip2"]).to_pylist()[0]
    assert row == {
        "clip_id": "clip2",
        "video": {"bytes": VIDEOS["clip2"], "path": "clip2.mp4"},
    }
    assert VIDEOS["clip2"] in (tmp_path / file.path).read_bytes()
    column = parquet.metadata.row_group(0).column(1)
    assert column.compression == "UNCOMPRESSED"
    assert column.statistics is None


def test_equal_rows_give_the_same_file_whatever_their_order(tmp_path: Path) -> None:
    rows = [{"clip_id": "a", "keep": True}, {"clip_id": "b", "keep": False}]
    one = write_shard(tmp_path, "verdicts", rows, folder="verdicts/lax")
    two = write_shard(tmp_path, "verdicts", rows[::-1], folder="verdicts/lax")
    assert one == two
    assert one.table == "verdicts/lax"
    assert sha256_file(tmp_path / one.path) == one.sha256
    assert (tmp_path / one.path).stat().st_size == one.size_bytes


def test_other_content_never_overwrites(tmp_path: Path) -> None:
    one = write_shard(tmp_path, "verdicts", [{"clip_id": "a", "keep": True}])
    two = write_shard(tmp_path, "verdicts", [{"clip_id": "a", "keep": False}])
    assert one.path != two.path
