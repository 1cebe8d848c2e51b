"""Motion scores: known speeds, camera taken out, a still photograph does not move."""

from pathlib import Path

import numpy as np
import pytest

from animaray.pipelines.curation.clip_samples import ClipSamples
from animaray.pipelines.stages.camera import CameraPath
from animaray.pipelines.stages.faces import FaceTracks
from animaray.pipelines.stages.motion import (
    ADDS,
    body_height_px,
    keypoint_speed,
    measure_motion,
    steady_keypoints,
)
from animaray.pipelines.stages.pose import PoseTracks
from animaray.platform.media.video import write_mp4

TIMES = np.arange(21) / 10


def poses(shift_px_per_s: float = 0.0, *, height_px: float = 88.0) -> PoseTracks:
    body = np.stack([np.full(18, 60.0), np.linspace(10, 10 + height_px, 18)], axis=1)
    keypoints = np.repeat(body[None], len(TIMES), axis=0)
    keypoints[:, :, 0] += (shift_px_per_s * TIMES)[:, None]
    return PoseTracks(
        pts_s=TIMES,
        frame_index=np.arange(len(TIMES)),
        keypoints=keypoints.astype(np.float32),
        keypoint_confidence=np.full((len(TIMES), 18), 0.9, dtype=np.float32),
        num_persons=np.ones(len(TIMES), dtype=np.int64),
        people=tuple(np.zeros((0, 18, 3), dtype=np.float32) for _ in TIMES),
    )


def no_faces() -> FaceTracks:
    none = np.zeros(0, dtype=np.float32)
    return FaceTracks(
        frame_index=np.zeros(0, dtype=np.int64),
        boxes=np.zeros((0, 4), dtype=np.float32),
        landmarks=np.zeros((0, 5, 2), dtype=np.float32),
        scores=none, valid=np.zeros(0, dtype=bool), count=np.zeros(0, dtype=np.int64),
        second_area=none, yaw_deg=none, pitch_deg=none, sharpness=none,
        embeddings=np.zeros((0, 2), dtype=np.float32),
    )  # fmt: skip


def camera(shift_px_per_s: float = 0.0) -> CameraPath:
    transforms = np.tile(np.eye(2, 3), (len(TIMES), 1, 1))
    transforms[:, 0, 2] = shift_px_per_s * TIMES
    return CameraPath(
        pts_s=TIMES,
        transforms=transforms,
        has_fit=np.ones(len(TIMES), dtype=bool),
        inlier_share=np.ones(len(TIMES)),
        num_points=np.full(len(TIMES), 99),
        changes=np.zeros(len(TIMES)),
        still_change=np.zeros(len(TIMES)),
        background_share=np.ones(len(TIMES)),
        size=(160, 120),
    )


def test_speed_of_a_steady_walk_is_exact() -> None:
    seen = np.ones((len(TIMES), 18), dtype=bool)
    walk = poses(12.0).keypoints.astype(np.float64)
    assert keypoint_speed(walk, seen, TIMES) == pytest.approx(12.0, rel=1e-4)
    assert keypoint_speed(walk, ~seen, TIMES) == 0.0


def test_camera_motion_is_taken_out() -> None:
    # The picture is sampled at half the clip's width, so the camera's 5 px are 10 px of the clip.
    steady = steady_keypoints(poses(10.0), camera(5.0), clip_width=320)
    np.testing.assert_allclose(steady[-1], steady[0], atol=1e-3)


def test_body_height_comes_from_what_shows() -> None:
    # 88 px from top to bottom keypoint are 0.88 of a person; all in one line has no shoulders.
    assert body_height_px(poses(), no_faces()) == pytest.approx(100.0)
    nobody = poses()
    nobody.keypoint_confidence[:] = 0
    assert body_height_px(nobody, no_faces()) == 1.0


def write_person(tmp_path: Path, step_px: int) -> str:
    frames = np.full((20, 120, 160, 3), 90, dtype=np.uint8)
    for index in range(20):
        left = 50 + step_px * index
        frames[index, 10:100, left : left + 20] = 200
    path = tmp_path / "clip.mp4"
    write_mp4(path, frames, 10.0)
    return str(path)


@pytest.mark.parametrize(("step_px", "moves"), [(0, False), (2, True)])
def test_still_photograph_has_neither_speed_nor_change(
    tmp_path: Path, step_px: int, *, moves: bool
) -> None:
    row = measure_motion(
        {
            "samples": ClipSamples(write_person(tmp_path, step_px)),
            "pose_tracks": poses(10.0 * step_px),
            "face_tracks": no_faces(),
            "camera_path": camera(),
            "clip_width": 160,
        }
    )
    assert set(ADDS) <= set(row)
    scores = row["motion_scores"]
    assert (scores["motion_speed"] > 0.1) == moves
    assert (scores["motion_change"] > 0.02) == moves
    assert scores["motion_speed"] == pytest.approx(0.2 if moves else 0.0, abs=0.01)
