"""Validation: a sound dataset passes, and each broken promise is found and named."""

import dataclasses
import hashlib
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from animaray.datasets.commit_log import CommitLog, CommittedFile
from animaray.datasets.compaction import merge_small_files
from animaray.datasets.encoded_clips import EncodedClip, write_encoded_clips
from animaray.datasets.encoded_index import EncodedCommits
from animaray.datasets.reader import CurationDataset
from animaray.datasets.schemas import schema_of
from animaray.datasets.shards import write_shard
from animaray.pipelines.policy.policies import LAX, THRESHOLDS
from animaray.pipelines.policy.verdicts import reapply_policy
from animaray.pipelines.reports.show import show_why, spell_why
from animaray.pipelines.reports.validation import INVARIANTS, validate
from animaray.platform.errors import DatasetError
from animaray.platform.media.video import encode_mp4
from animaray.platform.stores import open_store
from benchmarks.scale.score_tables import ScoreTables, write_score_dataset

Row = dict[str, Any]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sound") / "dataset"
    write_score_dataset(root, ScoreTables(num_sources=3, with_media=True))
    reapply_policy(root, LAX)
    return root


@pytest.fixture
def root(sound: Path, tmp_path: Path) -> Path:
    shutil.copytree(sound, tmp_path / "dataset")
    return tmp_path / "dataset"


def change(root: Path, table: str, edit: Callable[[list[Row]], list[Row] | None]) -> CommittedFile:
    """Replace a table's file by one with edited rows, through an honest commit."""
    (file,) = CommitLog(root).snapshot().of_table(table)
    rows = pq.read_table(root / file.path).to_pylist()
    edited = edit(rows)
    rows = rows if edited is None else edited
    new = write_shard(root, table.split("/")[0], rows, folder=table)
    CommitLog(root).commit([new], removed=[file.path])
    return new


def moved(path: str, **changes_of_first: object) -> Callable[[list[Row]], None]:
    """Say that the videos of all clips lie in another file."""

    def edit(rows: list[Row]) -> None:
        for row in rows:
            row["media_file"] = path
        rows[0].update(changes_of_first)

    return edit


def first(**changes: object) -> Callable[[list[Row]], None]:
    def edit(rows: list[Row]) -> None:
        rows[0].update(changes)

    return edit


def found(root: Path) -> set[str]:
    return {problem.invariant for problem in validate(root).problems}


def test_a_sound_dataset_has_no_problem(sound: Path) -> None:
    result = validate(sound)
    assert result.problems == ()
    assert result.num_decoded == 3
    assert result.rows == {
        "sources": 3, "clips": 3, "media": 3, "tracks": 3, "preview": 3, "verdicts/lax": 3,
    }  # fmt: skip
    assert result.to_dict()["sound"]
    assert validate(sound, decode=False).num_decoded == 0


@pytest.mark.parametrize(
    ("table", "edit", "invariant"),
    [
        ("sources", first(state="lost"), "states"),
        ("sources", first(state="dropped", reason=None), "states"),
        ("sources", first(num_clips=2), "states"),
        ("sources", lambda rows: rows[1:], "references"),
        ("clips", first(clip_id="0" * 20), "clip_ids"),
        ("clips", first(camera_drift=float("nan")), "scores"),
        ("clips", first(face_found_share=1.5), "scores"),
        ("clips", first(motion_speed=None, motion_change=None), "scores"),
        ("clips", first(num_frames=13), "frames"),
        ("clips", first(width=66), "frames"),
        ("clips", first(duration_s=2.0), "frames"),
        ("clips", first(fps=11.0), "frames"),
        ("tracks", first(pts_s=[0.1 * place for place in range(12)]), "frames"),
        ("clips", first(media_sha256="0" * 64), "media"),
        ("clips", first(media_bytes=7), "media"),
        ("clips", first(media_file=None), "media"),
        ("clips", lambda rows: rows[1:], "references"),
        ("verdicts/lax", lambda rows: rows[1:], "verdicts"),
        ("verdicts/lax", first(clip_id="0" * 20), "references"),
        ("verdicts/lax", first(state="undetermined", keep=True), "verdicts"),
        ("verdicts/lax", first(policy_fingerprint="f"), "verdicts"),
        ("verdicts/lax", first(state="failed", keep=False, reason_codes=["x"]), "verdicts"),
        ("verdicts/lax", first(flag_codes=["x"]), "verdicts"),
        ("tracks", first(clip_id="0" * 20), "references"),
        ("preview", lambda rows: [*rows, rows[0]], "references"),
        ("tracks", first(identity_embeddings=[0.0] * 32), "faces"),
        ("tracks", first(identity_embeddings=[0.5] * 32), "faces"),
        ("tracks", first(face_boxes=[3.0] * 8), "faces"),
        ("tracks", first(face_boxes=[0.0, 0.0, 64.0, 96.0] * 2), "masks"),
        ("tracks", first(face_frames=[0, 12]), "frames"),
        ("tracks", first(frame_index=[*range(11), 12]), "frames"),
        ("tracks", first(pts_s=[0.0] * 12), "frames"),
        ("tracks", first(keypoints=[1.0] * 5), "frames"),
    ],
)
def test_each_broken_promise_is_found(
    root: Path, table: str, edit: Callable[[list[Row]], list[Row] | None], invariant: str
) -> None:
    change(root, table, edit)
    assert invariant in found(root)
    assert invariant in INVARIANTS


