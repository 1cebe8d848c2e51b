import numpy as np
import pytest

from animaray.models.alignment.aligner import AlignerConfig, PoseAligner
from animaray.models.alignment.alignment import PosedPicture, align_clip
from animaray.models.perception.protocols import PersonPose
from animaray.models.pose.further_points import (
    fill_further,
    layout_of,
    map_further,
    mirror_further,
)
from animaray.models.pose.layouts import LEFT_HAND, NUM_FURTHER_POINTS, RIGHT_HAND
from animaray.models.subjects.motion import lasting_people
from animaray.models.subjects.tracks import PersonTrack


def some_points(*frames, seed=0):
    rng = np.random.default_rng(seed)
    points = rng.uniform(0.1, 1.0, (*frames, NUM_FURTHER_POINTS, 3))
    return (points * [100, 100, 1]).astype(np.float32)


def test_a_mirrored_mirror_image_is_the_picture_again():
    points = some_points(4)
    mirrored = mirror_further(points, 100)
    assert np.allclose(mirrored[:, LEFT_HAND, 1:], points[:, RIGHT_HAND, 1:])
    assert np.allclose(mirrored[:, LEFT_HAND, 0], 99 - points[:, RIGHT_HAND, 0])
    assert np.allclose(mirror_further(mirrored, 100), points, atol=1e-4)


def test_moving_leaves_confidences_and_nothing_stays_nothing():
    points = some_points(2)
    moved = map_further(points, lambda places: places * 2 + 1)
    assert np.allclose(moved[..., :2], points[..., :2] * 2 + 1)
    assert np.array_equal(moved[..., 2], points[..., 2])
    assert map_further(None, lambda places: places) is None
    assert mirror_further(None, 10) is None
    assert layout_of(None) == "openpose_18"
    assert layout_of(points) == "whole_body_134"


def test_gaps_are_filled_but_what_a_neighbour_lacks_stays_unseen():
    known = some_points(3)
    known[1, LEFT_HAND] = 0
    filled = fill_further(np.arange(7), np.array([1, 3, 5]), known)
    assert np.array_equal(filled[[1, 3, 5]], known)
    assert np.array_equal(filled[[0, 6]], known[[0, 2]])
    assert np.allclose(filled[2, RIGHT_HAND], (known[0] + known[1])[RIGHT_HAND] / 2)
    assert (filled[2:5, LEFT_HAND, 2] == 0).all()


def test_people_in_a_video_keep_their_hands():
    poses = [
        PersonPose(
            keypoints=np.full((18, 2), 10.0 + frame, np.float32),
            keypoint_confidence=np.ones(18, np.float32),
            further_points=some_points(seed=frame),
        )
        for frame in (0, 2)
    ]
    track = PersonTrack(frames=[0, 2], poses=poses)
    passer_by = PersonTrack(frames=[2], poses=poses[:1])
    motion = lasting_people([track, passer_by], 3, (100, 100)).motion(0)
    assert np.allclose(motion.further_points[1], (some_points() + some_points(seed=2)) / 2)
    assert motion.is_alone.tolist() == [True, False, False]
    assert len(motion.first(2).further_points) == len(motion.first(2).is_alone) == 2


@pytest.mark.parametrize("scope", ["clip", "frame"])
@pytest.mark.parametrize("method", ["none", "fit", "procrustes", "learned"])
def test_every_method_moves_hands_with_the_body(method, scope):
    # Further points that lie on body points end where those end.
    rng = np.random.default_rng(1)
    body = rng.uniform(20, 80, (3, 18, 2)).astype(np.float32)
    places = np.arange(NUM_FURTHER_POINTS) % 18
    further = np.concatenate([body[:, places], np.full((3, 116, 1), 0.5)], axis=-1)
    driving = PosedPicture(
        keypoints=body,
        keypoint_confidence=np.ones((3, 18), np.float32),
        width_px=90,
        height_px=160,
        further_points=further.astype(np.float32),
    )
    reference = PosedPicture(
        keypoints=rng.uniform(20, 200, (18, 2)).astype(np.float32),
        keypoint_confidence=np.ones(18, np.float32),
        width_px=300,
        height_px=200,
    )
    aligner = PoseAligner(AlignerConfig(width=8, num_heads=2)).eval()
    pose = align_clip(method, reference, driving, aligner=aligner, scope=scope)
    assert np.allclose(pose.further_points[..., :2], pose.keypoints[:, places], atol=1e-3)
    assert (pose.further_points[..., 2] == 0.5).all()


def test_the_published_fit_looks_at_frames_with_one_person():
    rng = np.random.default_rng(2)
    reference = PosedPicture(
        keypoints=rng.uniform(20, 80, (18, 2)).astype(np.float32),
        keypoint_confidence=np.ones(18, np.float32),
        width_px=100,
        height_px=100,
    )
    keypoints = np.stack([reference.keypoints - 5, rng.uniform(0, 100, (18, 2))])
    driving = PosedPicture(
        keypoints=keypoints.astype(np.float32),
        keypoint_confidence=np.ones((2, 18), np.float32),
        width_px=100,
        height_px=100,
        is_alone=np.array([True, False]),
    )
    pose = align_clip("fit", reference, driving)
    assert np.allclose(pose.keypoints[0], reference.keypoints, atol=1e-3)
    assert np.allclose(pose.keypoints[1], keypoints[1] + 5, atol=1e-3)
