import time
from dataclasses import replace

import pytest
import torch

from animaray.models.animation.memory import (
    estimate_memory,
    unet_values_per_cell,
)
from animaray.models.diffusion.sampler import GuidedDenoiser
from animaray.models.networks.animator import Animator
from animaray.models.networks.animator_config import AnimatorConfig, UNetConfig
from animaray.models.networks.conditioning import EncodedConditioning
from animaray.platform.errors import ConfigError
from benchmarks.costs import published_parts
from benchmarks.costs.operation_counts import count_peak_bytes
from benchmarks.costs.published_parts import ClipSize

ALMOST = {"rel": 0.15}
PUBLISHED = AnimatorConfig.published()
WIDE = replace(
    AnimatorConfig.tiny(),
    unet=UNetConfig(
        block_out_channels=(64, 96, 128),
        num_attention_heads=(2, 2, 2),
        has_attention=(True, True, True),
        layers_per_block=2,
        cross_attention_dim=32,
        addition_time_embed_dim=8,
    ),
    pose_net=replace(AnimatorConfig.tiny().pose_net, out_channels=64),
)


def counted_window(config, frames, width, height):
    """Peak of one window through the U-Net without guidance, float32."""
    with torch.device("meta"):
        animator = Animator(config)
    animator = animator.to("meta").requires_grad_(False).eval()
    height, width = height // config.downscale, width // config.downscale
    dim, channels = config.unet.cross_attention_dim, config.latent_channels
    with torch.device("meta"):
        encoded = EncodedConditioning(
            image_tokens=torch.empty(1, 1, dim),
            face_tokens=torch.empty(1, 4, dim),
            reference_latents=torch.empty(1, channels, height, width),
            pose_features=torch.empty(1, frames, config.unet.block_out_channels[0], height, width),
        )
        latents = torch.empty(1, frames, channels, height, width)
    denoise = GuidedDenoiser(
        animator,
        encoded,
        torch.ones(frames),
        window_frames=frames,
        window_overlap=1,
        window_rule="published",
    )
    return count_peak_bytes(torch.no_grad()(lambda: denoise(latents, 1.0)))


@pytest.mark.parametrize(
    ("config", "frames", "width", "height"),
    [
        (AnimatorConfig.generated(), 8, 192, 192),
        (AnimatorConfig.tiny(), 4, 32, 32),
        (WIDE, 4, 64, 128),
        (PUBLISHED, 2, 512, 512),
    ],
)
def test_window_is_as_counted(config, frames, width, height):
    cells = frames * width * height // config.downscale**2
    counted = counted_window(config, frames, width, height)
    assert 4 * cells * unet_values_per_cell(config.unet) == pytest.approx(counted, **ALMOST)


def test_published_codec_and_whole_frame_gradient_are_as_counted():
    size = ClipSize(num_frames=4)
    decoding = estimate_memory(PUBLISHED, 16, 576, 1024, "off", bytes_per_value=2)
    assert decoding.codec_bytes == pytest.approx(
        count_peak_bytes(published_parts.decode_clip(size)), **ALMOST
    )
    literal = estimate_memory(PUBLISHED, 4, 576, 1024, "literal", bytes_per_value=2)
    assert literal.face_bytes == pytest.approx(
        count_peak_bytes(published_parts.literal_gradient(size)), **ALMOST
    )


def test_windows_around_faces_are_as_counted():
    size = ClipSize(width_px=512, height_px=512, num_frames=6)
    frames, width, height = size.num_frames, size.width_px, size.height_px
    face = replace(size, face_px=min(width, height) // 6)
    estimate = estimate_memory(PUBLISHED, frames, width, height, "fast", bytes_per_value=2)
    counted = count_peak_bytes(published_parts.fast_gradient(face))
    assert estimate.face_bytes == pytest.approx(counted, **ALMOST)


def test_pose_net_is_as_counted():
    size = ClipSize(num_frames=4)
    estimate = estimate_memory(PUBLISHED, 4, 576, 1024, "off", bytes_per_value=2)
    assert estimate.pose_bytes == pytest.approx(
        count_peak_bytes(published_parts.pose_net(size)), **ALMOST
    )


def test_weights_are_all_weights():
    estimate = estimate_memory(PUBLISHED, 16, 576, 1024, "off")
    unet, pose_net, face_encoder = 1_550_182_122, 205_557, 57_183_232
    image_encoder = 632_000_000
    codec = sum(weight.numel() for weight in published_parts.codec().parameters())
    arcface = sum(weight.numel() for weight in published_parts.arcface().parameters())
    total = unet + pose_net + face_encoder + image_encoder + codec + arcface
    assert estimate.weights_bytes == pytest.approx(4 * total, rel=0.01)


def test_estimate_is_cheap_and_grows_with_the_work():
    start = time.process_time()
    off, fast, literal = (
        estimate_memory(PUBLISHED, 16, 576, 1024, mode).peak_bytes
        for mode in ("off", "fast", "literal")
    )
    assert time.process_time() - start < 2.0
    assert off <= fast < literal
    longer = estimate_memory(PUBLISHED, 500, 576, 1024, "off").peak_bytes
    assert off < longer < 5 * off


def test_unknown_modes_and_profiles_are_refused():
    with pytest.raises(ConfigError, match="Unknown face optimization mode"):
        estimate_memory(AnimatorConfig.tiny(), 4, 32, 32, "best")
    with pytest.raises(ConfigError, match="No memory figures"):
        estimate_memory(replace(AnimatorConfig.tiny(), profile="own"), 4, 32, 32, "off")
