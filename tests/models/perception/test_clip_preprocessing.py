import torch
from torch.testing import assert_close

from animaray.models.perception.paper.clip_preprocessing import CLIP_MEAN, CLIP_STD, clip_pixels


def test_flat_colours_are_only_normalised():
    frames = torch.tensor([0.2, -0.6, 1.0])[None, :, None, None].expand(1, 3, 300, 90)
    pixels = clip_pixels(frames)
    assert pixels.shape == (1, 3, 224, 224)
    expected = (torch.tensor([0.6, 0.2, 1.0]) - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD)
    assert_close(pixels[0], expected[:, None, None].expand(3, 224, 224), atol=1e-5, rtol=0)


def test_fine_texture_does_not_alias():
    # One-pixel stripes shrunk four times average out instead of becoming coarse stripes.
    stripes = torch.ones(1, 3, 896, 896)
    stripes[..., ::2] = -1
    pixels = clip_pixels(stripes, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    assert (pixels[..., 4:-4] - 0.5).abs().max() < 0.02


def test_larger_pictures_are_only_sampled():
    ramp = torch.linspace(-1, 1, 100).expand(2, 3, 100, 100)
    pixels = clip_pixels(ramp, side_px=199, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    assert_close(
        pixels[..., ::2][..., 4:-4],
        ramp[:, :, :1].expand(2, 3, 199, 100)[..., 4:-4],
        atol=1e-3,
        rtol=0,
    )
