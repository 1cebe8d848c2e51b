"""Exports: the published folder layout and WebDataset shards, as their readers expect them."""

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from animaray.datasets.reader import CurationDataset
from animaray.models.pose.layouts import NUM_FURTHER_POINTS
from animaray.models.subjects.framing import FrameFit
from animaray.pipelines.exchange.export_published import _write_clip, export_published, face_mask
from animaray.pipelines.exchange.export_webdataset import export_webdataset
from animaray.pipelines.policy.policies import LAX
from animaray.pipelines.policy.verdicts import reapply_policy
from animaray.platform.errors import DatasetError
from benchmarks.scale.score_tables import ScoreTables, write_score_dataset


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("exported") / "dataset"
    write_score_dataset(root, ScoreTables(num_sources=3, num_frames=8, with_media=True))
    reapply_policy(root, LAX)
    return root


def test_published_layout(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "png"
    summary = export_published(root, out, policy="lax", style="bold")
    kept = CurationDataset.open(root).clip_ids("lax")
    assert summary.num_clips == summary.num_written == len(kept) > 0
    folders = (out / "video_vec_path.txt").read_text().splitlines()
    assert len(folders) == len(kept)
    assert (out / "video_rec_path.txt").read_text() == ""
    folder = Path(folders[0])
    assert folder == out / "vec" / "00001"
    for name, channels in (("images", 3), ("poses", 3), ("faces", None)):
        files = sorted((folder / name).iterdir())
        assert {path.name for path in files} == {f"frame_{number}.png" for number in range(8)}
        shape = cv2.imread(str(files[0]), cv2.IMREAD_UNCHANGED).shape
        assert shape == ((1024, 576, channels) if channels else (1024, 576))
    # Faces are seen at frames 0 and 6: known between them, unknown at 7, where the mask is empty.
    masks = [
        cv2.imread(str(folder / "faces" / f"frame_{n}.png"), cv2.IMREAD_UNCHANGED) for n in (3, 7)
    ]
    assert 0.01 < (masks[0] == 255).mean() < 0.2
    assert masks[1].max() == 0
    assert summary.frames_without_face == len(kept)
    index = json.loads((out / "export.json").read_text())
    assert [entry["clip_id"] for entry in index["clips"]] == kept
    # The same call again writes nothing, and another one is refused.
    assert export_published(root, out, policy="lax", style="bold").num_written == 0
    with pytest.raises(DatasetError, match="holds another export"):
        export_published(root, out, policy="lax", style="bold", white_masks=True)


def test_poses_show_hands_and_faces_where_tracks_have_them(root: Path, tmp_path: Path) -> None:
    dataset = CurationDataset.open(root)
    clip = dataset.clip(dataset.clip_ids("lax")[0])
    tracks = dataset.tracks(clip["clip_id"])
    noses = np.pad(tracks.keypoints[:, :1], ((0, 0), (0, 0), (0, 1)), constant_values=1.0)
    further = np.repeat(noses, NUM_FURTHER_POINTS, axis=1)
    pictures = []
    for number, each in enumerate((tracks, replace(tracks, further_points=further))):
        folder = tmp_path / "vec" / str(number)
        _write_clip(dataset, clip, each, folder, white_masks=False, style="bold")
        pictures.append(cv2.imread(str(folder / "poses" / "frame_0.png")))
    changed = (pictures[0] != pictures[1]).any(axis=2)
    assert (pictures[1][changed] == 255).all(axis=1).any()  # the face's points lie uppermost
    assert np.ptp(np.argwhere(changed), axis=0).max() < 12


def test_masks_are_boxes_and_white_only_when_asked() -> None:
    fit = FrameFit(left_px=0.0, top_px=0.0, scale=2.0, width_px=20, height_px=10)
    box = np.array([1.0, 1.0, 3.0, 2.0], np.float32)
    mask = face_mask(box, fit, is_white=True)
    # Corners (1, 1) and (3, 2) lie at 2.5 and 6.5, 4.5: whole pixels 2 to 6 and 2 to 4, inclusive.
    rows, columns = np.nonzero(mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 4, 2, 6)
    assert face_mask(None, fit, is_white=False).max() == 0
    assert face_mask(None, fit, is_white=True).min() == 255


def test_webdataset_shards_follow_the_convention(root: Path, tmp_path: Path) -> None:
    index = export_webdataset(root, tmp_path / "one", policy="lax", shard_bytes=1)
    dataset = CurationDataset.open(root)
    kept = dataset.clip_ids("lax")
    assert [shard["file"] for shard in index["shards"]] == [
        f"shard-{number:06d}.tar" for number in range(len(kept))
    ]
    samples: dict[str, dict[str, bytes]] = {}
    for shard in sorted((tmp_path / "one").glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                key, column = member.name.split(".", 1)
                samples.setdefault(key, {})[column] = tar.extractfile(member).read()
    assert sorted(samples) == kept
    for clip_id, sample in samples.items():
        assert sample["mp4"] == dataset.media_bytes(clip_id)
        assert json.loads(sample["json"])["camera_drift"] == dataset.clip(clip_id)["camera_drift"]
        pose = np.load(io.BytesIO(sample["pose.npy"]))
        np.testing.assert_array_equal(pose[..., :2], dataset.tracks(clip_id).keypoints)
        assert np.load(io.BytesIO(sample["identity.npy"])).shape == (16,)
    export_webdataset(root, tmp_path / "two", policy="lax", shard_bytes=1)
    for shard in (tmp_path / "one").glob("*.tar"):
        assert shard.read_bytes() == (tmp_path / "two" / shard.name).read_bytes()
    whole = export_webdataset(root, tmp_path / "three", policy="lax")
    assert [shard["num_clips"] for shard in whole["shards"]] == [len(kept)]
    with pytest.raises(DatasetError, match="is not empty"):
        export_webdataset(root, tmp_path / "one", policy="lax")


def test_hugging_face_reads_webdataset_shards(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    datasets.disable_progress_bars()
    export_webdataset(root, tmp_path / "shards", policy="lax")
    rows = datasets.load_dataset(
        "webdataset",
        data_files={"train": str(tmp_path / "shards" / "*.tar")},
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    assert sorted(rows["__key__"]) == CurationDataset.open(root).clip_ids("lax")
    assert {"mp4", "json", "jpg", "pose.npy"} <= set(rows.column_names)


def test_a_policy_that_keeps_nothing_exports_nothing(root: Path, tmp_path: Path) -> None:
    reapply_policy(root, "strict")
    with pytest.raises(DatasetError, match="keeps no clip"):
        export_published(root, tmp_path / "a", policy="strict")
    with pytest.raises(DatasetError, match="keeps no clip"):
        export_webdataset(root, tmp_path / "b", policy="strict")
