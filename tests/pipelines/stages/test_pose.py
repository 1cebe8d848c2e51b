"""Pose scores: both readings of the 70 % rule, people counted, framing, following one person."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from animaray.datasets.reader import tracks_of_row
from animaray.datasets.schemas import table_of_rows
from animaray.models.perception.protocols import PersonPose
from animaray.models.pose.layouts import NUM_FURTHER_POINTS
from animaray.pipelines.curation.clip_samples import ClipSamples
from animaray.pipelines.curation.shelf import _tracks_row
from animaray.pipelines.policy.policies import STANDARD
from animaray.pipelines.policy.rules import judge
from animaray.pipelines.stages.pose import (
    ADDS,
    PoseConfig,
    PoseStage,
    PoseTracks,
    main_person,
    score_poses,
)
from animaray.platform.errors import ConfigError
from animaray.platform.media.video import write_mp4


def tracks_of(seen: np.ndarray, *, num_persons: list[int] | None = None) -> PoseTracks:
    count = len(seen)
    rng = np.random.default_rng(0)
    return PoseTracks(
        pts_s=np.arange(count) / 10,
        frame_index=np.arange(count),
        keypoints=rng.uniform(0, 100, (count, 18, 2)).astype(np.float32),
        keypoint_confidence=np.where(seen, 0.9, 0.1).astype(np.float32),
        num_persons=np.array(num_persons or [1] * count),
        people=tuple(np.zeros((0, 18, 3), dtype=np.float32) for _ in range(count)),
    )


def seeing(*counts: int) -> np.ndarray:
    """Return frames in which the first so many keypoints are seen."""
    return np.arange(18)[None] < np.array(counts)[:, None]


def test_literal_and_strict_reading_count_exactly() -> None:
    # More than 70 % of 18 missing means 5 or fewer seen; at least 70 % seen means 13 or more.
    scores = score_poses(tracks_of(seeing(18, 13, 12, 6, 5, 0)))
    assert scores["pose_missing_share_literal"] == pytest.approx(2 / 6)
    assert scores["pose_missing_share_strict"] == pytest.approx(4 / 6)
    assert scores["pose_coverage"] == pytest.approx((18 + 13 + 12 + 6 + 5) / 6)
    assert scores["pose_found_share"] == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    ("indices", "framing"),
    [
        (range(18), "full"),
        ([0, 1, 2, 5, 8, 11], "half"),
        ([0, 1, 2, 5, 14, 15], "close"),
        ([], "none"),
    ],
)
def test_framing_follows_from_what_shows(indices: list[int], framing: str) -> None:
    seen = np.zeros((3, 18), dtype=bool)
    seen[:, list(indices)] = True
    assert score_poses(tracks_of(seen))["pose_framing"] == framing


def test_nobody_is_not_several_people() -> None:
    scores = score_poses(tracks_of(seeing(0, 0, 0)))
    assert scores["pose_single_share"] is None
    codes = judge({**scores, "pose_state": "ok"}, STANDARD).codes
    assert "keypoints_missing" in codes
    assert "several_people" not in codes


def test_second_person_lowers_the_single_share() -> None:
    scores = score_poses(tracks_of(seeing(18, 18, 18, 18), num_persons=[1, 2, 1, 3]))
    assert scores["pose_single_share"] == 0.5


def test_steady_motion_has_no_jitter_and_shaking_is_all_jitter() -> None:
    steady = tracks_of(seeing(18, 18, 18, 18, 18))
    shaking = tracks_of(seeing(18, 18, 18, 18, 18))
    for index in range(5):
        steady.keypoints[index] = 3.0 * index
        shaking.keypoints[index] = 3.0 * (index % 2)
    assert score_poses(steady)["pose_jitter"] == pytest.approx(0.0, abs=1e-6)
    assert score_poses(shaking)["pose_jitter"] == pytest.approx(1.0)


def person(left: float, height: float) -> PersonPose:
    rows = np.linspace(0, height, 18)
    return PersonPose(
        keypoints=np.stack([np.full(18, left), 20 + rows], axis=1).astype(np.float32),
        keypoint_confidence=np.full(18, 0.9, dtype=np.float32),
    )


def test_followed_person_stays_while_another_is_a_little_larger() -> None:
    mine, other = person(20, 100), person(200, 120)
    assert main_person([other, mine], None) is other
    assert main_person([other, mine], mine) is mine
    assert main_person([], mine) is None


def row_of(path: Path, fps: float) -> dict[str, object]:
    return {
        "samples": ClipSamples(str(path)), "clip_fps": fps, "clip_width": 320, "clip_height": 240,
    }  # fmt: skip


class TwoPeople:
    """See a large person, and a small one in every frame; nobody in dark frames."""

    name = "two people"

    def __init__(self, further_points: np.ndarray | None = None) -> None:
        self._further = further_points

    def estimate(self, frame: np.ndarray) -> list[PersonPose]:
        if np.median(frame) < 50:
            return []
        height = frame.shape[0]
        large = replace(person(0.2 * height, 0.6 * height), further_points=self._further)
        return [large, person(1.0 * height, 0.2 * height)]


def test_clip_is_looked_at_at_a_rate_in_pixels_of_its_own_frames(tmp_path: Path) -> None:
    frames = np.full((30, 240, 320, 3), 120, dtype=np.uint8)
    frames[12:] = 10
    path = tmp_path / "clip.mp4"
    write_mp4(path, frames, 24.0)
    stage = PoseStage(TwoPeople(), PoseConfig(max_fps=10.0, short_side_px=120))
    row = stage(row_of(path, 24.0))
    assert set(ADDS) <= set(row)
    tracks = row["pose_tracks"]
    # 24 fps at most 10 times a second: every third frame.
    assert tracks.frame_index.tolist() == list(range(0, 30, 3))
    np.testing.assert_allclose(tracks.pts_s, tracks.frame_index / 24, atol=1e-3)
    # 0.2 * 120 = 24 px of the half-size frame: its pixel centre 24.5 is at 49 of the full one.
    assert tracks.keypoints[0, 0, 0] == pytest.approx(48.5)
    assert tracks.num_persons.tolist() == [1] * 4 + [0] * 6  # the small one does not compare
    assert len(tracks.people[0]) == 2
    assert (tracks.keypoint_confidence[5] == 0).all()
    assert tracks.further_points is None


class Follower(TwoPeople):
    """Remember the clips that were begun."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[tuple[float, float]] = []

    def start_clip(self, *, fps: float, least_looks_fps: float) -> TwoPeople:
        self.begun.append((fps, least_looks_fps))
        return TwoPeople()


