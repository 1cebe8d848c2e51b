"""Reading a dataset: by policy, by clip, without withdrawn sources, refusing damage."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from animaray.datasets.commit_log import CommitLog, CommittedFile
from animaray.datasets.reader import CurationDataset
from animaray.datasets.shards import write_media_shard, write_shard
from animaray.datasets.table_files import TableFiles
from animaray.platform.errors import DatasetError
from benchmarks.scale.many_clips import ManyClips, write_many_clips

VIDEOS = {"clip1": b"first video", "clip2": b"second video"}


def source_row(name: str, state: str) -> dict[str, object]:
    return {
        "input_id": f"in_{name}", "source_id": f"src_{name}", "uri": f"{name}.mp4",
        "file_name": f"{name}.mp4", "state": state, "num_clips": 1,
    }  # fmt: skip


def clip_row(
    clip_id: str, name: str, media_file: str | None = None, group: int | None = None
) -> dict[str, object]:
    return {
        "clip_id": clip_id, "input_id": f"in_{name}", "source_id": f"src_{name}",
        "file_name": f"{name}.mp4", "start_s": 0.0, "end_s": 2.0, "width": 8, "height": 8,
        "fps": 10.0, "num_frames": 20, "face_size_px": 33.0, "face_state": "ok",
        "media_file": media_file, "media_row_group": group,
    }  # fmt: skip


def verdict_row(clip_id: str, name: str, *, keep: bool) -> dict[str, object]:
    return {
        "clip_id": clip_id, "source_id": f"src_{name}", "policy": "standard",
        "policy_fingerprint": "f", "state": "keep" if keep else "drop", "keep": keep,
        "reasons": [] if keep else ["no_face 0 < 0.8"], "reason_codes": [] if keep else ["no_face"],
    }  # fmt: skip


def tracks_row(clip_id: str) -> dict[str, object]:
    rng = np.random.default_rng(0)
    return {
        "clip_id": clip_id, "pts_s": [0.0, 0.1, 0.2], "frame_index": [0, 1, 2],
        "keypoints": rng.random(3 * 36).tolist(), "keypoint_confidence": [0.5] * 54,
        "num_persons": [1, 1, 2], "face_frames": [0, 2], "face_boxes": list(range(8)),
        "face_landmarks": list(range(20)), "face_scores": [0.9, 0.0],
        "face_valid": [True, False], "identity_embeddings": [0.6, 0.8, 0.0, 0.0],
        "identity_dim": 2,
    }  # fmt: skip


@pytest.fixture
def dataset_root(tmp_path: Path) -> Path:
    root = tmp_path / "dataset"
    media, groups = write_media_shard(root, VIDEOS)
    assert groups == {"clip1": 0, "clip2": 1}
    clips = [
        clip_row("clip1", "one", media.path, 0),
        clip_row("clip2", "two", media.path, 1),
        clip_row("clip3", "two"),
    ]
    files = [
        media,
        write_shard(root, "sources", [source_row("one", "kept"), source_row("two", "dropped")]),
        write_shard(root, "clips", clips),
        write_shard(root, "tracks", [tracks_row(clip) for clip in VIDEOS]),
        write_shard(
            root,
            "verdicts",
            [
                verdict_row("clip1", "one", keep=True),
                verdict_row("clip2", "two", keep=False),
                verdict_row("clip3", "two", keep=True),
            ],
            folder="verdicts/standard",
        ),
    ]
    CommitLog(root).commit(files, inputs=["in_one", "in_two"])
    return root


def test_kept_clips_have_a_stored_video(dataset_root: Path) -> None:
    dataset = CurationDataset.open(dataset_root)
    # clip3 is kept too, but its video was not stored.
    assert dataset.clip_ids("standard") == ["clip1"]
    assert dataset.clip_ids("standard", keep=False) == ["clip2"]
    assert dataset.policies() == ["standard"]


def test_one_clip_by_id(dataset_root: Path) -> None:
    dataset = CurationDataset.open(dataset_root)
    assert dataset.clip("clip2")["face_size_px"] == 33.0
    assert dataset.media_bytes("clip1") == VIDEOS["clip1"]
    with pytest.raises(DatasetError, match="There is no clip clip9"):
        dataset.clip("clip9")
    with pytest.raises(DatasetError, match="There is no clip clip9"):
        dataset.media_bytes("clip9")
    with pytest.raises(DatasetError, match="was not stored"):
        dataset.media_bytes("clip3")
    with pytest.raises(DatasetError, match="There is no clip clip3"):
        dataset.tracks("clip3")
    with pytest.raises(DatasetError, match="There is no clip clip1"):
        dataset.preview("clip1")


def test_tracks_come_back_in_shape(dataset_root: Path) -> None:
    tracks = CurationDataset.open(dataset_root).tracks("clip1")
    assert tracks.keypoints.shape == (3, 18, 2)
    assert tracks.keypoint_confidence.shape == (3, 18)
    np.testing.assert_array_equal(tracks.face_valid, [True, False])
    np.testing.assert_allclose(tracks.identity_embeddings[0], [0.6, 0.8], rtol=1e-6)
    np.testing.assert_array_equal(tracks.face_landmarks[0, 1], [2, 3])
    # 0.04 s is nearest to 0, 0.16 s to 0.2, 9 s to the last.
    np.testing.assert_array_equal(tracks.nearest_pose(np.array([0.04, 0.16, 9.0])), [0, 2, 2])


def test_withdrawn_sources_are_gone_at_once(dataset_root: Path) -> None:
    CommitLog(dataset_root).withdraw(["src_one"], "asked to")
    dataset = CurationDataset.open(dataset_root)
    assert dataset.clip_ids("standard") == []
    assert [row["uri"] for row in dataset.sources()] == ["two.mp4"]
    with pytest.raises(DatasetError, match="There is no clip clip1"):
        dataset.media_bytes("clip1")
    assert CurationDataset.open(dataset_root, version=1).clip_ids("standard") == ["clip1"]


def test_later_rows_replace_earlier_ones(dataset_root: Path) -> None:
    again = write_shard(dataset_root, "sources", [source_row("two", "kept")])
    CommitLog(dataset_root).commit([again])
    rows = CurationDataset.open(dataset_root).sources()
    assert [row["state"] for row in rows] == ["kept", "kept"]


def test_policy_that_was_not_applied_is_an_error(dataset_root: Path) -> None:
    with pytest.raises(DatasetError, match="Policy lax was never applied"):
        CurationDataset.open(dataset_root).verdicts("lax")


def test_uncommitted_files_are_invisible(dataset_root: Path) -> None:
    rows = [verdict_row("clip1", "one", keep=False)]
    write_shard(dataset_root, "verdicts", rows, folder="verdicts/standard")
    assert CurationDataset.open(dataset_root).clip_ids("standard") == ["clip1"]


def test_folder_without_a_dataset_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="its commit log is empty"):
        CurationDataset.open(tmp_path)


def test_damaged_file_is_an_error(dataset_root: Path) -> None:
    for path in (dataset_root / "clips").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DatasetError, match="missing or damaged"):
        CurationDataset.open(dataset_root).clips()


def test_one_clip_opens_its_own_files_and_decodes_its_rows_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "dataset"
    write_many_clips(root, ManyClips(num_clips=60, sources_per_commit=1, num_frames=2))
    opened: list[str] = []
    decoded: list[tuple[str, int]] = []
    real_open, real_read = TableFiles.open, pq.ParquetFile.read_row_group

    def count_open(self: TableFiles, file: CommittedFile) -> pq.ParquetFile:
        opened.append(file.path)
        return real_open(self, file)

    def count_read(self: pq.ParquetFile, group: int, **more: object) -> pa.Table:
        decoded.append((str(id(self)), group))
        return real_read(self, group, **more)

    monkeypatch.setattr(TableFiles, "open", count_open)
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", count_read)
    dataset = CurationDataset.open(root)
    first = dataset.table("clips", ["clip_id", "input_id"]).to_pylist()[0]
    own = dataset.table("clips", ["clip_id", "input_id"]).to_pylist()
    clip_ids = [row["clip_id"] for row in own if row["input_id"] == first["input_id"]]
    for clip_id in clip_ids:
        assert dataset.tracks(clip_id).keypoints.shape == (2, 18, 2)
        assert dataset.media_bytes(clip_id) == f"video of {clip_id}".encode()
    # Ten clips lie in one file of tracks, in one row group; each video is a row group of its own.
    assert len({path for path in opened if path.startswith("tracks/")}) == 1
    assert len({path for path in opened if path.startswith("media/")}) == 1
    assert len(clip_ids) == 10
    assert len(decoded) == 1 + 10
