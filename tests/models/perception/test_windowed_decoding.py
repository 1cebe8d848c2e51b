import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder
from torch import nn
from torch.testing import assert_close

from animaray.models.face.windows import plan_window
from animaray.models.perception.decoding.convolutional_windows import stack_stages
from animaray.models.perception.decoding.windowed_decoding import windowed_decoder_of
from animaray.models.perception.generated.codec import GeneratedCodec
from animaray.models.perception.paper.temporal_autoencoder import TemporalAutoencoderCodec
from animaray.models.perception.permissive.tiny_autoencoder import TinyAutoencoderCodec
from animaray.platform.errors import UsageError


def temporal_codec(widths=(32, 32)):
    vae = AutoencoderKLTemporalDecoder(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        layers_per_block=2,
        latent_channels=4,
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in vae.named_parameters():
            # Norms and mixers that do something: all else is as diffusers draws it.
            if "norm" in name or "mix_factor" in name:
                weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
    return TemporalAutoencoderCodec(vae)


def tiny_codec():
    return TinyAutoencoderCodec().requires_grad_(False).eval()


def boxes(*places):
    return np.array([[[x, y], [x + 3, y + 4]] for x, y in places])


def random_latents(frames, channels, height, width):
    generator = torch.Generator().manual_seed(2)
    return torch.randn((frames, channels, height, width), generator=generator)


def core_of(frames, window, downscale):
    height, width = (downscale * side for side in window.core_size)
    return torch.stack(
        [
            frame[:, top : top + height, left : left + width]
            for frame, (left, top) in zip(
                frames, (window.core_corners * downscale).tolist(), strict=True
            )
        ]
    )


def crop_core(frames, window, downscale):
    """The negative control: what a plain crop of the latents decodes to, at the core."""
    left, top = ((window.core_corners - window.corners)[0] * downscale).tolist()
    height, width = (downscale * side for side in window.core_size)
    return frames[..., top : top + height, left : left + width]


@pytest.mark.parametrize("place", [(19, 17), (0, 0), (36, 3), (37, 40)])
def test_a_window_equals_the_full_decode_of_a_temporal_decoder(place):
    codec = temporal_codec()
    decoder = codec.windowed()
    latents = random_latents(3, 4, 44, 40)
    record = decoder.record(latents, 3)
    full = codec.decode(latents)
    assert_close(record.frames, full, atol=2e-5, rtol=1e-4)
    window = plan_window(
        boxes(place), (44, 40), margin=decoder.receptive_margin, num_shared_frames=3
    )
    core = decoder.decode_window(window.cut(latents), window, record)
    assert_close(core, core_of(full, window, codec.downscale), atol=2e-5, rtol=1e-4)


def test_a_smaller_margin_is_close_but_a_plain_crop_is_not():
    codec = temporal_codec()
    decoder = codec.windowed()
    # A quiet face before a loud background: a crop's statistics are those of the face alone.
    latents = 3 * random_latents(2, 4, 48, 48) + torch.linspace(-3, 3, 48)
    latents[..., 16:32, 16:32] *= 0.2
    full = codec.decode(latents)
    errors = []
    for margin in (2, 6):
        window = plan_window(boxes((20, 20)), (48, 48), margin=margin, num_shared_frames=2)
        windows = window.cut(latents)
        core = decoder.decode_window(windows, window, decoder.record(latents, 2))
        truth = core_of(full, window, codec.downscale)
        plain = crop_core(codec.decode(windows), window, codec.downscale)
        error, plain_error = (
            (part - truth).square().mean().sqrt().item() / truth.std().item()
            for part in (core, plain)
        )
        assert error < 0.5 * plain_error
        errors.append(error)
    assert errors[1] < errors[0] < 0.3


def test_one_frame_stands_for_a_still_clip():
    codec = temporal_codec()
    decoder = codec.windowed()
    one = random_latents(1, 4, 16, 16)
    record = decoder.record(one, 80)
    middle = codec.decode(one.repeat(80, 1, 1, 1))[40:41]
    # 80 frames are more than the temporal layers' reach; the statistics still see the clip's ends.
    assert_close(record.frames, middle, atol=0.1 * middle.std().item(), rtol=0.0)


@pytest.mark.parametrize("make", [GeneratedCodec.load, tiny_codec])
def test_a_window_equals_the_full_decode_of_a_convolutional_decoder(make):
    codec = make()
    decoder = windowed_decoder_of(codec)
    latents = random_latents(2, codec.latent_channels, 8, 64)
    window = plan_window(boxes((30, 3), (61, 4)), (8, 64), margin=decoder.receptive_margin)
    assert window.size in {(8, 32), (8, 48)}
    with torch.no_grad():
        record = decoder.record(latents, 2)
        core = decoder.decode_window(window.cut(latents), window, record)
        truth = core_of(codec.decode(latents), window, codec.downscale)
    assert_close(core, truth, atol=2e-5, rtol=1e-4)


def test_sizes_do_not_depend_on_the_place():
    shapes = set()
    codec = GeneratedCodec.load()
    decoder = codec.windowed()
    for place in ((0, 0), (13, 9), (29, 28)):
        window = plan_window(boxes(place), (32, 32), margin=4)
        assert window.size == (16, 16)
        with torch.no_grad():
            shapes.add(
                decoder.decode_window(
                    torch.zeros(1, 4, 16, 16), window, decoder.record(torch.zeros(1, 4, 32, 32), 1)
                ).shape
            )
    assert shapes == {(1, 3, 32, 24)}


def test_frames_that_see_each_other_need_one_window():
    decoder = temporal_codec().windowed()
    latents = random_latents(2, 4, 24, 24)
    window = plan_window(boxes((0, 0), (16, 16)), (24, 24), margin=1)
    with pytest.raises(UsageError, match="all frames need one window"):
        decoder.decode_window(window.cut(latents), window, decoder.record(latents, 2))
    with pytest.raises(UsageError, match="1 frame or of all 3 frames; got 2"):
        decoder.record(latents, 3)


def test_a_codec_without_windows_says_so():
    assert windowed_decoder_of(nn.Identity()) is None
    with pytest.raises(TypeError, match="LayerNorm cannot be decoded in windows"):
        stack_stages([nn.LayerNorm(4)])
