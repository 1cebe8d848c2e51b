import math

import pytest
import torch
from torch.testing import assert_close

from animaray.models.diffusion.windows import (
    Border,
    blend_weights,
    jumps,
    num_shared,
    window_indices,
)
from animaray.platform.errors import ConfigError


@pytest.mark.parametrize("window_rule", ["published", "sliding"])
@pytest.mark.parametrize("num_frames", [1, 5, 8, 9, 23, 40])
def test_every_frame_is_covered(window_rule, num_frames):
    windows = window_indices(num_frames, 8, 3, window_rule)
    assert set(torch.cat(windows).tolist()) == set(range(num_frames))
    assert all(len(window) == min(num_frames, 8) for window in windows)


def test_sliding_windows_share_the_overlap():
    windows = window_indices(11, 5, 2, "sliding")
    assert [window[0].item() for window in windows] == [0, 3, 6]


def test_uncovering_overlap_is_refused():
    with pytest.raises(ConfigError, match=r"`window_overlap` must be within \[1, 7\]"):
        window_indices(20, 8, 0)
    with pytest.raises(ConfigError, match=r"`window_overlap` must be within \[0, 7\]"):
        window_indices(20, 8, 8, "sliding")


@pytest.mark.parametrize("overlap", [0, 1, 3, 5])
@pytest.mark.parametrize("num_frames", [9, 16, 17, 40])
def test_sliding_blend_is_smooth_and_only_where_windows_overlap(num_frames, overlap):
    windows = window_indices(num_frames, 8, overlap, "sliding")
    weights = blend_weights(windows, "sliding")
    total, count = torch.zeros(num_frames), torch.zeros(num_frames)
    for window, weight in zip(windows, weights, strict=True):
        total.index_add_(0, window, weight)
        count.index_add_(0, window, torch.ones(len(window)))
    assert bool((total > 0.05).all())
    assert_close(total[count == 1], torch.ones_like(total[count == 1]))
    if overlap <= 4 and count.max() <= 2:
        assert_close(total, torch.ones(num_frames))
    for left, right, weight in zip(windows[:-1], windows[1:], weights[1:], strict=True):
        shared = num_shared(left, right, "sliding")
        assert shared >= overlap
        if count.max() <= 2:
            assert bool((weight[:shared].diff() > 0).all())


def test_sliding_windows_are_evenly_spread():
    starts = [window[0].item() for window in window_indices(21, 8, 2, "sliding")]
    assert starts == [0, 4, 9, 13]


def test_published_neighbours_share_one_frame_less_at_their_border():
    windows = window_indices(28, 16, 4)
    assert num_shared(windows[0], windows[1], "published") == 3


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
    border = Border(frame=2, num_shared=2, start=0)
    assert border.disagreement(one, one + 0.25) == pytest.approx(0.25)
    assert math.isnan(border._replace(num_shared=0).disagreement(one, one))
