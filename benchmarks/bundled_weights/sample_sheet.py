"""Draw what an animator makes of held-out windows: reference | pose | sample | truth."""

import functools
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from animaray.models.diffusion.sampler import sample
from animaray.models.diffusion.sampler_config import SamplerConfig
from animaray.models.frames import to_uint8
from animaray.models.networks.animator import Animator
from animaray.models.perception.protocols import LatentCodec
from animaray.platform.storage import write_bytes_atomic
from animaray.training.animator_batches import AnimatorBatch

_SHOWN_FRAMES = 3


@torch.no_grad()
def write_sample_sheet(
    path: Path, animator: Animator, codec: LatentCodec, batch: AnimatorBatch, config: SamplerConfig
) -> float:
    """Write a PNG with one row per window and return the samples' PSNR against the truth.

    The truth is the decoded latents of the clip: the best that any animator could reach.

    Args:
        path: File to write.
        animator: In evaluation mode.
        codec: Codec of the latents.
        batch: Windows to animate.
        config: Sampler settings.

    Returns:
        Peak signal-to-noise ratio over all frames, dB.
    """
    rows, errors = [], []
    for index in range(len(batch.latents)):
        truth = batch.latents[index]
        conditioning = batch.take(index).conditioning
        randn = functools.partial(torch.randn, generator=torch.Generator().manual_seed(index))
        latents = sample(animator, conditioning, len(truth), config, randn)
        drawn = _decode(codec, latents.reshape(truth.shape))
        wanted = _decode(codec, truth)
        errors.append(np.mean((drawn.astype(np.float64) - wanted) ** 2))
        shown = np.linspace(0, len(truth) - 1, _SHOWN_FRAMES).astype(int)
        poses = to_uint8(conditioning.pose_images[0])
        cells = [_decode(codec, conditioning.reference_latents)[0]]
        for frame in shown:
            cells += [poses[frame], drawn[frame], wanted[frame]]
        rows.append(np.concatenate(cells, axis=1))
    sheet = np.concatenate(rows, axis=0)
    _, png = cv2.imencode(".png", sheet[..., ::-1])
    write_bytes_atomic(path, png.tobytes())
    return float(10.0 * np.log10(255.0**2 / max(float(np.mean(errors)), 1e-9)))


def _decode(
    codec: LatentCodec, latents: Float[Tensor, "frames channels h w"]
) -> UInt8[np.ndarray, "frames height width 3"]:
    return to_uint8(codec.decode(latents))
