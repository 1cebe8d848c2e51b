import pytest
import torch
from torch.testing import assert_close

from animaray.models.diffusion.tiles import blend_weights, num_shared, tile_indices
from animaray.platform.errors import ConfigError


@pytest.mark.parametrize("window_rule", ["published", "sliding"])
@pytest.mark.parametrize("num_frames", [1, 5, 8, 9, 23, 40])
def test_every_frame_is_covered(window_rule, num_frames):
    tiles = tile_indices(num_frames, 8, 3, window_rule)
    assert set(torch.cat(tiles).tolist()) == set(range(num_frames))
    assert all(len(tile) == min(num_frames, 8) for tile in tiles)


def test_sliding_windows_share_the_overlap():
    tiles = tile_indices(11, 5, 2, "sliding")
    assert [tile[0].item() for tile in tiles] == [0, 3, 6]


def test_uncovering_overlap_is_refused():
    with pytest.raises(ConfigError, match=r"`window_overlap` must be within \[1, 7\]"):
        tile_indices(20, 8, 0)
    with pytest.raises(ConfigError, match=r"`window_overlap` must be within \[0, 7\]"):
        tile_indices(20, 8, 8, "sliding")


@pytest.mark.parametrize("overlap", [0, 1, 3, 5])
@pytest.mark.parametrize("num_frames", [9, 16, 17, 40])
def test_sliding_blend_is_smooth_and_only_where_windows_overlap(num_frames, overlap):
    tiles = tile_indices(num_frames, 8, overlap, "sliding")
    weights = blend_weights(tiles, "sliding")
    total, count = torch.zeros(num_frames), torch.zeros(num_frames)
    for tile, weight in zip(tiles, weights, strict=True):
        total.index_add_(0, tile, weight)
        count.index_add_(0, tile, torch.ones(len(tile)))
    assert bool((total > 0.05).all())
    assert_close(total[count == 1], torch.ones_like(total[count == 1]))
    if overlap <= 4 and count.max() <= 2:
        assert_close(total, torch.ones(num_frames))
    for left, right, weight in zip(tiles[:-1], tiles[1:], weights[1:], strict=True):
        shared = num_shared(left, right, "sliding")
        assert shared >= overlap
        if count.max() <= 2:
            assert bool((weight[:shared].diff() > 0).all())


def test_sliding_windows_are_evenly_spread():
    starts = [tile[0].item() for tile in tile_indices(21, 8, 2, "sliding")]
    assert starts == [0, 4, 9, 13]


def test_published_neighbours_share_one_frame_less_at_their_border():
    tiles = tile_indices(28, 16, 4)
    assert num_shared(tiles[0], tiles[1], "published") == 3