TEXT = (
    "text_share", "text_found_share", "text_scene_share", "text_place", "text_boxes",
    "text_state", "text_note", "text_producer",
)  # fmt: skip


@pytest.mark.parametrize(
    ("version", "new"),
    [(b"3", ("picture_combed_share", "picture_frame_rate_fps", *TEXT)), (b"4", TEXT)],
)
def test_a_dataset_of_a_version_before_is_read_with_unknown_scores(
    root: Path, version: bytes, new: tuple[str, ...]
) -> None:
    (file,) = CommitLog(root).snapshot().of_table("clips")
    table = pq.read_table(root / file.path).drop_columns(list(new))
    metadata = {**table.schema.metadata, b"animaray_schema_version": version}
    table = table.replace_schema_metadata(metadata)
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    old = CommittedFile(
        table="clips", path="clips/part-old.parquet", rows=len(table),
        size_bytes=len(buffer.getvalue()), sha256=hashlib.sha256(buffer.getvalue()).hexdigest(),
    )  # fmt: skip
    (root / old.path).write_bytes(buffer.getvalue())
    CommitLog(root).commit([old], removed=[file.path])
    clips = CurationDataset.open(root).clips()
    assert [clip[name] for clip in clips for name in new] == [None] * (3 * len(new))
    reapply_policy(root, LAX)
    only_text = {**dict.fromkeys(THRESHOLDS), "name": "text", "max_text_share": 0.0}
    reapply_policy(root, dataclasses.replace(LAX, **only_text))
    verdicts = CurationDataset.open(root).verdicts("text")
    assert [(row["state"], row["flag_codes"]) for row in verdicts] == [
        ("keep", ["text_not_run"])
    ] * 3
    lines = "\n".join(spell_why(show_why(CurationDataset.open(root), clips[0]["clip_id"])))
    assert "text      not measured\n    text_share                   none" in lines
    assert validate(root).problems == ()
    assert merge_small_files(root, min_files=1) is not None
    assert validate(root).problems == ()


def test_poses_of_fewer_frames_than_the_video_are_found(root: Path) -> None:
    def halve(rows: list[Row]) -> None:
        rows[0]["frame_index"] = rows[0]["frame_index"][:6]
        rows[0]["pts_s"] = rows[0]["pts_s"][:6]
        rows[0]["num_persons"] = rows[0]["num_persons"][:6]
        rows[0]["keypoints"] = rows[0]["keypoints"][: 6 * 36]
        rows[0]["keypoint_confidence"] = rows[0]["keypoint_confidence"][: 6 * 18]

    change(root, "tracks", halve)
    messages = [problem.message for problem in validate(root).problems]
    assert messages == ["6 poses for 12 frames, expected 12 (each 1.)"]


def test_a_missing_face_may_have_no_embedding(root: Path) -> None:
    change(root, "tracks", first(identity_embeddings=[0.0] * 32, face_valid=[False, False]))
    assert found(root) == set()


_IN_BAD = {"media_file": "media/bad.parquet", "media_row_group": 0}


def test_videos_in_one_row_group_or_truncated_are_found(root: Path) -> None:
    (file,) = CommitLog(root).snapshot().of_table("media")
    rows = pq.read_table(root / file.path).to_pylist()
    rows[0]["video"]["bytes"] = rows[0]["video"]["bytes"][:900]
    table = pa.Table.from_pylist(rows, schema=schema_of("media"))
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    data = buffer.getvalue()
    (root / "media" / "bad.parquet").write_bytes(data)
    new = CommittedFile(
        table="media", path="media/bad.parquet", rows=3, size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )  # fmt: skip
    CommitLog(root).commit([new], removed=[file.path])
    away = {problem.message for problem in validate(root).problems}
    assert any("row group 0 of media/part-" in message for message in away)
    change(root, "clips", lambda rows: [{**row, **_IN_BAD} for row in rows])
    messages = {problem.message for problem in validate(root).problems}
    assert "row group 0 holds 3 videos, not 1" in messages
    assert "row group 0 is compressed: ZSTD" in messages
    assert any("900 bytes, not" in message for message in messages)


