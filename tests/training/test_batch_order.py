import numpy as np
import pytest

from animaray.datasets.encoded_clips import EncodedClips
from animaray.models.networks.animator_config import AnimatorConfig
from animaray.platform.errors import ConfigError, DatasetError
from animaray.training.animator_batches import AnimatorBatches
from animaray.training.batch_order import (
    BatchLayout,
    WindowConfig,
    clip_at,
    noise_seed,
    plan_window,
)

LENGTHS = np.array([24, 9, 8, 30], dtype=np.int64)


def test_every_epoch_visits_every_clip_once_in_another_order() -> None:
    first = [clip_at(position, 50, seed=3) for position in range(50)]
    second = [clip_at(position, 50, seed=3) for position in range(50, 100)]
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second


def test_items_of_a_step_do_not_depend_on_the_number_of_workers() -> None:
    alone = BatchLayout(global_batch_size=8, micro_batch_size=8, world_size=1)
    spread = BatchLayout(global_batch_size=8, micro_batch_size=2, world_size=2)
    assert spread.num_micro_steps == 2
    for step in (0, 5):
        of_one = set(alone.positions(step, 0, 0))
        of_all = [
            position
            for micro_step in range(2)
            for rank in range(2)
            for position in spread.positions(step, micro_step, rank)
        ]
        assert len(of_all) == 8
        assert set(of_all) == of_one == set(range(8 * step, 8 * step + 8))


def test_layout_refuses_a_global_batch_that_does_not_divide() -> None:
    with pytest.raises(ConfigError, match="global_batch_size 6 must be a multiple of"):
        BatchLayout(global_batch_size=6, micro_batch_size=2, world_size=2)


def test_window_is_a_pure_function_of_seed_and_position() -> None:
    config = WindowConfig(num_frames=8, max_stride=3, mirror_probability=0.5)
    windows = [plan_window(position, LENGTHS, config, seed=1) for position in range(40)]
    again = [plan_window(position, LENGTHS, config, seed=1) for position in reversed(range(40))]
    assert windows == again[::-1]
    assert windows != [plan_window(position, LENGTHS, config, seed=2) for position in range(40)]


def test_windows_fit_their_clip_and_keep_the_reference_outside_when_possible() -> None:
    config = WindowConfig(num_frames=8, max_stride=3)
    strides = set()
    for position in range(200):
        window = plan_window(position, LENGTHS, config, seed=0)
        length = LENGTHS[window.clip_index]
        frames = window.frame_indices
        steps = set(np.diff(frames).tolist())
        assert len(frames) == 8
        assert len(steps) == 1
        assert frames[0] >= 0
        assert frames[-1] < length
        assert 0 <= window.reference_index < length
        strides |= steps
        if length > frames[-1] - frames[0] + 1:  # frames are left outside the span
            assert not frames[0] <= window.reference_index <= frames[-1]
    assert strides == {1, 2, 3}


def test_a_clip_as_short_as_the_window_takes_its_reference_from_the_window() -> None:
    window = plan_window(0, np.array([8], dtype=np.int64), WindowConfig(num_frames=8), seed=0)
    assert window.frame_indices == tuple(range(8))
    assert window.reference_index in window.frame_indices


def test_mirroring_happens_as_often_as_asked() -> None:
    config = WindowConfig(num_frames=4, mirror_probability=0.25)
    mirrored = [
        plan_window(position, LENGTHS, config, seed=0).is_mirrored for position in range(800)
    ]
    assert 0.2 < np.mean(mirrored) < 0.3


def test_noise_seeds_differ_between_items_and_runs() -> None:
    seeds = {noise_seed(seed, position) for seed in range(10) for position in range(10)}
    assert len(seeds) == 100


def test_window_config_refuses_a_share_above_one() -> None:
    with pytest.raises(ConfigError, match="mirror_probability must be in"):
        WindowConfig(mirror_probability=1.5)


def test_published_sampling_repeats_and_keeps_its_rule():
    config = WindowConfig(num_frames=4, max_stride=3, sampling="published")
    lengths = np.array([5, 8, 40], dtype=np.int64)
    windows = [plan_window(position, lengths, config, seed=3) for position in range(30)]
    assert windows == [plan_window(position, lengths, config, seed=3) for position in range(30)]
    for window in windows:
        length = lengths[window.clip_index]
        assert window.reference_index not in window.frame_indices
        assert 0 <= min(window.frame_indices) <= max(window.frame_indices) < length
        if length == 40:
            assert set(np.diff(window.frame_indices)) == {3}
    assert config.min_clip_frames == 5
    assert WindowConfig(num_frames=4).min_clip_frames == 4


def test_clips_without_a_frame_for_the_published_reference_are_left_out() -> None:
    class Lengths(EncodedClips):
        """Clips of 4 and 5 frames that were never encoded."""

        def __init__(self) -> None:
            self.clip_ids = ["four", "five"]

        def lengths(self) -> np.ndarray:
            return np.array([4, 5])

    animator = AnimatorConfig.tiny()
    for sampling, expected in (("strided", ["four", "five"]), ("published", ["five"])):
        window = WindowConfig(num_frames=4, sampling=sampling)
        batches = AnimatorBatches(Lengths(), window, animator, seed=0, reference_noise=0.0)
        assert batches.clip_ids == expected
    window = WindowConfig(num_frames=5, sampling="published")
    with pytest.raises(DatasetError, match="has the 6 frames of a training window; the longest"):
        AnimatorBatches(Lengths(), window, animator, seed=0, reference_noise=0.0)
