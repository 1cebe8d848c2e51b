"""The tables as other people's programs read them: Hugging Face datasets, DuckDB, pandas, Delta.

They are told which files count by what `publish` wrote beside the tables, and by nothing else.
"""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
import pytest
import yaml

from animaray.cli.main import run
from animaray.datasets.commit_log import CommitLog
from animaray.datasets.publication import Publisher, publish
from animaray.datasets.reader import CurationDataset
from animaray.datasets.schemas import TABLES
from animaray.datasets.vacuum import unnamed_files
from animaray.pipelines.policy.policies import LAX
from animaray.pipelines.policy.verdicts import reapply_policy
from animaray.pipelines.reports.validation import validate
from animaray.platform.stores import open_store
from benchmarks.scale.many_clips import ManyClips, write_many_clips
from benchmarks.scale.score_tables import ScoreTables, write_score_dataset


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("readers") / "dataset"
    write_score_dataset(root, ScoreTables(num_sources=5, with_media=True))
    reapply_policy(root, LAX)
    return root


def files_of(root: Path, table: str) -> list[str]:
    """Return the files of a table as `live_files.json` names them."""
    rows = pd.read_json(root / "live_files.json")
    return [str(root / path) for path in rows[rows["table"] == table]["path"]]


def load(root: Path, table: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    import datasets

    datasets.disable_progress_bars()
    cache = str(root.parent / "cache")
    return datasets.load_dataset(str(root), table, split="train", cache_dir=cache)


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


def delta_table() -> Any:
    return pytest.importorskip("deltalake").DeltaTable


def clips_seen_by_others(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """Return the clips that each reader finds in each table, none of which it may miss."""
    import duckdb

    delta = delta_table()
    found: dict[str, set[str]] = {}
    for table in TABLES[1:]:
        folder = "verdicts/lax" if table == "verdicts" else table
        names = files_of(root, folder)
        own = duckdb.read_parquet(names).fetchnumpy()["clip_id"] if names else []
        found[f"duckdb {table}"] = set(own)
        rows = delta(root / folder).to_pyarrow_table(columns=["clip_id"])
        found[f"delta {table}"] = set(rows["clip_id"].to_pylist())
        if names:
            loaded = load(root, folder.replace("/", "-"), monkeypatch)
            found[f"hugging face {table}"] = set(loaded["clip_id"])
    return found


def test_nobody_sees_a_withdrawn_clip(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "dataset"
    shutil.copytree(root, folder)
    clips = {clip["clip_id"]: clip["source_id"] for clip in CurationDataset.open(folder).clips()}
    everyone = clips_seen_by_others(folder, monkeypatch)
    assert len(everyone) == 15
    assert all(seen == set(clips) for seen in everyone.values())
    gone, source_id = next(iter(clips.items()))
    command = ["dataset", "withdraw", str(folder), source_id, "--reason", "asked to"]
    # Hidden, not yet compacted: a file that holds such a row is not shown at all.
    hidden = tmp_path / "hidden"
    shutil.copytree(folder, hidden)
    assert run([*command[:2], str(hidden), *command[3:], "--hide-only"]) == 0
    seen = clips_seen_by_others(hidden, monkeypatch)
    assert all(gone not in found for found in seen.values())
    assert any(found for found in seen.values())
    # Compacted: everything else is there again.
    assert run(command) == 0
    seen = clips_seen_by_others(folder, monkeypatch)
    assert len(seen) == 15
    assert all(found == set(clips) - {gone} for found in seen.values())
    assert source_id not in pd.read_parquet(files_of(folder, "sources")[0])["source_id"].tolist()


def test_delta_readers_follow_by_version(root: Path, tmp_path: Path) -> None:
    delta = delta_table()
    folder = tmp_path / "dataset"
    shutil.copytree(root, folder)
    table = delta(folder / "tracks")
    before = table.version()
    publish(folder)
    assert delta(folder / "tracks").version() == before  # nothing changed
    source_id = CurationDataset.open(folder).sources()[0]["source_id"]
    CommitLog(folder).withdraw([source_id], "asked to")
    publish(folder)
    table.update_incremental()
    assert table.version() == before + 1
    assert table.to_pyarrow_table(columns=["keypoints"]).num_rows < 5
    assert "_delta_log" not in "".join(unnamed_files(folder))


def test_an_object_store_is_read_clip_by_clip_and_published(s3_folder: str) -> None:
    write_many_clips(s3_folder, ManyClips(num_clips=30, sources_per_commit=1, num_frames=2))
    reapply_policy(s3_folder, LAX)
    dataset = CurationDataset.open(s3_folder)
    for clip in dataset.clips():
        clip_id = clip["clip_id"]
        assert dataset.clip(clip_id) == clip
        assert dataset.tracks(clip_id).keypoints.shape == (2, 18, 2)
        assert dataset.media_bytes(clip_id) == f"video of {clip_id}".encode()
    gone = dataset.clips()[0]["source_id"]
    command = ["dataset", "withdraw", s3_folder, gone, "--reason", "asked to"]
    assert run(command) == 0
    live = {row["path"]: row for row in json.loads(dataset.store.read("live_files.json"))}
    snapshot = CommitLog(s3_folder).snapshot()
    assert set(live) == {file.path for file in snapshot.files}
    assert len(CurationDataset.open(s3_folder).clips()) == 20
    entries = sorted(file.path for file in dataset.store.files("clips/_delta_log"))
    # Published after the verdicts, the withdrawal and the compaction.
    assert [path.rpartition("/")[2] for path in entries] == [
        f"{number:020d}.json" for number in range(3)
    ]
    assert validate(s3_folder, decode=False).problems == ()


def test_a_long_run_publishes_now_and_then(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    shutil.copytree(root, folder)
    publisher = Publisher(open_store(folder))
    (folder / "README.md").write_text("---\n: [\n---\nnot ours to mend")
    for name in ("first", "second"):
        (folder / "live_files.json").write_text(name)
        publisher.after_commit()
    # The second time came too early.
    assert (folder / "live_files.json").read_text() == "second"
    publish(folder)
    assert len(files_of(folder, "clips")) == 2
    assert (folder / "README.md").read_text().endswith("not ours to mend")


def test_what_people_wrote_into_the_readme_stays(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    shutil.copytree(root, folder)
    (folder / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# Ours\n")
    publish(folder)
    text = (folder / "README.md").read_text()
    assert text.endswith("---\n# Ours\n")
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["license"] == "cc-by-4.0"
    (default,) = [config for config in front["configs"] if config.get("default")]
    assert default["config_name"] == "clips"
    wanted = [str(folder / path) for path in default["data_files"][0]["path"]]
    assert wanted == files_of(folder, "clips")
