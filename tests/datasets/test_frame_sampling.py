import itertools
import random

import pytest

from animaray.datasets.frame_sampling import published_window
from animaray.platform.errors import DatasetError


def rng_of(seed):
    return random.Random(seed)  # noqa: S311 - what the rule draws from


@pytest.mark.parametrize("clip_frames", [17, 40, 61, 200])
def test_frames_rise_evenly_and_the_reference_is_another_one(clip_frames):
    for seed in range(20):
        frames, reference = published_window(clip_frames, 16, 4, rng_of(seed))
        steps = [later - earlier for earlier, later in itertools.pairwise(frames)]
        assert len(frames) == 16
        assert frames[0] >= 0
        assert frames[-1] < clip_frames
        assert set(steps) == {4} if clip_frames >= 61 else max(steps) - min(steps) <= 1
        assert reference not in frames
        assert 0 <= reference < clip_frames


def test_clip_without_a_frame_for_the_reference_is_refused():
    with pytest.raises(DatasetError, match="at least 17 frames, got 16"):
        published_window(16, 16, 4, rng_of(0))
