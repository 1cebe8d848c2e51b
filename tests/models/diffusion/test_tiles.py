import json

import pytest
import torch
from torch.testing import assert_close

from animaray.models.diffusion.tiles import published_tiles, tile_indices, tile_weights
from animaray.platform.errors import ConfigError


def test_windows_and_weights_equal_the_published_ones(golden_data):
    cases = json.loads((golden_data / "tile_blend" / "config.json").read_text())["cases"]
    for case in cases:
        if case["error"]:
            continue
        num_frames, size = case["num_frames"], case["tile_size"]
        tiles = published_tiles(num_frames, size, case["tile_overlap"])
        assert [tile.tolist() for tile in tiles] == case["indices"]
        weight_sum = torch.zeros(num_frames)
        for tile in tiles:
            # A tile holds frame 0 once or, in very short ones, as one of fewer frames.
            weight_sum.index_add_(0, tile, tile_weights(size)[: len(tile)])
        assert_close(weight_sum, torch.tensor(case["weight_sum"]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("tiling", ["published", "sliding"])
@pytest.mark.parametrize("num_frames", [1, 5, 8, 9, 23, 40])
def test_every_frame_is_covered(tiling, num_frames):
    tiles = tile_indices(num_frames, 8, 3, tiling)
    assert set(torch.cat(tiles).tolist()) == set(range(num_frames))
    assert all(len(tile) == min(num_frames, 8) for tile in tiles)


def test_sliding_windows_share_the_overlap():
    tiles = tile_indices(11, 5, 2, "sliding")
    assert [tile[0].item() for tile in tiles] == [0, 3, 6]


def test_uncovering_overlap_is_refused():
    with pytest.raises(ConfigError, match=r"`tile_overlap` must be within \[1, 7\]"):
        tile_indices(20, 8, 0)
    with pytest.raises(ConfigError, match=r"`tile_overlap` must be within \[0, 7\]"):
        tile_indices(20, 8, 8, "sliding")
