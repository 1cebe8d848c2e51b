"""Shelving clips: what a worker writes into a file and holds in memory stays bounded."""

import hashlib
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from animaray.pipelines.curation import shelf
from animaray.pipelines.curation.config import CurationConfig
from animaray.pipelines.curation.workplace import workplace_of


def test_videos_of_a_long_source_are_spread_over_files_of_bounded_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf, "MAX_MEDIA_FILE_BYTES", 100)
    sizes = {"a": 60, "b": 30, "c": 20, "d": 250, "e": 1, "f": 99}
    judged = []
    for clip_id, size in sizes.items():
        path = tmp_path / f"{clip_id}.mp4"
        path.write_bytes(clip_id.encode() * size)
        judged.append({"clip_id": clip_id, "media_path": str(path), "stores_media": True})
    judged.append({"clip_id": "g", "media_path": "nowhere", "stores_media": False})
    root = tmp_path / "dataset"
    config = CurationConfig(sources=("x",), output_dir=root)
    files, places = shelf._write_media(judged, workplace_of(config))
    assert [file.rows for file in files] == [2, 1, 1, 2]  # only what is larger stands alone
    assert sorted(places) == sorted(sizes)
    for clip_id, size in sizes.items():
        place = places[clip_id]
        group = pq.ParquetFile(root / place["media_file"]).read_row_group(place["media_row_group"])
        video = group.to_pylist()[0]["video"]["bytes"]
        assert video == clip_id.encode() * size
        assert place["media_bytes"] == size
        assert place["media_sha256"] == hashlib.sha256(video).hexdigest()
