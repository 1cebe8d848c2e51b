"""Drawn people moved by 18 keypoints and a true matte."""

from dataclasses import replace

import numpy as np
import pytest

from animaray.datasets.world.cameras import Similarity
from animaray.datasets.world.clips import render_clip, render_matte, sample_clip_spec
from animaray.datasets.world.motions import sample_posture
from animaray.datasets.world.people import sample_person
from animaray.datasets.world.postures import posture_to_pose
from animaray.datasets.world.rendering import Stage, draw_person, person_matte
from animaray.models.parts.keypoint_matte import matte_of_keypoints
from animaray.models.parts.keypoint_puppet import KeypointPuppet, landmarks_of_keypoints
from animaray.models.pose.body_pose import BodyPose

SPEC = sample_clip_spec(
    3_000_002, num_frames=8, fps=8.0, size=(192, 192), camera_kind="static", framing="half"
)


@pytest.fixture(scope="module")
def clip() -> tuple[np.ndarray, list[BodyPose], np.ndarray]:
    rendered = render_clip(SPEC)
    poses = [
        BodyPose(
            keypoints=truth.persons[0].keypoints.astype(np.float32),
            confidence=truth.persons[0].keypoint_visible.astype(np.float32),
        )
        for truth in rendered.truth.frames
    ]
    return rendered.frames_uint8, poses, render_matte(SPEC, 0).astype(np.float32) / 255.0


def test_the_matte_is_opaque_exactly_where_the_ground_does_not_show(clip):
    _, _, matte = clip
    person, posture = sample_person(3), sample_posture(np.random.default_rng(4))
    pose = posture_to_pose(posture, person.body)
    stage = Stage(size=(96, 96), metre_px=48.0, ground=complex(47.5, 90.0))
    grounds = [np.full((96, 96, 3), level, np.uint8) for level in (0, 255)]
    for ground in grounds:
        draw_person(ground, person, pose, stage, Similarity())
    alpha = person_matte(person, pose, stage, Similarity())
    difference = grounds[1].astype(int) - grounds[0]
    assert difference[alpha == 255].max() <= 1
    assert difference[alpha == 0].min() > 80  # the shadow takes a part, never all
    assert 0.05 < (alpha == 255).mean() < 0.5
    assert 0.1 < (matte > 0.5).mean() < 0.7


def test_the_own_pose_gives_the_picture_back(clip):
    frames, poses, matte = clip
    moved = KeypointPuppet(frames[0], poses[:1], [matte]).move(poses[:1])
    assert np.abs(moved.picture_uint8.astype(float) - frames[0]).mean() < 3.5
    assert ((moved.moved > 0) == (matte > 0.5)).mean() > 0.97
    untouched = (moved.moved == 0) & (moved.left == 0) & (matte == 0.0)
    assert untouched.mean() > 0.2


@pytest.mark.parametrize("knows_matte", [True, False])
def test_it_comes_nearer_to_the_truth_than_a_still_picture(clip, knows_matte):
    frames, poses, matte = clip
    puppet = KeypointPuppet(frames[0], poses[:1], [matte] if knows_matte else None)

    def error(made: np.ndarray, frame: int) -> float:
        return float(np.square(made.astype(float) - frames[frame]).mean())

    later = range(1, len(frames))
    parts = np.mean([error(puppet.move([poses[i]]).picture_uint8, i) for i in later])
    still = np.mean([error(frames[0], i) for i in later])
    assert parts < (0.5 if knows_matte else 0.7) * still


def test_keypoints_cut_the_person_out(clip):
    frames, poses, matte = clip
    alpha = matte_of_keypoints(frames[0], poses[0])
    assert np.minimum(alpha, matte).sum() > 0.7 * np.maximum(alpha, matte).sum()
    nobody = BodyPose(keypoints=poses[0].keypoints, confidence=np.zeros(18))
    assert not matte_of_keypoints(frames[0], nobody).any()


def test_small_pictures_can_be_moved_larger(clip):
    frames, poses, matte = clip
    puppet = KeypointPuppet(frames[0], poses[:1], [matte], least_side_px=512)
    moved = puppet.move(poses[3:4])
    assert moved.picture_uint8.shape == frames[0].shape
    assert moved.moved.shape == moved.left.shape == frames[0].shape[:2]


def test_who_does_not_show_nose_and_shoulders_stands_still(clip):
    frames, poses, matte = clip
    confidence = poses[0].confidence.copy()
    confidence[2] = 0.0
    hidden = BodyPose(keypoints=poses[0].keypoints, confidence=confidence)
    warped = KeypointPuppet(frames[0], [hidden], [matte]).move(poses[3:4])
    np.testing.assert_array_equal(warped.picture_uint8, frames[0])
    assert not warped.moved.any()
    assert not warped.left.any()


def test_a_driver_who_is_not_seen_leaves_the_person_where_they_are(clip):
    frames, poses, matte = clip
    unseen = BodyPose(keypoints=np.zeros((18, 2)), confidence=np.zeros(18))
    warped = KeypointPuppet(frames[0], poses[:1], [matte]).move([unseen])
    assert np.abs(warped.picture_uint8.astype(float) - frames[0]).mean() < 3.5


def test_two_people_move_each_by_their_own_pose():
    spec = sample_clip_spec(
        5, num_frames=4, fps=4.0, size=(256, 192), camera_kind="static", framing="full"
    )
    rendered = render_clip(replace(spec, person_seeds=(3, 9), motion_kind="raise_arms"))
    frames = rendered.frames_uint8
    poses = [
        [
            BodyPose(keypoints=p.keypoints, confidence=p.keypoint_visible.astype(float))
            for p in truth.persons
        ]
        for truth in rendered.truth.frames
    ]
    warped = KeypointPuppet(frames[0], poses[0]).move(poses[3])
    for person in poses[3]:
        x, y = person.keypoints[1].astype(int)
        assert warped.moved[y, x] == 255

    def error(made: np.ndarray) -> float:
        return float(np.square(made.astype(float) - frames[3]).mean())

    assert error(warped.picture_uint8) < 0.9 * error(frames[0])


def test_points_that_are_not_seen_go_with_the_others(clip):
    frames, poses, matte = clip
    shifted = poses[0].keypoints + np.array([12.0, 0.0], np.float32)
    confidence = poses[0].confidence.copy()
    confidence[[4, 7]] = 0.0
    shifted[[4, 7]] = 0.0
    puppet = KeypointPuppet(frames[0], poses[:1], [matte])
    hidden = puppet.move([BodyPose(keypoints=shifted, confidence=confidence)]).picture_uint8
    right = poses[0].keypoints + np.array([12.0, 0.0], np.float32)
    moved = puppet.move([BodyPose(keypoints=right, confidence=poses[0].confidence)])
    whole = moved.picture_uint8
    assert np.abs(hidden.astype(float) - whole).mean() < 1.0


def test_body_points_keep_the_persons_sides():
    keypoints = np.arange(36, dtype=np.float32).reshape(18, 2)
    person = landmarks_of_keypoints(BodyPose(keypoints=keypoints, confidence=np.ones(18)))
    assert person.points[11].tolist() == keypoints[5].tolist()  # left shoulder
    assert person.points[16].tolist() == keypoints[4].tolist()  # right wrist
    assert person.visibility[[29, 30, 31, 32]].max() == 0.0
