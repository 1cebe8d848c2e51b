"""Two cheap sources of identity gradients, and their training; used by latent_identity.py only.

An identity head on latents, and a small decoder distilled from the generated codec's.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as nnf
from jaxtyping import Float, Float32
from torch import Tensor, nn

from animaray.models.frames import to_frames
from animaray.models.perception.decoding.convolutional_windows import stack_stages
from animaray.models.perception.decoding.windowed_decoding import Stage, StagedDecoder
from animaray.models.perception.face_alignment import similarity_from_landmarks
from animaray.models.perception.face_sampling import align_frames
from animaray.models.perception.generated.codec import GeneratedCodec
from animaray.models.perception.generated.identity import CROP_PX, FACE_TEMPLATE
from animaray.models.perception.generated.networks import CodecDecoder, PlainBlock
from animaray.models.perception.protocols import IdentityEmbedder
from animaray.training.perception.render_cache import render_scene

CELL_PX, WINDOW, GRID = 8, 16, 16
"""Pixels per latent cell; cells of a training window; side of the head's aligned latents."""
FIRST_SCENE = 200_000
"""Scenes of the training split that the bundled networks have not seen."""
GRADIENT_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Faces in latents, and what decoder and recogniser make of them."""

    windows: Float[Tensor, "n 4 16 16"]
    landmarks: Float32[np.ndarray, "n 5 2"]
    """Pixels of the window."""
    references: Float[Tensor, "n 128"]
    """Another person's embedding each."""
    embeddings: Float[Tensor, "n 128"]
    """True ones."""
    gradients: Float[Tensor, "n 4 16 16"]
    """True ones, of 1 - cos(embedding, reference) to the window."""
    pixels: Float[Tensor, "n 3 128 128"]
    """Of the true decoder."""


