import math

import pytest
import torch

from animaray.models.diffusion.seams import disagreement, jumps


def clip_of(levels):
    return torch.tensor(levels)[None, :, None, None, None].expand(1, -1, 4, 2, 2)


def test_even_motion_has_no_jump():
    assert jumps(clip_of([0.0, 1.0, 2.0, 3.0, 4.0, 5.0]), [3]) == pytest.approx([1.0])


def test_jump_is_relative_to_the_motion_around_it():
    assert jumps(clip_of([0.0, 1.0, 2.0, 7.0, 8.0, 9.0]), [3]) == pytest.approx([5.0])


def test_other_borders_do_not_count_as_motion():
    assert jumps(clip_of([0.0, 1.0, 5.0, 9.0, 10.0]), [2, 3]) == pytest.approx([4.0, 4.0])


def test_nothing_to_compare_with_is_nan():
    assert math.isnan(jumps(clip_of([0.0, 3.0]), [1])[0])
    assert math.isnan(jumps(clip_of([1.0, 1.0, 1.0]), [1])[0])


def test_disagreement_is_the_mean_difference():
    one = clip_of([1.0, 2.0])
    assert disagreement(one, one + 0.25) == pytest.approx(0.25)
    assert math.isnan(disagreement(one[:, :0], one[:, :0]))