def test_a_video_that_shows_fewer_frames_is_found(root: Path) -> None:
    clip = CurationDataset.open(root).clips()[0]
    short = encode_mp4(np.zeros((5, 96, 64, 3), np.uint8), 12.0)
    digest = hashlib.sha256(short).hexdigest()

    def swap(rows: list[Row]) -> None:
        row = next(row for row in rows if row["clip_id"] == clip["clip_id"])
        row["video"]["bytes"] = short

    media = change(root, "media", swap)
    facts = {"media_bytes": len(short), "media_sha256": digest}
    change(root, "clips", moved(media.path, **facts))
    assert found(root) == {"frames"}


def test_changed_and_missing_files_are_found(root: Path) -> None:
    (file,) = CommitLog(root).snapshot().of_table("clips")
    data = bytearray((root / file.path).read_bytes())
    data[len(data) // 2] ^= 1
    (root / file.path).write_bytes(data)
    assert found(root) == {"files"}
    (root / file.path).unlink()
    assert found(root) == {"files"}


def test_other_columns_are_found(root: Path) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"clip_id": ["a"]}), buffer)
    data = buffer.getvalue()
    (root / "clips" / "odd.parquet").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    odd = CommittedFile(
        table="clips", path="clips/odd.parquet", rows=1, size_bytes=len(data), sha256=digest
    )
    CommitLog(root).commit([odd])
    assert found(root) == {"schema"}


def test_a_changed_history_is_found(root: Path) -> None:
    entry = root / "_commits" / "00000001.json"
    entry.write_text(entry.read_text().replace("animaray.datasets.world", "another world"))
    assert found(root) == {"log"}


def test_left_over_files_are_named_but_no_problem(root: Path) -> None:
    ours = f"clips/part-{'0f' * 10}.parquet"
    (root / ours).write_bytes(b"half")
    (root / "clips" / "part-of-somebody.parquet").write_bytes(b"theirs")
    result = validate(root)
    assert result.problems == ()
    assert result.unnamed_files == (ours,)


def test_withdrawn_sources_are_no_problem(root: Path) -> None:
    source = CurationDataset.open(root).sources()[0]
    CommitLog(root).withdraw([source["source_id"]], "asked to")
    assert found(root) == set()


@pytest.mark.parametrize(
    ("clip_id", "changes", "invariant"),
    [
        (None, {}, None),
        ("0" * 20, {}, "conditions"),
        (None, {"latents": np.full((4, 4, 2, 2), np.nan, np.float16)}, "conditions"),
        (None, {"identity_embeddings": np.zeros((4, 2), np.float32)}, "conditions"),
        (None, {"raw_identities": np.tile(np.float32([0.0, 20.0]), (4, 1))}, "conditions"),
        (None, {"latent_std": np.full((4, 4, 2, 2), np.inf, np.float16)}, "conditions"),
        (None, {"face_boxes": np.tile(np.float32([0, 0, 16, 16]), (4, 1))}, "masks"),
    ],
)
def test_encoded_clips_are_checked(
    root: Path, clip_id: str | None, changes: dict[str, np.ndarray], invariant: str | None
) -> None:
    clip = CurationDataset.open(root).clips()[0]
    arrays = {
        "latents": np.zeros((4, 4, 2, 2), np.float16),
        "image_embeddings": np.zeros((4, 3), np.float32),
        "identity_embedding": np.float32([1.0, 0.0]),
        "identity_embeddings": np.tile(np.float32([1.0, 0.0]), (4, 1)),
        "identity_valid": np.ones(4, np.bool_),
        "keypoints": np.zeros((4, 18, 2), np.float32),
        "keypoint_confidence": np.zeros((4, 18), np.float32),
        "face_boxes": np.tile(np.float32([4, 4, 8, 8]), (4, 1)),
        "face_box_valid": np.ones(4, np.bool_),
    }
    encoded = EncodedClip(
        clip_id=clip_id or clip["clip_id"],
        source_id=clip["source_id"],
        is_mirrored=False,
        fps=4.0,
        width_px=16,
        height_px=16,
        **{**arrays, **changes},
    )
    shelved = write_encoded_clips(open_store(root), "enc", [encoded])
    EncodedCommits(CommitLog(root), "enc").commit(shelved)
    assert found(root) == ({invariant} if invariant else set())


def test_a_folder_without_a_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="its commit log is empty"):
        validate(tmp_path)
