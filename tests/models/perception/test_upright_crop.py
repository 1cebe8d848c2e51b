import math

import numpy as np
import pytest

from animaray.models.perception.permissive.upright_crop import UprightCrop, crop_between


def test_the_middle_of_the_crop_is_where_it_was_asked_for():
    crop = UprightCrop(x=30.0, y=20.0, side_px=64.0, turn=0.7, input_px=128)
    np.testing.assert_allclose(crop.to_picture(np.array([[64.0, 64.0]])), [[30, 20]], atol=1e-5)
    assert crop.picture_px == 0.5


def test_cut_and_to_picture_are_of_one_mind():
    # A single bright pixel is brought back to its own place, whatever the crop's turn.
    picture = np.zeros((80, 80, 3), dtype=np.uint8)
    picture[50, 33] = 255
    for turn in (0.0, 0.5, math.pi / 2):
        crop = UprightCrop(x=40.0, y=40.0, side_px=60.0, turn=turn, input_px=240)
        bright = crop.cut(picture)[:, :, 0].astype(float)
        rows, columns = np.mgrid[:240, :240] + 0.5
        place = [(bright * axis).sum() / bright.sum() for axis in (columns, rows)]
        np.testing.assert_allclose(crop.to_picture(np.array([place]))[0], [33, 50], atol=0.02)


def test_a_mask_is_pasted_where_it_was_cut():
    picture = np.zeros((60, 100, 3), dtype=np.uint8)
    picture[20:40, 30:70] = 255
    crop = UprightCrop(x=50.0, y=30.0, side_px=50.0, turn=0.3, input_px=200)
    mask = crop.cut(picture)[:, :, 0].astype(np.float32) / 255
    pasted = crop.paste(mask, 60, 100)
    assert pasted.shape == (60, 100)
    np.testing.assert_allclose(pasted[22:38, 32:68], 1.0, atol=1e-3)
    assert not pasted[:18].any()


def test_depth_is_scaled_like_the_plane():
    crop = UprightCrop(x=0.0, y=0.0, side_px=50.0, input_px=100)
    np.testing.assert_allclose(crop.to_picture_3d(np.array([[50.0, 50.0, 8.0]])), [[0, 0, 4]])


def test_a_crop_between_points_stands_upright_and_points_that_coincide_give_none():
    # The top lies to the right: what leans a quarter turn clockwise is shown upright.
    centre, top = np.array([10.0, 10.0]), np.array([30.0, 10.0])
    crop = crop_between(centre, top, side_per_radius=2.5, input_px=256)
    assert crop is not None
    assert crop.side_px == pytest.approx(50.0)
    assert crop.turn == pytest.approx(math.pi / 2)
    np.testing.assert_allclose(crop.to_picture(np.array([[128.0, 0.0]])), [[35, 10]], atol=1e-4)
    assert crop_between(centre, centre, side_per_radius=2.5, input_px=256) is None
