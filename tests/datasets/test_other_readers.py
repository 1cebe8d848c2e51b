"""The tables as other people's programs read them: Hugging Face datasets, DuckDB, pandas."""

import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pytest

from animaray.datasets.reader import CurationDataset
from animaray.datasets.schemas import TABLES
from animaray.pipelines.policy.policies import LAX
from animaray.pipelines.policy.verdicts import reapply_policy
from benchmarks.scale.score_tables import ScoreTables, write_score_dataset


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("readers") / "dataset"
    write_score_dataset(root, ScoreTables(num_sources=5, with_media=True))
    reapply_policy(root, LAX)
    return root


def files_of(root: Path, table: str) -> list[str]:
    return [str(root / file.path) for file in CurationDataset.open(root).snapshot.of_table(table)]


def load(root: Path, table: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    import datasets

    datasets.disable_progress_bars()
    cache = str(root.parent / "cache")
    files = {"train": files_of(root, table)}
    return datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=cache)


@pytest.mark.parametrize("table", ["media", "preview"])
def test_hugging_face_sees_videos(root: Path, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = load(root, table, monkeypatch)
    import datasets

    assert isinstance(rows.features["video"], datasets.Video)
    ours = CurationDataset.open(root)
    stored = rows.cast_column("video", datasets.Video(decode=False))
    assert len(stored) == 5
    for row in stored:
        assert row["video"]["bytes"] == ours.media_bytes(row["clip_id"])
        with av.open(io.BytesIO(row["video"]["bytes"])) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert np.stack(frames).shape == (12, 96, 64, 3)
    if table == "preview":
        assert rows.remove_columns("video")[0]["poster"].size == (32, 48)


def test_hugging_face_decodes_videos_with_torchcodec(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        import torchcodec  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        pytest.skip(f"torchcodec is not usable here: {error}")
    decoder = load(root, "media", monkeypatch)[0]["video"]
    assert decoder[0].shape == (3, 96, 64)


def test_duckdb_reads_every_table_and_joins_them(root: Path) -> None:
    import duckdb

    for table in TABLES:
        folder = "verdicts/lax" if table == "verdicts" else table
        rows = duckdb.read_parquet(files_of(root, folder)).fetchall()
        assert len(rows) == 5
    query = f"""
        select c.clip_id, octet_length(m.video.bytes) as size, v.keep, c.camera_drift
        from read_parquet({files_of(root, "clips")!r}) c
        join read_parquet({files_of(root, "media")!r}) m using (clip_id)
        join read_parquet({files_of(root, "verdicts/lax")!r}) v using (clip_id)
        join read_parquet({files_of(root, "sources")!r}) s on s.source_id = c.source_id
        where list_contains(v.reason_codes, 'camera_drifts') or v.keep
        order by c.clip_id
    """  # noqa: S608 - our own file names
    rows = duckdb.sql(query).fetchall()
    ours = CurationDataset.open(root)
    assert rows
    for clip_id, size, keep, drift in rows:
        assert size == len(ours.media_bytes(clip_id))
        assert ours.clip(clip_id)["camera_drift"] == drift
        assert keep == (clip_id in ours.clip_ids("lax"))


def test_pandas_reads_every_table(root: Path) -> None:
    for table in TABLES:
        folder = "verdicts/lax" if table == "verdicts" else table
        frame = pd.concat([pd.read_parquet(path) for path in files_of(root, folder)])
        assert len(frame) == 5
    clips = pd.concat([pd.read_parquet(path) for path in files_of(root, "clips")])
    assert clips["camera_drift"].dtype == np.float64
    tracks = pd.concat([pd.read_parquet(path) for path in files_of(root, "tracks")])
    assert all(len(row) == 12 * 18 * 2 for row in tracks["keypoints"])
