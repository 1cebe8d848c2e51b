import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from animaray.datasets import encoded_index
from animaray.datasets.commit_log import CommitLog
from animaray.datasets.compaction import compact
from animaray.datasets.encoded_clips import (
    EncodedClip,
    mean_identity,
    open_encoded_clips,
    write_encoded_clips,
)
from animaray.datasets.encoded_index import EncodedCommits, read_index, skipped_clip
from animaray.datasets.reader import place_on_frames
from animaray.platform.errors import DatasetError
from animaray.platform.stores import open_store


def _clip(name: str, *, frames: int = 5, is_mirrored: bool = False) -> EncodedClip:
    rng = np.random.default_rng(len(name) + is_mirrored)
    return EncodedClip(
        clip_id=name,
        source_id=f"source of {name}",
        is_mirrored=is_mirrored,
        fps=8.0,
        width_px=32,
        height_px=48,
        latents=rng.standard_normal((frames, 4, 6, 4)).astype(np.float16),
        image_embeddings=rng.standard_normal((frames, 3)).astype(np.float32),
        identity_embedding=np.array([1.0, 0.0], dtype=np.float32),
        identity_embeddings=rng.standard_normal((frames, 2)).astype(np.float32),
        identity_valid=np.arange(frames) > 1,
        keypoints=rng.standard_normal((frames, 18, 2)).astype(np.float32),
        keypoint_confidence=rng.random((frames, 18), dtype=np.float32),
        face_boxes=rng.random((frames, 4), dtype=np.float32),
        face_box_valid=np.arange(frames) > 0,
    )


def _store(root: Path, encoder_id: str, *clips: EncodedClip) -> None:
    shelved = write_encoded_clips(open_store(root), encoder_id, clips)
    EncodedCommits(CommitLog(root), encoder_id).commit(shelved)


def _tried(root: Path, encoder_id: str) -> list[str]:
    snapshot = CommitLog(root).snapshot()
    return read_index(open_store(root), snapshot, encoder_id)["clip_id"].to_pylist()


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    written = [_clip("b"), _clip("aa", frames=7), _clip("aa", frames=7, is_mirrored=True)]
    _store(tmp_path, "enc", *written)
    table = open_encoded_clips(tmp_path)
    assert table.clip_ids == ["aa", "b"]
    assert (table.num_frames("aa"), table.has_mirrored("aa"), table.has_mirrored("b")) == (
        7,
        True,
        False,
    )
    for clip in written:
        read = table.load(clip.clip_id, is_mirrored=clip.is_mirrored)
        for name in EncodedClip.__slots__:
            np.testing.assert_array_equal(getattr(read, name), getattr(clip, name), err_msg=name)


def test_any_parquet_reader_can_use_the_arrays(tmp_path: Path) -> None:
    _store(tmp_path, "enc", _clip("a"))
    (path,) = (tmp_path / "conditions" / "enc").glob("*.parquet")
    row = pq.read_table(path).to_pylist()[0]
    kind = pq.read_schema(path).field("latents").metadata[b"dtype"].decode()
    latents = np.frombuffer(row["latents"], dtype=kind).reshape(row["latents_shape"])
    np.testing.assert_array_equal(latents, _clip("a").latents)


def test_uncommitted_shards_are_not_seen(tmp_path: Path) -> None:
    _store(tmp_path, "enc", _clip("a"))
    write_encoded_clips(open_store(tmp_path), "enc", [_clip("lost")])
    assert open_encoded_clips(tmp_path).clip_ids == ["a"]


def test_encoded_inputs_are_known_per_encoder_even_without_rows(tmp_path: Path) -> None:
    _store(tmp_path, "enc", _clip("a"))
    EncodedCommits(CommitLog(tmp_path), "enc").commit(skipped_clip("faceless", "s", "no face"))
    assert _tried(tmp_path, "enc") == ["a", "faceless"]
    assert _tried(tmp_path, "other") == []
    assert open_encoded_clips(tmp_path).clip_ids == ["a"]
    assert CommitLog(tmp_path).commits()[-1].facts["skipped"] == {"faceless": "no face"}


def test_the_index_is_merged_as_it_gets_many_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoded_index, "_MERGED_AT", 3)
    store = open_store(tmp_path)
    ours, theirs = (EncodedCommits(CommitLog(store), "enc") for _ in range(2))
    names = [f"clip{number}" for number in range(9)]
    for name in names:
        ours.commit(write_encoded_clips(store, "enc", [_clip(name)]))
    # Another run of the same encoder does not know of that.
    theirs.commit(write_encoded_clips(store, "enc", [_clip("other")]))
    files = CommitLog(tmp_path).snapshot().of_table("conditions_index/enc")
    assert len(files) <= 4
    assert open_encoded_clips(tmp_path).clip_ids == [*names, "other"]
    assert CommitLog(tmp_path).verify() == []


def test_two_runs_that_merge_the_same_index_files_both_succeed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoded_index, "_MERGED_AT", 1)
    store = open_store(tmp_path)
    _store(tmp_path, "enc", _clip("a"))
    ours, theirs = (EncodedCommits(CommitLog(store), "enc") for _ in range(2))
    ours.commit(write_encoded_clips(store, "enc", [_clip("bb")]))
    theirs.commit(write_encoded_clips(store, "enc", [_clip("ccc")]))
    assert open_encoded_clips(tmp_path).clip_ids == ["a", "bb", "ccc"]
    assert _tried(tmp_path, "enc") == ["a", "bb", "ccc"]


