import numpy as np
import pytest

from animaray.models.pose.drawing import (
    WholeBody,
    draw_people,
    draw_pose,
    draw_pose_clip,
    pose_images_to_tensor,
)
from animaray.models.pose.layouts import PALETTE


def standing(width, height):
    points = np.full((18, 2), 0.5) * [width, height]
    points[1] = 0.5 * width, 0.2 * height
    points[8] = 0.5 * width, 0.8 * height
    return points.astype(np.float32)


def only(*indices):
    confidence = np.zeros(18, np.float32)
    confidence[list(indices)] = 1
    return confidence


@pytest.mark.parametrize("style", ["bold", "published"])
def test_limb_and_ends_have_their_colours(style):
    # Limb 6 joins neck and right hip; limbs are dimmed to 60 %.
    size = 400
    drawn = draw_pose(standing(size, size), only(1, 8), size, size, style)
    limb = np.array(PALETTE[6]) * 0.6
    assert np.abs(drawn[size // 2, size // 2] - limb).max() <= 2
    assert np.abs(drawn[size // 5, size // 2].astype(int) - PALETTE[1]).max() <= 40
    assert np.abs(drawn[4 * size // 5, size // 2].astype(int) - PALETTE[8]).max() <= 40


def test_small_pictures_keep_unbroken_limbs():
    drawn = draw_pose(standing(192, 192), only(1, 8), 192, 192)
    column = drawn[45:150, 94:99].max(axis=(1, 2))
    assert (column > 100).all()


def test_unseen_keypoints_are_not_drawn():
    assert draw_pose(standing(64, 64), np.full(18, 0.2, np.float32), 64, 64).max() == 0


def test_keypoints_outside_the_picture_do_no_harm():
    points = standing(64, 64) * 50 - 1000
    assert draw_pose(points, np.ones(18, np.float32), 64, 64).shape == (64, 64, 3)


def test_clip_is_drawn_frame_by_frame():
    points, confidence = standing(64, 48), only(1, 8)
    clip = draw_pose_clip(np.stack([points, points + 5]), np.stack([confidence] * 2), 64, 48)
    assert clip.shape == (2, 48, 64, 3)
    assert np.array_equal(clip[0], draw_pose(points, confidence, 64, 48))
    tensor = pose_images_to_tensor(clip)
    assert tensor.shape == (2, 3, 48, 64)
    assert tensor.min().item() == -1


def test_hands_and_faces_reach_to_the_pictures_edge():
    # Only a point on the first row or column of the canvas is left out.
    face = np.full((68, 2), 1.0)
    face[1:] = 0.1
    person = WholeBody(
        body=np.zeros((18, 2)),
        body_confidence=np.zeros(18),
        face=face,
        face_confidence=np.ones(68),
    )
    drawn = draw_people([person], 540, 540)
    assert drawn[0:2, 0:2].min() > 0
    face[0] = 0.1
    assert draw_people([person], 540, 540).max() == 0


def test_all_left_hands_lie_below_all_right_hands():
    # Two people whose hands meet: the right hand of the first covers the left of the second.
    def person(left, right):
        hands = np.stack([np.full((21, 2), left), np.full((21, 2), right)])
        return WholeBody(
            body=np.zeros((18, 2)),
            body_confidence=np.zeros(18),
            hands=hands,
            hands_confidence=np.stack([np.full(21, 1.0), np.full(21, 0.5)]),
        )

    drawn = draw_people([person(50.0, 200.0), person(200.0, 350.0)], 540, 540)
    assert drawn[200, 200].tolist() == [0, 0, 127]
