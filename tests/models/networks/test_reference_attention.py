import math

import torch
from torch.testing import assert_close

from animaray.models.networks.reference_attention import (
    ReferenceAttention,
    ReferenceAttentionConfig,
    position_encoding,
)


def make(latent_channels=4, pose_dim=6, out_channels=10):
    return ReferenceAttention(
        ReferenceAttentionConfig(),
        latent_channels=latent_channels,
        pose_dim=pose_dim,
        out_channels=out_channels,
    )


def test_frames_are_independent():
    attention = make()
    latents, own_pose = torch.randn(2, 4, 6, 5), torch.randn(2, 6, 6, 5)
    driven = torch.randn(2, 3, 6, 6, 5)
    together = attention(latents, own_pose, driven)
    assert together.shape == (2, 3, 10, 6, 5)
    for frame in range(3):
        alone = attention(latents, own_pose, driven[:, frame : frame + 1])
        assert_close(alone[:, 0], together[:, frame], atol=1e-5, rtol=1e-4)


def test_a_fresh_first_head_looks_at_its_own_place():
    # A reference that is bright in one place changes the features most at that place.
    attention = make()
    dark, lit = torch.zeros(1, 4, 12, 12), torch.zeros(1, 4, 12, 12)
    lit[:, :, 3, 8] = 10.0
    pose = torch.zeros(1, 6, 12, 12)
    with torch.no_grad():
        first, second = (attention(x, pose, pose[:, None]) for x in (dark, lit))
    change = (second - first)[0, 0].abs().sum(0)
    row, column = divmod(int(change.argmax()), 12)
    # The appearance convolutions spread the bright spot by two latents.
    assert abs(row - 3) <= 2
    assert abs(column - 8) <= 2


def test_position_encoding_measures_in_heights():
    # The first wave is half a period over the height; x continues at the same pace.
    encoding = position_encoding(4, 8, 2)
    assert encoding.shape == (8, 4, 8)
    y = (torch.arange(4) + 0.5) / 4
    assert_close(encoding[0, :, 0], (math.pi * y).sin())
    assert_close(encoding[4, 0, :4], (math.pi * y).sin())
    assert_close(encoding[4, 0, 4:], (math.pi * (y + 1)).sin(), atol=1e-5, rtol=1e-5)
