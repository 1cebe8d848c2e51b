"""Train the latent codec of the generated world on crops of rendered pictures.

    python -m benchmarks.bundled_weights.codec --cache CACHE --out generated

Loss: L1 at three sizes plus L1 of the differences of neighbours (edges), weighted 4 times inside
faces. Latents are normalised by running statistics, and noise of random strength is added before
decoding, so that the decoder bears the small errors of a latent denoiser.
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from animaray.models.perception.generated.codec import GeneratedCodec
from animaray.models.perception.generated.networks import LATENT_CHANNELS
from benchmarks.bundled_weights.optimisation import (
    OptimisationConfig,
    optimise,
    seed_everything,
)
from benchmarks.bundled_weights.samples import Scenes, load_scenes
from benchmarks.bundled_weights.weights_files import save_network

CROP_PX = 96
FRAME_PX = 192
FACE_WEIGHT = 4.0
MAX_LATENT_NOISE = 0.2


class CodecTraining(nn.Module):
    """Encoder, running normalisation, noise, decoder: one pass of the training."""

    def __init__(self, codec: GeneratedCodec) -> None:
        super().__init__()
        self.codec = codec
        self.normalise = nn.BatchNorm2d(LATENT_CHANNELS, affine=False, momentum=0.02)

    def forward(self, frames: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Return the frames as decoded from noisy latents."""
        latents = self.normalise(self.codec.encoder(frames).float())
        if self.training:
            strength = torch.rand(len(latents), 1, 1, 1) * MAX_LATENT_NOISE
            latents = latents + strength * torch.randn_like(latents)
        return self.codec.decoder(latents)

    def finished(self) -> GeneratedCodec:
        """Return the codec with the running statistics as its normalisation."""
        statistics = dict(self.normalise.named_buffers())
        self.codec.latent_mean.copy_(statistics["running_mean"].view(1, -1, 1, 1))
        self.codec.latent_std.copy_(statistics["running_var"].sqrt().view(1, -1, 1, 1))
        return self.codec.eval()


def face_weights(
    boxes: Float[np.ndarray, "faces 4"], *, size_px: int
) -> Float[np.ndarray, "height width"]:
    """Return a map of 1, and FACE_WEIGHT inside the boxes widened by a tenth."""
    weights = np.ones((size_px, size_px), np.float32)
    for left, top, right, bottom in boxes:
        margin = 0.1 * (right - left)
        x0, y0 = max(int(left - margin), 0), max(int(top - margin), 0)
        weights[y0 : max(int(bottom + margin), 0), x0 : max(int(right + margin), 0)] = FACE_WEIGHT
    return weights


def sample_crop(
    scenes: Scenes, rng: np.random.Generator
) -> tuple[UInt8[np.ndarray, "crop crop 3"], Float[np.ndarray, "crop crop"]]:
    """Draw one crop at the size at which people are animated, often at a face, with its weights."""
    index = int(rng.integers(len(scenes.frames_uint8)))
    size = int(rng.integers(150, 257))
    scale = size / scenes.frames_uint8.shape[1]
    frame = cv2.resize(scenes.frames_uint8[index], (size, size), interpolation=cv2.INTER_AREA)
    boxes = scenes.face_boxes[index][scenes.face_valid[index]] * scale
    corner = rng.integers(0, size - CROP_PX + 1, 2)
    if len(boxes) and rng.random() < 0.6:
        box = boxes[int(rng.integers(len(boxes)))]
        middle = (box[:2] + box[2:]) / 2 - CROP_PX / 2 + rng.uniform(-36, 36, 2)
        corner = np.clip(middle, 0, size - CROP_PX).astype(np.int64)
    left, top = int(corner[0]), int(corner[1])
    crop = frame[top : top + CROP_PX, left : left + CROP_PX]
    weights = face_weights(boxes - np.array([left, top, left, top]), size_px=CROP_PX)
    if rng.random() < 0.5:
        crop, weights = crop[:, ::-1], weights[:, ::-1]
    return crop, weights


