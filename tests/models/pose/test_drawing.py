import numpy as np
import pytest

from animaray.models.frames import to_frames
from animaray.models.perception.protocols import PersonPose
from animaray.models.pose.drawing import draw_people, draw_pose_clip
from animaray.models.pose.layouts import (
    FACE,
    LEFT_HAND,
    NUM_FURTHER_POINTS,
    PALETTE,
    RIGHT_HAND,
    PoseLayout,
)
from animaray.models.subjects.motion import Motion

WHOLE: PoseLayout = "whole_body_134"


def standing(width, height):
    points = np.full((18, 2), 0.5) * [width, height]
    points[1] = 0.5 * width, 0.2 * height
    points[8] = 0.5 * width, 0.8 * height
    return points.astype(np.float32)


def only(*indices):
    confidence = np.zeros(18, np.float32)
    confidence[list(indices)] = 1
    return confidence


def draw_body(points, confidence, width, height, style="auto"):
    person = PersonPose(keypoints=points, keypoint_confidence=confidence)
    return draw_people([person], width, height, WHOLE, style)


def bodiless(further):
    return PersonPose(
        keypoints=np.zeros((18, 2), np.float32),
        keypoint_confidence=np.zeros(18, np.float32),
        further_points=further,
    )


@pytest.mark.parametrize("style", ["bold", "published"])
def test_limb_and_ends_have_their_colours(style):
    # Limb 6 joins neck and right hip; limbs are dimmed to 60 %.
    size = 400
    drawn = draw_body(standing(size, size), only(1, 8), size, size, style)
    limb = np.array(PALETTE[6]) * 0.6
    assert np.abs(drawn[size // 2, size // 2] - limb).max() <= 2
    assert np.abs(drawn[size // 5, size // 2].astype(int) - PALETTE[1]).max() <= 40
    assert np.abs(drawn[4 * size // 5, size // 2].astype(int) - PALETTE[8]).max() <= 40


def test_small_pictures_keep_unbroken_limbs():
    drawn = draw_body(standing(192, 192), only(1, 8), 192, 192)
    column = drawn[45:150, 94:99].max(axis=(1, 2))
    assert (column > 100).all()


def test_unseen_keypoints_are_not_drawn():
    assert draw_body(standing(64, 64), np.full(18, 0.2, np.float32), 64, 64).max() == 0


def test_keypoints_outside_the_picture_do_no_harm():
    points = standing(64, 64) * 50 - 1000
    assert draw_body(points, np.ones(18, np.float32), 64, 64).shape == (64, 64, 3)


def test_clip_is_drawn_frame_by_frame():
    points, confidence = standing(64, 48), only(1, 8)
    motion = Motion(
        keypoints=np.stack([points, points + 5]),
        keypoint_confidence=np.stack([confidence] * 2),
        width_px=64,
        height_px=48,
        is_filled=np.zeros(2, bool),
    )
    clip = draw_pose_clip([motion], 64, 48, WHOLE)
    assert clip.shape == (2, 48, 64, 3)
    assert np.array_equal(clip[0], draw_body(points, confidence, 64, 48))
    tensor = to_frames(clip)
    assert tensor.shape == (2, 3, 48, 64)
    assert tensor.min().item() == -1


def test_hands_and_faces_reach_to_the_pictures_edge():
    # Only a point on the first row or column of the canvas is left out.
    further = np.zeros((NUM_FURTHER_POINTS, 3), np.float32)
    further[FACE] = 0.1, 0.1, 1.0
    assert draw_people([bodiless(further)], 540, 540, WHOLE).max() == 0
    further[FACE.start, :2] = 1.0
    assert draw_people([bodiless(further)], 540, 540, WHOLE)[0:2, 0:2].min() > 0


def test_all_left_hands_lie_below_all_right_hands():
    # Two people whose hands meet: the right hand of the first covers the left of the second.
    def person(left, right):
        further = np.zeros((NUM_FURTHER_POINTS, 3), np.float32)
        further[LEFT_HAND] = left, left, 1.0
        further[RIGHT_HAND] = right, right, 0.5
        return bodiless(further)

    drawn = draw_people([person(50.0, 200.0), person(200.0, 350.0)], 540, 540, WHOLE)
    assert drawn[200, 200].tolist() == [0, 0, 127]


@pytest.mark.parametrize(("size", "style"), [(96, "bold"), (540, "published")])
def test_hands_and_faces_are_drawn_where_the_layout_and_the_confidence_say_so(size, style):
    rng = np.random.default_rng(0)
    further = rng.uniform(0.2, 0.8, (NUM_FURTHER_POINTS, 3)).astype(np.float32) * [size, size, 1]
    further = further.astype(np.float32)
    whole = draw_people([bodiless(further)], size, size, WHOLE, style)
    assert (whole[..., 0] == whole[..., 2]).sum() < whole[..., 0].size  # hands are coloured
    assert ((whole.min(axis=2) > 40) & (np.ptp(whole, axis=2) < 20)).any()  # the face is grey
    assert draw_people([bodiless(further)], size, size, "openpose_18", style).max() == 0
    further[:, 2] = 0  # what was not found lies anywhere
    assert draw_people([bodiless(further)], size, size, WHOLE, style).max() == 0


def test_an_unseen_hand_does_not_black_out_the_body():
    points, confidence = standing(540, 540), only(1, 8)
    further = np.zeros((NUM_FURTHER_POINTS, 3), np.float32)
    further[LEFT_HAND, :2] = 270, 270  # on the limb
    person = PersonPose(keypoints=points, keypoint_confidence=confidence, further_points=further)
    assert np.array_equal(
        draw_people([person], 540, 540, WHOLE), draw_body(points, confidence, 540, 540)
    )
