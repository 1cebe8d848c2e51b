import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from animaray.models.alignment.misalignment import (
    Misalignment,
    MisalignmentConfig,
    alignment_loss,
    random_similarity,
)
from animaray.models.alignment.procrustes import fit_similarity_transform
from animaray.models.subjects.motion import Motion
from animaray.platform.errors import ConfigError


def test_draws_fill_their_ranges():
    aspect = torch.full((4000,), 0.5)
    drawn = random_similarity(aspect, MisalignmentConfig(), torch.Generator().manual_seed(0))
    centre = torch.tensor([0.25, 0.5])
    shift = drawn.apply(centre.expand(4000, 1, 2))[:, 0] - centre
    for values, low, high in (
        (drawn.scale, 0.4, 2.0),
        (drawn.rotation, -math.radians(30), math.radians(30)),
        (shift[:, 0], -0.2, 0.2),
        (shift[:, 1], -0.4, 0.4),
    ):
        width = high - low
        assert low - 1e-5 <= values.min() < low + 0.02 * width
        assert high + 1e-5 >= values.max() > high - 0.02 * width
    # Log-uniform: the median scale is the geometric mean of the limits.
    assert drawn.scale.median().item() == pytest.approx(math.sqrt(0.8), rel=0.05)


def test_empty_ranges_give_the_identity():
    config = MisalignmentConfig(
        max_rotation_rad=0.0, min_scale=1.0, max_scale=1.0, max_translation=0.0
    )
    points = torch.randn(2, 18, 2)
    drawn = random_similarity(torch.tensor([0.6, 1.5]), config)
    assert_close(drawn.apply(points), points)


def test_loss_is_the_mean_distance_over_visible_keypoints():
    # Distances 5 (visible), 100 (hidden), 0 (visible): mean 2.5.
    target = torch.zeros(1, 3, 2)
    aligned = torch.tensor([[[3.0, 4.0], [100.0, 0.0], [0.0, 0.0]]])
    loss = alignment_loss(aligned, target, torch.tensor([[1.0, 0.0, 1.0]]))
    assert loss.item() == pytest.approx(2.5, abs=1e-5)


def test_wrong_ranges_are_refused():
    with pytest.raises(ConfigError, match="0 < `min_scale` <= `max_scale`"):
        MisalignmentConfig(min_scale=2.0, max_scale=1.0)
    with pytest.raises(ConfigError, match="must not be negative"):
        MisalignmentConfig(max_translation=-0.1)


def test_misalignment_is_one_similarity_per_clip() -> None:
    rng = np.random.default_rng(0)
    motion = Motion(
        keypoints=rng.random((4, 18, 2)).astype(np.float32) * 100,
        keypoint_confidence=np.ones((4, 18), np.float32),
        width_px=80, height_px=100, is_filled=np.zeros(4, bool),
    )  # fmt: skip
    motion = replace(
        motion,
        further_points=np.pad(
            motion.keypoints[:, np.arange(116) % 18], ((0, 0), (0, 0), (0, 1)), constant_values=0.5
        ),
    )
    moved = Misalignment.of_seed("0123456789abcdef", 0.8).apply(motion)
    assert moved.further_points is not None
    np.testing.assert_allclose(
        moved.further_points[..., :2], moved.keypoints[:, np.arange(116) % 18], atol=1e-3
    )
    again = Misalignment.of_seed("0123456789abcdef", 0.8).apply(motion)
    other = Misalignment.of_seed("fedcba9876543210", 0.8).apply(motion)
    np.testing.assert_array_equal(moved.keypoints, again.keypoints)
    assert not np.allclose(moved.keypoints, other.keypoints, atol=1.0)
    before = torch.from_numpy(motion.keypoints.reshape(1, -1, 2))
    after = torch.from_numpy(moved.keypoints.reshape(1, -1, 2))
    transform = fit_similarity_transform(before, after, torch.ones(before.shape[:2]))
    np.testing.assert_allclose(transform.apply(before).numpy(), after.numpy(), atol=1e-2)
