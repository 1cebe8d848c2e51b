"""Evaluation sets: recipes that repeat, people on one side only, leaks found, frames imported."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from animaray.datasets.reader import CurationDataset
from animaray.models.alignment.misalignment import MisalignmentConfig
from animaray.pipelines.exchange.import_frames import find_sequences, import_frames
from animaray.pipelines.policy.policies import LAX
from animaray.pipelines.policy.verdicts import reapply_policy
from animaray.pipelines.sets.holdout import hold_out
from animaray.pipelines.sets.identities import group_clips
from animaray.pipelines.sets.leakage import find_leakage
from animaray.pipelines.sets.misalign import (
    misalign,
    render_items,
    transform_matrix,
)
from animaray.platform.errors import DatasetError
from animaray.platform.media.video import decode_video
from benchmarks.scale.score_tables import ScoreTables, write_score_dataset


def made(root: Path, **sizes: object) -> Path:
    write_score_dataset(root, ScoreTables(**sizes))
    reapply_policy(root, LAX)
    return root


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filmed")
    return made(folder / "dataset", num_sources=6, with_media=True)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scored")
    sizes = {"num_sources": 24, "num_identities": 20, "num_frames": 2, "identity_dim": 256}
    return made(folder / "dataset", **sizes, clips_per_source=2, with_media=True)


def test_a_misalignment_recipe_repeats_and_stays_in_its_ranges(filmed: Path) -> None:
    recipe = misalign(filmed, count=4, seed=7, policy="lax")
    assert recipe == misalign(filmed, count=4, seed=7, policy="lax")
    assert recipe["items"] != misalign(filmed, count=4, seed=8, policy="lax")["items"]
    assert json.loads(json.dumps(recipe)) == recipe
    # More clips or fewer: those of the smaller recipe are as they were.
    assert misalign(filmed, count=2, seed=7, policy="lax")["items"] == recipe["items"][:2]
    ranges = MisalignmentConfig()
    for item in recipe["items"]:
        assert abs(item["rotation_deg"]) <= 30.0
        assert ranges.min_scale <= item["scale"] <= ranges.max_scale
        assert max(abs(item["shift_x"]), abs(item["shift_y"])) <= ranges.max_translation


def test_points_and_pictures_move_alike() -> None:
    item = {"rotation_deg": 90.0, "scale": 2.0, "shift_x": 0.25, "shift_y": 0.0}
    # About the centre (2, 2) of a 5x5 picture: (3, 2) is turned down to (2, 3), doubled to (2, 4),
    # and shifted by 0.25 * 5 to (3.25, 4).
    moved = cv2.transform(np.array([[[2.0, 2.0], [3.0, 2.0]]]), transform_matrix(item, 5, 5))
    np.testing.assert_allclose(moved[0], [[3.25, 2.0], [3.25, 4.0]], atol=1e-9)
    picture = np.zeros((64, 64), np.uint8)
    cv2.circle(picture, (40, 30), 3, 255, -1)
    item = {"rotation_deg": 25.0, "scale": 1.2, "shift_x": 0.05, "shift_y": -0.1}
    warped = cv2.warpAffine(picture, transform_matrix(item, 64, 64), (64, 64))
    rows, columns = np.nonzero(warped > 127)
    expected = cv2.transform(np.array([[[40.0, 30.0]]]), transform_matrix(item, 64, 64))[0, 0]
    np.testing.assert_allclose([columns.mean(), rows.mean()], expected, atol=0.5)


def test_recipes_render_from_datasets_and_from_folders(filmed: Path, tmp_path: Path) -> None:
    recipe = misalign(filmed, count=2, seed=1, policy="lax")
    files = render_items(recipe, tmp_path / "videos")
    assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == sorted(
        path.name for path in files
    )
    assert decode_video(files[0]).frames_uint8.shape == (12, 96, 64, 3)
    stored = CurationDataset.open(filmed).decode_clip(recipe["items"][0]["clip_id"])
    assert not np.array_equal(decode_video(files[0]).frames_uint8, stored.frames_uint8)
    again = misalign(tmp_path / "videos", count=5)
    assert (again["source_kind"], len(again["items"])) == ("folder", 2)


def test_clips_are_grouped_by_source_and_person() -> None:
    vectors = np.eye(3)
    rows = [("a", vectors[0]), ("a", vectors[1]), ("b", vectors[1]), ("c", vectors[2]), ("c", None)]
    clips = [{"source_id": source, "identity_embedding": vector} for source, vector in rows]
    # a's two clips share a source, b shows a's second person; c stands alone.
    assert group_clips(clips).tolist() == [0, 0, 0, 1, 1]
    nobody = [{"source_id": name, "identity_embedding": np.zeros(3)} for name in "xy"]
    assert group_clips(nobody).tolist() == [0, 1]


def test_held_out_people_are_not_in_training(scored: Path) -> None:
    recipe = hold_out(scored, count=8, seed=3, policy="lax")
    assert recipe == hold_out(scored, count=8, seed=3, policy="lax")
    items = recipe["items"]
    assert len(items) == 8
    assert len({item["person"] for item in items}) == 8
    assert recipe["num_people"] == 20
    assert {item["clip_id"] for item in hold_out(scored, count=8, seed=4, policy="lax")["items"]}
    rows = {clip["clip_id"]: clip for clip in CurationDataset.open(scored).clips()}
    training = [rows[clip_id] for clip_id in recipe["training_clips"]]
    assert training
    assert not {clip["source_id"] for clip in training} & set(recipe["excluded_sources"])
    held = np.array([rows[item["clip_id"]]["identity_embedding"] for item in items])
    others = np.array([clip["identity_embedding"] for clip in training])
    assert float((held @ others.T).max()) < recipe["min_cosine"]
    # Strata take turns: none gets two more than another that still had people.
    counts = [row["held_out"] for row in recipe["strata"].values()]
    assert max(counts) - min(counts) <= 1
    assert len(hold_out(scored, count=99, policy="lax")["items"]) <= 10


def test_holding_out_needs_two_people(tmp_path: Path) -> None:
    root = made(tmp_path / "one", num_sources=4, num_identities=1, num_frames=2, with_media=True)
    with pytest.raises(DatasetError, match="clips of 1 people"):
        hold_out(root, policy="lax")


def test_leaks_of_people_footage_and_files_are_found(scored: Path, tmp_path: Path) -> None:
    strangers = made(tmp_path / "strangers", num_sources=4, identity_dim=256, seed=99)
    assert find_leakage(scored, strangers, policy="lax").leaks == ()
    same = find_leakage(scored, scored, policy="lax")
    kinds = {leak.kind for leak in same.leaks}
    assert kinds == {"identity", "file"}
    assert len([leak for leak in same.leaks if leak.kind == "identity"]) == (
        same.num_evaluation_clips
    )
    # Another cut of the same footage: other bytes and people unknown, one of two seconds the same.
    train = [row["hashes"] for row in CurationDataset.open(scored).sources()]
    row = CurationDataset.open(strangers).sources()[0]
    from animaray.datasets.commit_log import CommitLog
    from animaray.datasets.shards import write_shard

    near = train[5][0] ^ 0b1011
    CommitLog(strangers).commit([write_shard(strangers, "sources", [{**row, "hashes": [near, 1]}])])
    (leak,) = find_leakage(scored, strangers, policy="lax").leaks
    assert (leak.kind, leak.value, leak.evaluation) == ("footage", 0.5, row["source_id"])


def test_sets_of_different_encoders_are_not_compared(scored: Path, tmp_path: Path) -> None:
    other = made(tmp_path / "other", num_sources=6, identity_dim=8, seed=5)
    with pytest.raises(DatasetError, match="different networks"):
        find_leakage(scored, other, policy="lax")


def picture(path: Path, value: int, size: tuple[int, int] = (48, 32)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), value, np.uint8))


def test_picture_sequences_become_videos(tmp_path: Path) -> None:
    root = tmp_path / "TikTok_dataset"
    for number in range(1, 13):  # 2 comes before 10
        picture(root / "00001" / "images" / f"{number}.png", 15 * number)
        picture(root / "00001" / "masks" / f"{number}.png", 255)
    picture(root / "00002" / "0001.png", 10)
    picture(root / "00002" / "0003.png", 10)
    picture(root / "00003" / "0001.png", 10)
    picture(root / "00003" / "0002.png", 10, (48, 48))
    picture(root / "00004" / "0001.png", 10)
    assert [path.stem for path in find_sequences(root)["00001"]] == [str(n) for n in range(1, 13)]
    results = import_frames(root, tmp_path / "videos", fps=30.0)
    assert [(row["state"], row["reason"]) for row in results] == [
        ("written", None), ("failed", "gap"), ("failed", "sizes_differ"), ("failed", "too_short"),
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == [
        "00001.mp4", "import.json",
    ]  # fmt: skip
    video = decode_video(tmp_path / "videos" / "00001.mp4")
    np.testing.assert_allclose(np.diff(video.pts_s), 1 / 30, atol=1e-4)
    means = video.frames_uint8.mean(axis=(1, 2, 3))
    np.testing.assert_allclose(means, 15 * np.arange(1, 13), atol=3)
    with pytest.raises(DatasetError, match="no picture below"):
        import_frames(tmp_path / "videos", tmp_path / "more")
