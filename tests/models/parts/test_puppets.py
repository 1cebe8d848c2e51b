"""The geometry: pixels, triangles, joints."""

from dataclasses import replace

import numpy as np
import pytest

from animaray.models.parts.body_mode import BodyPuppet
from animaray.models.parts.head_mode import HeadPuppet
from animaray.models.parts.landmarks import TargetPose
from animaray.models.parts.patch_fill import fill_by_patches
from animaray.models.parts.raster import OUTSIDE, Box, draw_triangles, empty_map
from animaray.models.parts.skinning import Bone, blend_about
from animaray.platform.errors import FaceError
from tests.models.parts.synthetic_people import matte_of, picture, standing


@pytest.fixture(scope="module")
def body() -> BodyPuppet:
    return BodyPuppet(picture(), standing(), matte_of(standing()))


def target_of(**moved: tuple[float, float]) -> TargetPose:
    person = standing(**moved)
    return TargetPose(body=person.body, face=person.face)


def test_pixels_that_nobody_touches_are_the_photos_bit_for_bit(body: BodyPuppet) -> None:
    frame = body.render(target_of(p13=(180, 120), p15=(215, 90)))
    untouched = ~body.plate.invented
    untouched[:, 140:] = False  # the arm moves there
    assert untouched.mean() > 0.2
    assert (frame[untouched] == picture()[untouched]).all()


def test_the_photos_own_pose_shows_the_photo(body: BodyPuppet) -> None:
    frame = body.render(target_of())
    solid = matte_of(standing()) > 0.99
    import cv2

    solid = cv2.erode(solid.astype(np.uint8), np.ones((9, 9))) > 0
    difference = np.abs(frame.astype(int) - picture())[solid]
    assert np.median(difference) < 12


def test_a_moved_arm_leaves_its_place_and_arrives(body: BodyPuppet) -> None:
    still, moved = body.render(target_of()), body.render(target_of(p13=(190, 100), p15=(230, 60)))
    changed = np.abs(still.astype(int) - moved).sum(axis=2) > 60
    assert changed[55:70, 215:235].mean() > 0.3  # the hand is here now
    assert changed[200:225, 178:192].mean() > 0.3  # and no more there
    assert not changed[230:, :120].any()


def test_the_same_photo_gives_the_same_frames(body: BodyPuppet) -> None:
    again = BodyPuppet(picture(), standing(), matte_of(standing()))
    target = target_of(p15=(215, 150))
    assert (again.render(target) == body.render(target)).all()


def test_the_head_moves_and_the_far_background_stays() -> None:
    person = standing()
    puppet = HeadPuppet(picture(), person, matte_of(person))
    still = puppet.render(TargetPose(body=person.body, face=person.face))
    assert np.median(np.abs(still.astype(int) - picture())) == 0
    moved = puppet.render(TargetPose(body=person.body, face=person.face + np.array([6.0, 0, 0])))
    assert (moved[300:, :60] == still[300:, :60]).all()
    assert (moved[50:70, 110:130] != still[50:70, 110:130]).mean() > 0.5
    with pytest.raises(FaceError):
        HeadPuppet(picture(), replace(person, face=None), matte_of(person))


def test_near_triangles_cover_far_ones_and_tell_their_source() -> None:
    square = np.array([[0, 0], [9, 0], [0, 9], [9, 9]], np.float64)
    triangles = np.array([[0, 1, 2], [1, 3, 2]])
    both = np.concatenate([triangles, triangles + 4])
    vertices = np.concatenate([square + 2, square + 6])
    sampling = empty_map(Box(left=0, top=0, right=20, bottom=20))
    source = np.concatenate([square, square + 100])
    draw_triangles(sampling, vertices, source, both, np.array([0.0, 0.0, 1.0, 1.0]))
    assert sampling[4, 5].tolist() == pytest.approx([3.0, 2.0], abs=1e-4)
    assert sampling[8, 8].tolist() == pytest.approx([6.0, 6.0], abs=1e-4)  # the near one
    assert sampling[13, 14].tolist() == pytest.approx([108.0, 107.0], abs=1e-4)
    assert (sampling[0, 0] == OUTSIDE).all()


def test_a_bent_elbow_does_not_collapse() -> None:
    straight = Bone(0.0, np.eye(2))
    folded = Bone(np.radians(170), np.eye(2))
    points = np.array([[0.0, 10.0], [0.0, -10.0]])
    joint = np.zeros(2)
    halfway = blend_about(points, (joint, joint), (straight, folded), np.full(2, 0.5))
    assert np.linalg.norm(halfway, axis=1) == pytest.approx([10.0, 10.0])


def test_patches_continue_a_texture() -> None:
    rows, columns = np.indices((96, 96))
    stripes = np.where((columns // 4) % 2, 220, 30).astype(np.uint8)
    striped = np.stack([stripes] * 3, axis=-1)
    hole = (np.abs(rows - 48) < 10) & (np.abs(columns - 48) < 10)
    filled = fill_by_patches(striped, hole)
    assert np.abs(filled - striped)[hole].mean() < 25  # stripes: a smooth fill is 95 off
    assert (filled[~hole] == striped[~hole]).all()
