"""One denoising step: ours against the plain published form, same weights, same run, one thread.

The plain form runs PoseNet and the Face Encoder for every window and branch of every step, all
attention in full, and convolutions over time in three dimensions. Ours encodes the conditioning
once per clip, skips what softmax over one token does not change, and convolves over time in two
dimensions on a CPU. Both give the same estimate.

    OMP_NUM_THREADS=1 python -m benchmarks.costs.sampler_step [--repeats 5]
"""

import argparse
import contextlib
import copy
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from unittest import mock

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from animaray.models.diffusion.sampler import GuidedDenoiser
from animaray.models.diffusion.windows import triangle_weights, window_indices
from animaray.models.networks import attention, identity_adapter
from animaray.models.networks.animator import Animator
from animaray.models.networks.animator_config import AnimatorConfig
from animaray.models.networks.conditioning import Conditioning
from animaray.models.networks.unet_layers import TemporalConv

NUM_FRAMES = 28
TILE, OVERLAP = 16, 4
GUIDANCE = 3.0
SIGMA = 5.0


def plain_attend(query: Tensor, key: Tensor, value: Tensor, num_heads: int) -> Tensor:
    """Return softmax attention without any shortcut."""
    query, key, value = (
        torch.unflatten(x, -1, (num_heads, -1)).transpose(1, 2) for x in (query, key, value)
    )
    return nnf.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


@contextlib.contextmanager
def plain_networks() -> Iterator[None]:
    """Switch the shortcuts of our layers off."""
    with (
        mock.patch.object(identity_adapter, "attend", plain_attend),
        mock.patch.object(attention, "attend", plain_attend),
        mock.patch.object(TemporalConv, "forward", nn.Conv3d.forward),
    ):
        yield


def plain_step(animator: Animator, conditioning: Conditioning, latents: Tensor) -> Tensor:
    """Return the guided estimate as the released loop computes it."""
    sigma = torch.tensor([SIGMA])
    total = [torch.zeros_like(latents) for _ in range(2)]
    weights = torch.zeros(NUM_FRAMES)
    for tile in window_indices(NUM_FRAMES, TILE, OVERLAP):
        weight = triangle_weights(len(tile))
        weights.index_add_(0, tile, weight)
        for branch in range(2):
            part = replace(conditioning, pose_images=conditioning.pose_images[:, tile])
            encoded = animator.encode_conditioning(part)
            if branch:
                encoded = animator.unconditional(encoded)
            estimate = animator.denoise(latents[:, tile], sigma, encoded)
            total[branch].index_add_(1, tile, weight[:, None, None, None] * estimate)
    conditional, unconditional = (sums / weights[:, None, None, None] for sums in total)
    return unconditional + GUIDANCE * (conditional - unconditional)


def cpu_seconds(function: Callable[[], Tensor]) -> float:
    """Return the CPU seconds of one call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def main() -> None:
    """Print the ratio for the generated size."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = replace(
        AnimatorConfig.generated(),
        reference_attention=None,
        warped_reference=None,
        unconditional="published",
    )
    animator = Animator(config).eval()
    for name, weight in animator.named_parameters():
        if "proj_out" in name or "final_proj" in name:
            nn.init.normal_(weight, std=0.05)
    plain = copy.deepcopy(animator)
    side = config.width_px
    conditioning = Conditioning(
        reference_latents=torch.randn(1, 4, side // 8, side // 8),
        image_embedding=torch.randn(1, config.image_embedding_dim),
        identity_embedding=nnf.normalize(torch.randn(1, config.identity_dim)),
        pose_images=torch.rand(1, NUM_FRAMES, 3, side, side) * 2 - 1,
    )
    latents = torch.randn(1, NUM_FRAMES, 4, side // 8, side // 8) * SIGMA
    with torch.no_grad():
        ours = GuidedDenoiser(
            animator,
            animator.encode_conditioning(conditioning),
            torch.full((NUM_FRAMES,), GUIDANCE),
            window_frames=TILE,
            window_overlap=OVERLAP,
            window_rule="published",
        )

        def run_plain() -> Tensor:
            with plain_networks():
                return plain_step(plain, conditioning, latents)

        def run_ours() -> Tensor:
            return ours(latents, SIGMA)

        difference = (run_plain() - run_ours()).abs().max().item()
        pairs = [(cpu_seconds(run_plain), cpu_seconds(run_ours)) for _ in range(repeats)]
    plain_s, ours_s = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratios = [first / second for first, second in pairs]
    sys.stdout.write(
        f"{NUM_FRAMES} frames {side}x{side}, windows of {TILE}, guidance, float32, one thread\n"
        f"plain {plain_s:.2f} CPU s, ours {ours_s:.2f} CPU s, ratio "
        f"{statistics.median(ratios):.2f} (of {min(ratios):.2f} to {max(ratios):.2f}); "
        f"largest difference {difference:.1e}\n"
    )


if __name__ == "__main__":
    main()