def test_each_clip_is_followed_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_mp4(path, np.full((6, 240, 320, 3), 120, dtype=np.uint8), 24.0)
    estimator = Follower()
    stage = PoseStage(estimator, PoseConfig(max_fps=10.0))
    for _ in range(2):
        stage(row_of(path, 24.0))
    assert estimator.begun == [(8.0, 2.0)] * 2
    with pytest.raises(ConfigError, match="least_looks_fps > 0, got 0"):
        PoseConfig(least_looks_fps=0.0)


def test_hands_and_faces_go_from_the_estimator_into_the_tracks_and_back(tmp_path: Path) -> None:
    frames = np.full((4, 240, 320, 3), 120, dtype=np.uint8)
    frames[3] = 10
    path = tmp_path / "clip.mp4"
    write_mp4(path, frames, 8.0)
    further = np.full((NUM_FURTHER_POINTS, 3), 0.5, np.float32)
    stage = PoseStage(TwoPeople(further), PoseConfig(max_fps=10.0, short_side_px=120))
    row = stage(row_of(path, 8.0))
    found = row["pose_tracks"].further_points
    # Half of a pixel of the half-size frame; nobody in the last one.
    assert found[:3].tolist() == [[[1.5, 1.5, 0.5]] * NUM_FURTHER_POINTS] * 3
    assert (found[3] == 0).all()
    stored = _tracks_row({**row, "clip_id": "a", "face_tracks": None})
    (again,) = table_of_rows("tracks", [stored]).to_pylist()
    assert again["pose_layout"] == "whole_body_134"
    np.testing.assert_array_equal(tracks_of_row(again).further_points, found)