def sample_places(
    landmarks: Float[np.ndarray, "faces 5 2"], size: tuple[int, int]
) -> tuple[Float[Tensor, "faces g g 2"], Float[Tensor, "faces 5 g g"]]:
    """Return where the head's grid lies in the latents, for grid_sample, and channels about it.

    A decoder draws other pixels at other places in a cell, so the head is told the place: phase in
    the cell (4 channels) and the face's scale (1).

    Args:
        landmarks: Finite, pixels of the frame.
        size: Height and width of the latents.
    """
    step = CROP_PX / GRID
    steps = (np.arange(GRID) + 0.5) * step - 0.5
    points = np.stack(np.meshgrid(steps, steps), axis=-1)
    limit = np.array([size[1] - 1, size[0] - 1])
    places, channels = [], []
    for each in landmarks:
        matrix = similarity_from_landmarks(each, FACE_TEMPLATE)
        pixels = (points - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
        cells = (pixels + 0.5) / CELL_PX - 0.5
        angle = 2 * np.pi * cells
        scale = np.full((GRID, GRID, 1), np.log2(np.hypot(matrix[0, 0], matrix[1, 0])) - 1)
        channels.append(np.concatenate([np.cos(angle), np.sin(angle), scale], axis=-1))
        places.append(2 * cells / limit - 1)
    of_places = torch.from_numpy(np.stack(places)).float()
    return of_places, torch.from_numpy(np.stack(channels)).float().permute(0, 3, 1, 2)


class _Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.second(nnf.silu(self.first(nnf.silu(features))))


class LatentIdentity(nn.Module):
    """Latents of a face, aligned to the recogniser's template, to its embedding."""

    def __init__(self, widths: tuple[int, int, int] = (48, 96, 128)) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.layers = nn.Sequential(
            nn.Conv2d(9, fine, 3, padding=1),
            _Block(fine),
            nn.Conv2d(fine, middle, 4, stride=2, padding=1),
            _Block(middle),
            nn.Conv2d(middle, coarse, 4, stride=2, padding=1),
            _Block(coarse),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(coarse * (GRID // 4) ** 2, 128),
        )

    def forward(
        self,
        latents: Float[Tensor, "faces 4 h w"],
        places: Float[Tensor, "faces g g 2"],
        channels: Float[Tensor, "faces 5 g g"],
    ) -> Float[Tensor, "faces 128"]:
        """Return unit embeddings; gradients flow to the latents."""
        aligned = nnf.grid_sample(latents, places, align_corners=True)
        return nnf.normalize(self.layers(torch.cat([aligned, channels], dim=1)), dim=1)


class SmallDecoder(nn.Module):
    """A tenth of the codec's decoder; offers the same windows."""

    def __init__(self, widths: tuple[int, int, int] = (48, 32, 16)) -> None:
        super().__init__()
        coarse, middle, fine = widths
        self.layers = nn.Sequential(
            nn.Conv2d(4, coarse, 3, padding=1),
            PlainBlock(coarse),
            nn.Conv2d(coarse, 4 * middle, 3, padding=1),
            nn.PixelShuffle(2),
            PlainBlock(middle),
            nn.Conv2d(middle, 4 * fine, 3, padding=1),
            nn.PixelShuffle(2),
            nn.ReLU(),
            nn.Conv2d(fine, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def forward(self, latents: Float[Tensor, "b 4 h w"]) -> Float[Tensor, "b 3 height width"]:
        """Return frames."""
        return self.layers(CodecDecoder.bend(latents))

    def windowed(self) -> StagedDecoder:
        """Return the decoder for parts of frames."""
        first = Stage(run=lambda x, _: CodecDecoder.bend(x))
        stages = [first, *stack_stages(self.layers)]
        return StagedDecoder(stages, shares_window=False, needs_record=False)


def render_windows(
    codec: GeneratedCodec, count: int
) -> tuple[Float[Tensor, "n 4 16 16"], Float32[np.ndarray, "n 5 2"]]:
    """Return latents of rendered faces, and their landmarks in the window.

    Args:
        codec: Encodes the whole pictures.
        count: How many.
    """
    windows, landmarks, scene = [], [], FIRST_SCENE
    while len(windows) < count:
        for picture in render_scene("train", scene):
            marks = picture.face_landmarks[0].astype(np.float32)
            footprint = CROP_PX * np.hypot(*(marks[1] - marks[0])) / 30
            if not picture.face_valid[0] or not 30 < footprint < CELL_PX * (WINDOW - 2):
                continue
            with torch.no_grad():
                latents = codec.encode(to_frames(picture.frame[None]))[0]
            centre = marks.mean(axis=0) / CELL_PX - WINDOW / 2
            limit = np.array([latents.shape[2] - WINDOW, latents.shape[1] - WINDOW])
            left, top = np.clip(centre.round().astype(int), 0, limit).tolist()
            windows.append(latents[:, top : top + WINDOW, left : left + WINDOW])
            landmarks.append(marks - np.array([left, top], np.float32) * CELL_PX)
        scene += 1
    return torch.stack(windows[:count]), np.stack(landmarks[:count])


def disturb(windows: Float[Tensor, "n 4 16 16"], generator: torch.Generator) -> Tensor:
    """Return latents as a denoiser's estimates are: blurred, mixed with another's, noisy."""
    shape = (len(windows), 1, 1, 1)
    blur, mix, noise = (torch.rand(shape, generator=generator) for _ in range(3))
    blurred = nnf.avg_pool2d(windows, 3, stride=1, padding=1)
    others = windows[torch.randperm(len(windows), generator=generator)]
    mixed = windows + 0.8 * blur * (blurred - windows)
    mixed = mixed + 0.5 * mix * (torch.rand(shape, generator=generator) < 0.3) * (others - mixed)
    return mixed + 0.3 * noise * torch.randn(windows.shape, generator=generator)


def joined(first: Samples, second: Samples) -> Samples:
    """Return both."""
    return Samples(
        windows=torch.cat([first.windows, second.windows]),
        landmarks=np.concatenate([first.landmarks, second.landmarks]),
        references=torch.cat([first.references, second.references]),
        embeddings=torch.cat([first.embeddings, second.embeddings]),
        gradients=torch.cat([first.gradients, second.gradients]),
        pixels=torch.cat([first.pixels, second.pixels]),
    )


def label(
    windows: Float[Tensor, "n 4 16 16"],
    landmarks: Float32[np.ndarray, "n 5 2"],
    references: Float[Tensor, "n 128"],
    codec: GeneratedCodec,
    embedder: IdentityEmbedder,
) -> Samples:
    """Return the true embedding, gradient and pixels of each window.

    Args:
        windows: Latents.
        landmarks: Where the faces are.
        references: Whom each is to resemble.
        codec: Its decoder is the truth.
        embedder: The true recogniser.
    """
    embeddings, gradients, pixels = [], [], []
    size = CROP_PX, CROP_PX
    for start in range(0, len(windows), GRADIENT_BATCH):
        rows = slice(start, start + GRADIENT_BATCH)
        latents = windows[rows].clone().requires_grad_()
        frames = codec.decode(latents)
        marks = torch.from_numpy(landmarks[rows])
        crops = align_frames(frames.clamp(-1, 1), marks, FACE_TEMPLATE, size)
        found = embedder.embed_crops(crops)
        loss = -(found * references[rows]).sum()
        gradients.append(torch.autograd.grad(loss, latents)[0])
        embeddings.append(found.detach())
        pixels.append(frames.detach().half())
    return Samples(
        windows=windows,
        landmarks=landmarks,
        references=references,
        embeddings=torch.cat(embeddings),
        gradients=torch.cat(gradients),
        pixels=torch.cat(pixels),
    )


def _batches(count: int, seconds: float, size: int = 32) -> Iterator[tuple[np.ndarray, float]]:
    """Return random rows until the CPU time is used up, and the share of it that is gone."""
    rng, start = np.random.default_rng(0), time.process_time()
    while (gone := (time.process_time() - start) / seconds) < 1:
        yield rng.choice(count, size, replace=False), gone


def _rate(gone: float) -> float:
    return min(1.0, 20 * gone) * 0.5 * (1 + np.cos(np.pi * gone)) * 2e-3 + 1e-5


def train_head(head: LatentIdentity, samples: Samples, seconds: float) -> int:
    """Fit embeddings and, with them, the directions of the gradients; return the steps done.

    Args:
        head: Trained in place.
        samples: The truth.
        seconds: CPU time.
    """
    places, channels = sample_places(samples.landmarks, (WINDOW, WINDOW))
    optimizer = torch.optim.AdamW(head.parameters(), weight_decay=1e-3)
    steps = 0
    for rows, gone in _batches(len(samples.windows), seconds):
        latents = samples.windows[rows].clone().requires_grad_()
        found = head(latents, places[rows], channels[rows])
        of_embedding = 1 - (found * samples.embeddings[rows]).sum(dim=1)
        toward = -(found * samples.references[rows]).sum()
        (gradient,) = torch.autograd.grad(toward, latents, create_graph=True)
        truth = samples.gradients[rows].flatten(1)
        of_gradient = 1 - nnf.cosine_similarity(gradient.flatten(1), truth, dim=1)
        loss = (of_embedding + of_gradient).mean()
        _step(optimizer, loss, gone)
        steps += 1
        if steps % 50 == 0:
            parts = of_embedding.mean().item(), of_gradient.mean().item()
            print(
                f"  head {steps}: 1 - cos {parts[0]:.3f}, of gradients {parts[1]:.3f}", flush=True
            )
    return steps


def train_decoder(
    decoder: SmallDecoder, samples: Samples, embedder: IdentityEmbedder, seconds: float
) -> int:
    """Fit the true decoder's pixels, and what the recogniser sees in them; return the steps done.

    Args:
        decoder: Trained in place.
        samples: The truth.
        embedder: The true recogniser.
        seconds: CPU time.
    """
    optimizer = torch.optim.AdamW(decoder.parameters(), weight_decay=1e-3)
    steps, size = 0, (CROP_PX, CROP_PX)
    for rows, gone in _batches(len(samples.windows), seconds, size=16):
        frames = decoder(samples.windows[rows])
        marks = torch.from_numpy(samples.landmarks[rows])
        truth = align_frames(samples.pixels[rows].float(), marks, FACE_TEMPLATE, size)
        crops = align_frames(frames, marks, FACE_TEMPLATE, size)
        of_pixels = (crops - truth).abs().mean()
        found = embedder.embed_crops(crops.clamp(-1, 1))
        of_embedding = (1 - (found * samples.embeddings[rows]).sum(dim=1)).mean()
        _step(optimizer, of_pixels + 0.3 * of_embedding, gone)
        steps += 1
        if steps % 50 == 0:
            parts = of_pixels.item(), of_embedding.item()
            print(f"  decoder {steps}: L1 {parts[0]:.3f}, 1 - cos {parts[1]:.3f}", flush=True)
    return steps


def _step(optimizer: torch.optim.Optimizer, loss: Tensor, gone: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = _rate(gone)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
