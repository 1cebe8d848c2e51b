"""Pictures as CLIP takes them in the published model: anti-aliased resize, then normalisation.

The whole picture is stretched to a square, without a centre crop.

References:
    Radford et al. 2021, arXiv 2103.00020 (mean and deviation of the colours); the resize is that
    of diffusers' Stable Video Diffusion pipeline (Gaussian blur by the reduction, then bicubic).
"""

import torch
import torch.nn.functional as nnf
from jaxtyping import Float
from torch import Tensor

CLIP_SIDE_PX = 224
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def clip_pixels(
    frames: Float[Tensor, "batch 3 height width"],
    *,
    side_px: int = CLIP_SIDE_PX,
    mean: tuple[float, float, float] = CLIP_MEAN,
    std: tuple[float, float, float] = CLIP_STD,
) -> Float[Tensor, "batch 3 side side"]:
    """Return CLIP's input for RGB pictures in [-1, 1] of any size.

    Args:
        frames: RGB in [-1, 1], in their own size.
        side_px: Side of the result.
        mean: Of each colour in [0, 1].
        std: Standard deviation of each colour.
    """
    resized = resize_antialiased(frames, (side_px, side_px))
    centre, spread = (
        torch.tensor(values, dtype=frames.dtype, device=frames.device)[:, None, None]
        for values in (mean, std)
    )
    return ((resized + 1) / 2 - centre) / spread


def resize_antialiased(
    frames: Float[Tensor, "batch channels height width"], size: tuple[int, int]
) -> Float[Tensor, "batch channels out_height out_width"]:
    """Blur by how much the picture shrinks, then sample bicubically with aligned corners.

    Args:
        size: Height and width of the result.
    """
    factors = [length / target for length, target in zip(frames.shape[-2:], size, strict=True)]
    vertical, horizontal = (_gaussian(factor).to(frames) for factor in factors)
    channels = frames.shape[1]
    room = (len(horizontal) // 2,) * 2 + (len(vertical) // 2,) * 2
    padded = nnf.pad(frames, room, mode="reflect")
    rows = horizontal.expand(channels, 1, 1, -1)
    blurred = nnf.conv2d(padded, rows, groups=channels)
    columns = vertical[:, None].expand(channels, 1, -1, 1)
    blurred = nnf.conv2d(blurred, columns, groups=channels)
    return nnf.interpolate(blurred, size, mode="bicubic", align_corners=True)


def _gaussian(factor: float) -> Float[Tensor, " taps"]:
    """Return the blur's weights along one axis, for a reduction by `factor`."""
    sigma = max((factor - 1) / 2, 0.001)
    taps = int(max(4 * sigma, 3))
    taps += 1 - taps % 2
    position = torch.arange(taps, dtype=torch.float32) - taps // 2
    weights = (-position.square() / (2 * sigma**2)).exp()
    return weights / weights.sum()
