"""Compaction: withdrawn bytes are gone, the rest reads as before."""

from pathlib import Path

import pyarrow.parquet as pq

from animaray.datasets.commit_log import CommitLog
from animaray.datasets.compaction import compact, merge_small_files
from animaray.datasets.reader import CurationDataset
from animaray.datasets.shards import write_media_shard, write_shard
from benchmarks.scale.score_tables import ScoreTables, write_score_dataset


def make_dataset(root: Path) -> None:
    videos = {"clip1": b"video of one", "clip2": b"video of two"}
    media, groups = write_media_shard(root, videos)
    names = {"clip1": "one", "clip2": "two"}
    clips = [
        {
            "clip_id": clip, "source_id": f"src_{names[clip]}", "input_id": f"in_{names[clip]}",
            "media_file": media.path, "media_row_group": groups[clip],
        }
        for clip in videos
    ]  # fmt: skip
    sources = [
        {"input_id": f"in_{name}", "source_id": f"src_{name}", "uri": name, "state": "kept"}
        for name in names.values()
    ]
    verdicts = [
        {"clip_id": clip, "source_id": f"src_{names[clip]}", "keep": True} for clip in videos
    ]
    files = [
        media,
        write_shard(root, "clips", clips),
        write_shard(root, "sources", sources),
        write_shard(root, "verdicts", verdicts, folder="verdicts/standard"),
    ]
    CommitLog(root).commit(files, inputs=["in_one", "in_two"])


def test_nothing_to_do_makes_no_commit(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    assert compact(tmp_path) is None
    assert CommitLog(tmp_path).head() == 1


def test_withdrawn_bytes_are_gone_and_the_rest_stays(tmp_path: Path) -> None:
    make_dataset(tmp_path)
    CommitLog(tmp_path).withdraw(["src_one"], "asked to")
    commit = compact(tmp_path)
    assert commit is not None
    assert commit.kind == "compact"
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*.parquet"))
    assert b"video of one" not in stored
    assert b"src_one" not in stored
    dataset = CurationDataset.open(tmp_path)
    assert dataset.clip_ids() == ["clip2"]
    assert dataset.media_bytes("clip2") == b"video of two"
    assert (tmp_path / dataset.clip("clip2")["media_file"]).is_file()
    assert CommitLog(tmp_path).verify() == []
    assert compact(tmp_path) is None


def test_many_small_files_are_merged_and_rows_stay(tmp_path: Path) -> None:
    tables = ScoreTables(num_sources=8, clips_per_source=2, sources_per_commit=2, with_media=True)
    root = write_score_dataset(tmp_path / "dataset", tables)
    before = CurationDataset.open(root)
    assert merge_small_files(root, min_files=5) is None
    commit = merge_small_files(root, min_files=4)
    assert commit is not None
    assert (commit.kind, len(commit.files), len(commit.removed)) == ("merge", 2, 8)
    after = CurationDataset.open(root)
    assert after.clips() == before.clips()
    assert after.sources() == before.sources()
    clip_id = after.clips()[0]["clip_id"]
    assert after.media_bytes(clip_id) == before.media_bytes(clip_id)
    # Readers of earlier versions keep their files.
    assert CurationDataset.open(root, version=4).clips() == before.clips()
    # What comes later wins over the merged rows.
    again = {**after.sources()[0], "state": "failed"}
    CommitLog(root).commit([write_shard(root, "sources", [again])])
    merge_small_files(root, min_files=2)
    states = {row["uri"]: row["state"] for row in CurationDataset.open(root).sources()}
    assert states[again["uri"]] == "failed"
    assert len(states) == 8


def test_compaction_after_a_merge_leaves_no_old_copy(tmp_path: Path) -> None:
    root = write_score_dataset(tmp_path / "dataset", ScoreTables(num_sources=6))
    merge_small_files(root, min_files=2)
    gone = CurationDataset.open(root).sources()[0]
    CommitLog(root).withdraw([gone["source_id"]], "asked to")
    assert compact(root) is not None
    left = [pq.read_table(path) for path in root.rglob("*.parquet")]
    assert len(left) == 2
    assert all(gone["source_id"] not in table["source_id"].to_pylist() for table in left)
    assert len(CurationDataset.open(root).clips()) == 5
