"""Compaction: withdrawn bytes are gone, the rest reads as before."""

from pathlib import Path

from animaray.datasets.commit_log import CommitLog
from animaray.datasets.compaction import compact
from animaray.datasets.reader import CurationDataset
from animaray.datasets.shards import write_media_shard, write_shard


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
