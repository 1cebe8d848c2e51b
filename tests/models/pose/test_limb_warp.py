"""Body parts move where the pose has them; what they leave is filled, the rest stays."""

import numpy as np
import pytest

from animaray.models.pose.limb_warp import BodyPose, LimbWarp

SIZE = 120


def stand(right_wrist=(30, 80), left_wrist=(90, 80), shift=(0, 0), scale=1.0) -> BodyPose:
    """Return a person whose shoulders are 30 px apart; arms go where the wrists are."""
    points = np.zeros((18, 2), np.float32)
    points[0], points[1] = (60, 28), (60, 45)
    points[2], points[5] = (45, 46), (75, 46)
    points[4], points[7] = right_wrist, left_wrist
    points[3], points[6] = (points[2] + points[4]) / 2, (points[5] + points[7]) / 2
    points[8], points[11] = (50, 90), (70, 90)
    points[14], points[15], points[16], points[17] = (57, 25), (63, 25), (53, 26), (67, 26)
    confidence = np.ones(18, np.float32)
    confidence[[9, 10, 12, 13]] = 0
    centre = np.array([60, 60], np.float32)
    moved = (points - centre) * scale + centre + np.array(shift, np.float32)
    return BodyPose(keypoints=moved.astype(np.float32), confidence=confidence)


@pytest.fixture
def picture() -> np.ndarray:
    """A grey wall; the right forearm's middle is red, the nose is green."""
    picture = np.full((SIZE, SIZE, 3), 128, np.uint8)
    pose = stand()
    x, y = ((pose.keypoints[3] + pose.keypoints[4]) / 2).astype(int)
    picture[y - 1 : y + 2, x - 1 : x + 2] = (255, 0, 0)
    picture[27:30, 59:62] = (0, 255, 0)
    return picture


def centre_of(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(mask)
    return np.array([columns.mean(), rows.mean()])


def red(picture: np.ndarray) -> np.ndarray:
    return (picture[..., 0].astype(int) - picture[..., 1]) > 60


def test_an_arm_takes_its_pixels_along(picture: np.ndarray) -> None:
    lifted = stand(right_wrist=(20, 20))
    draft = LimbWarp(picture, [stand()]).move([lifted])
    expected = (lifted.keypoints[3] + lifted.keypoints[4]) / 2
    np.testing.assert_allclose(centre_of(red(draft.picture_uint8)), expected, atol=1.5)
    assert draft.moved[int(expected[1]), int(expected[0])] == 255


def test_what_an_arm_leaves_is_filled_and_marked_and_the_rest_stays(picture: np.ndarray) -> None:
    pose = stand()
    place = ((pose.keypoints[3] + pose.keypoints[4]) / 2).astype(int)
    draft = LimbWarp(picture, [pose]).move([stand(right_wrist=(20, 20))])
    assert draft.left[place[1], place[0]] == 255
    near = draft.picture_uint8[place[1], place[0]].astype(int)
    assert np.abs(near - 128).max() < 40
    untouched = (draft.moved == 0) & (draft.left == 0)
    assert untouched.mean() > 0.4
    np.testing.assert_array_equal(draft.picture_uint8[untouched], picture[untouched])


def test_an_unmoved_pose_gives_the_picture_back(picture: np.ndarray) -> None:
    draft = LimbWarp(picture, [stand()]).move([stand()])
    inside = draft.moved > 0
    assert np.abs(draft.picture_uint8[inside].astype(int) - picture[inside]).mean() < 1.0


@pytest.mark.parametrize(("shift", "scale"), [((12, -8), 1.0), ((0, 10), 1.3)])
def test_the_head_follows_shift_and_scale(
    picture: np.ndarray, shift: tuple[int, int], scale: float
) -> None:
    driven = stand(shift=shift, scale=scale)
    draft = LimbWarp(picture, [stand()]).move([driven])
    green = (draft.picture_uint8[..., 1].astype(int) - draft.picture_uint8[..., 0]) > 60
    np.testing.assert_allclose(centre_of(green), driven.keypoints[0], atol=1.5)


def test_parts_that_one_of_the_poses_does_not_show_are_left_out(picture: np.ndarray) -> None:
    hidden = stand()
    hidden.confidence[:] = 0
    draft = LimbWarp(picture, [stand()]).move([hidden])
    assert not draft.moved.any()
    nobody = LimbWarp(picture, [hidden]).move([stand()])
    np.testing.assert_array_equal(nobody.picture_uint8, picture)
    assert not nobody.left.any()


def test_a_head_turned_aside_does_not_tumble(picture: np.ndarray) -> None:
    driven = stand()
    driven.keypoints[[0, 14, 15, 16, 17]] = [(72, 40), (74, 36), (74, 37), (66, 30), (70, 35)]
    draft = LimbWarp(picture, [stand()]).move([driven])
    assert draft.moved.any()
    assert np.isfinite(draft.picture_uint8.astype(float)).all()