def reconstruction_loss(
    decoded: Float[Tensor, "b 3 h w"],
    frames: Float[Tensor, "b 3 h w"],
    weights: Float[Tensor, "b 1 h w"],
) -> Tensor:
    """Return the weighted L1 of colours at three sizes and of neighbour differences."""
    error = decoded.float() - frames
    # A pinch of square root keeps the gradient alive near zero and punishes outliers like L1.
    loss = (weights * (error.abs() + 0.5 * error.square())).mean()
    for step in (2, 4):
        coarse = functional.avg_pool2d(error, step)
        loss = loss + 0.5 * (functional.avg_pool2d(weights, step) * coarse.abs()).mean()
    across = (error[..., :, 1:] - error[..., :, :-1]).abs() * weights[..., :, 1:]
    down = (error[..., 1:, :] - error[..., :-1, :]).abs() * weights[..., 1:, :]
    return loss + 0.5 * (across.mean() + down.mean())


def train_codec(cache_dir: Path, config: OptimisationConfig, *, batch_size: int) -> GeneratedCodec:
    """Train the codec on the training split of a cache."""
    rng = seed_everything(config.seed)
    scenes = load_scenes(cache_dir, "train")
    training = CodecTraining(GeneratedCodec())

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        del step
        crops, weights = zip(*(sample_crop(scenes, rng) for _ in range(batch_size)), strict=True)
        frames = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 127.5 - 1
        frames = frames.contiguous(memory_format=torch.channels_last)
        decoded = training(frames)
        with torch.autocast("cpu", enabled=False):
            loss = reconstruction_loss(
                decoded, frames, torch.from_numpy(np.stack(weights))[:, None]
            )
        error = float((decoded.detach().float() - frames).square().mean())
        return loss, {"loss": float(loss), "psnr_db": 10 * np.log10(4 / error)}

    average = optimise(training, loss_of_step, config, name="codec")
    return average.finished()


@torch.no_grad()
def measure_codec(codec: GeneratedCodec, cache_dir: Path, *, limit: int = 200) -> dict[str, float]:
    """Measure the codec on held-out pictures of 192x192 px.

    Returns:
        PSNR in dB of whole pictures and of faces, mean absolute error, and latent statistics.
    """
    scenes = load_scenes(cache_dir, "held_out")
    whole, faces, absolute, latents = [], [], [], []
    scale = FRAME_PX / scenes.frames_uint8.shape[1]
    for index in range(min(limit, len(scenes.frames_uint8))):
        small = cv2.resize(
            scenes.frames_uint8[index], (FRAME_PX, FRAME_PX), interpolation=cv2.INTER_AREA
        )
        frames = torch.from_numpy(small).permute(2, 0, 1)[None].float() / 127.5 - 1
        codes = codec.encode(frames)
        error = codec.decode(codes).clamp(-1, 1) - frames
        latents.append(codes)
        whole.append(float(10 * torch.log10(4 / error.square().mean())))
        absolute.append(float(error.abs().mean()) / 2)
        for box in scenes.face_boxes[index][scenes.face_valid[index]] * scale:
            left, top, right, bottom = np.clip(box, 0, FRAME_PX).astype(int)
            if right - left >= 8 and bottom - top >= 8:
                inside = error[..., top:bottom, left:right]
                faces.append(float(10 * torch.log10(4 / inside.square().mean())))
    joined = torch.cat(latents)
    return {
        "psnr_db": float(np.mean(whole)),
        "face_psnr_db": float(np.mean(faces)),
        "mean_absolute_error": float(np.mean(absolute)),
        "latent_mean": float(joined.mean()),
        "latent_std": float(joined.std()),
    }


def main() -> None:
    """Read the command line, train, save and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="folder of render_cache")
    parser.add_argument("--out", type=Path, required=True, help="folder of the weights file")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    config = OptimisationConfig(num_steps=options.steps, seed=options.seed)
    codec = train_codec(options.cache, config, batch_size=options.batch)
    save_network(codec, options.out / "codec.safetensors")
    for key, value in measure_codec(codec, options.cache).items():
        sys.stdout.write(f"{key} {value:.4f}\n")


if __name__ == "__main__":
    main()