def test_shards_without_an_index_are_looked_into(tmp_path: Path) -> None:
    shelved = write_encoded_clips(open_store(tmp_path), "enc", [_clip("a"), _clip("bb")])
    CommitLog(tmp_path).commit(shelved.files)  # as versions before the index did
    table = open_encoded_clips(tmp_path)
    assert table.clip_ids == _tried(tmp_path, "enc") == ["a", "bb"]
    assert table.load("bb").num_frames == 5


def test_a_clip_that_two_runs_encoded_is_there_once(tmp_path: Path) -> None:
    _store(tmp_path, "enc", _clip("a"), _clip("a", is_mirrored=True))
    _store(tmp_path, "enc", _clip("a"), _clip("bb"))
    table = open_encoded_clips(tmp_path)
    assert table.clip_ids == ["a", "bb"]
    assert table.source_ids() == {"a": "source of a", "bb": "source of bb"}
    assert table.lengths().tolist() == [5, 5]
    assert table.has_mirrored("a")


def test_a_withdrawn_source_hides_its_clips(tmp_path: Path) -> None:
    _store(tmp_path, "enc", _clip("a"), _clip("bb"))
    CommitLog(tmp_path).withdraw(["source of a"], "takedown")
    assert open_encoded_clips(tmp_path).clip_ids == ["bb"]


def test_compaction_takes_withdrawn_clips_out_of_shards_and_index(tmp_path: Path) -> None:
    _store(tmp_path, "enc", _clip("a"), _clip("bb"), _clip("ccc"))
    _store(tmp_path, "enc", _clip("dddd"))
    CommitLog(tmp_path).withdraw(["source of bb", "source of dddd"], "takedown")
    commit = compact(tmp_path)
    assert commit is not None
    table = open_encoded_clips(tmp_path)
    assert table.clip_ids == ["a", "ccc"]
    np.testing.assert_array_equal(table.load("ccc").latents, _clip("ccc").latents)
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*.parquet"))
    assert b"source of a" in stored
    assert b"source of bb" not in stored
    assert b"source of dddd" not in stored
    assert _tried(tmp_path, "enc") == ["a", "ccc"]
    assert compact(tmp_path) is None


def test_clips_that_are_dropped_by_now_can_be_left_out(tmp_path: Path) -> None:
    _store(tmp_path, "enc", _clip("a"), _clip("bb"))
    table = open_encoded_clips(tmp_path)
    table.keep_only({"bb", "never encoded"})
    assert table.clip_ids == ["bb"]
    assert len(table) == 1


def test_several_encoders_need_a_name(tmp_path: Path) -> None:
    _store(tmp_path, "one", _clip("a"))
    _store(tmp_path, "two", _clip("bb"))
    with pytest.raises(
        DatasetError, match=r"was encoded 2 times, and 2 of the tables fit: one, two\."
    ):
        open_encoded_clips(tmp_path)
    assert open_encoded_clips(tmp_path, "two").clip_ids == ["bb"]
    with pytest.raises(DatasetError, match=r"were not encoded by three\."):
        open_encoded_clips(tmp_path, "three")


def test_a_table_of_another_version_is_refused(tmp_path: Path) -> None:
    _store(tmp_path, "enc", _clip("a"))
    (path,) = (tmp_path / "conditions" / "enc").glob("*.parquet")
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({"animaray_conditions_version": "0"}), path)
    with pytest.raises(DatasetError, match="has conditions version 0, expected 3"):
        open_encoded_clips(tmp_path).load("a")


def test_a_clip_that_is_not_there_is_named(tmp_path: Path) -> None:
    _store(tmp_path, "enc", _clip("a"))
    with pytest.raises(DatasetError, match="The mirrored copy of clip a was not encoded"):
        open_encoded_clips(tmp_path).load("a", is_mirrored=True)


def test_boxes_are_interpolated_only_between_close_detections() -> None:
    # Detections at 0.2 s, 0.6 s and 2.0 s; frames every 0.2 s.
    boxes = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]], dtype=np.float32)
    times = np.arange(12) * 0.2
    placed, valid = place_on_frames(boxes, np.array([0.2, 0.6, 2.0]), times, max_gap_s=0.5)
    # Known at 0.2, between at 0.4, known at 0.6; the gap of 1.4 s stays unknown; known at 2.0.
    assert np.flatnonzero(valid).tolist() == [1, 2, 3, 10]
    np.testing.assert_allclose(placed[2], [2, 0, 12, 10], atol=1e-5)


def test_no_detection_gives_no_valid_box() -> None:
    placed, valid = place_on_frames(
        np.zeros((0, 4), dtype=np.float32), np.zeros(0), np.arange(3) / 8.0, max_gap_s=1.0
    )
    assert placed.shape == (3, 4)
    assert not valid.any()


def test_mean_identity_is_a_unit_vector() -> None:
    mean = mean_identity(np.array([[1, 0], [0, 1]], dtype=np.float32))
    np.testing.assert_allclose(mean, [0.5**0.5, 0.5**0.5], atol=1e-6)
    assert not mean_identity(np.zeros((0, 2), dtype=np.float32)).any()


def test_commit_entries_are_json_with_checksums(tmp_path: Path) -> None:
    _store(tmp_path, "enc", _clip("a"))
    assert CommitLog(tmp_path).verify() == []
    entry = json.loads((tmp_path / "_commits" / "00000001.json").read_text())
    assert entry["files"][0]["table"] == "conditions/enc"
