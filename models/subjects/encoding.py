"""Run the frozen encoders over pictures and clips: latents, image and identity embeddings."""

import hashlib
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float16, Float32, UInt8
from torch import Tensor, nn

from animaray.models.face.identity import measure_face
from animaray.models.frames import to_frames
from animaray.models.perception.protocols import (
    IdentityEmbedder,
    ImageEncoder,
    LatentCodec,
    PosteriorCodec,
)

MIRRORED_LANDMARKS = [1, 0, 2, 4, 3]
"""Order of the five face landmarks after a left-right flip of the picture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedLatents:
    """Latents of frames, and how sure of them the codec is."""

    mean: Float16[np.ndarray, "frames channels latent_height latent_width"]
    std: Float16[np.ndarray, "frames channels latent_height latent_width"] | None
    """Standard deviation of the codec's posterior; None of codecs without one."""


@runtime_checkable
class FrameNoise(Protocol):
    """Noise on the pixels of frames, to each its own."""

    @property
    def strength(self) -> float:
        """Standard deviation, in frames of [-1, 1]."""

    def of_frame(self, index: int) -> torch.Generator:
        """Return the source of one frame's noise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceNoise:
    """Noise on the pixels of reference pictures, before the codec sees them."""

    strength: float
    """Standard deviation, in frames of [-1, 1]."""
    seed: str
    """Equal seeds give the frame of one number equal noise."""

    def of_frame(self, index: int) -> torch.Generator:
        """Return the source of one frame's noise."""
        digest = hashlib.sha256(f"{self.seed}/{index}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


@torch.inference_mode()
def encode_latents(
    frames_uint8: UInt8[np.ndarray, "frames height width 3"],
    codec: LatentCodec,
    noise: FrameNoise | None = None,
    *,
    batch_size: int = 8,
) -> EncodedLatents:
    """Encode RGB frames of the training size, each with noise of its own where it is asked for.

    Args:
        frames_uint8: RGB frames, sides multiples of the codec's downscale.
        codec: Codec, anywhere.
        noise: Added to the frames, which then stand for reference pictures.
        batch_size: Frames per call.
    """
    means, stds = [], []
    for start in range(0, len(frames_uint8), batch_size):
        frames = to_frames(frames_uint8[start : start + batch_size])
        if noise is not None:
            numbered = enumerate(torch.split(frames, 1), start=start)
            noisy = [
                add_noise(frame, noise.strength, noise.of_frame(index)) for index, frame in numbered
            ]
            frames = torch.cat(noisy)
        frames = frames.to(device_of(codec))
        if isinstance(codec, PosteriorCodec):
            mean, std = codec.encode_posterior(frames)
            stds.append(std.to("cpu", torch.float16).numpy())
        else:
            mean = codec.encode(frames)
        means.append(mean.to("cpu", torch.float16).numpy())
    return EncodedLatents(mean=np.concatenate(means), std=np.concatenate(stds) if stds else None)


def add_noise(
    frames: Float[Tensor, "frames 3 height width"], strength: float, generator: torch.Generator
) -> Float[Tensor, "frames 3 height width"]:
    """Return reference frames with a little noise on their pixels, where the strength is above 0.

    Args:
        frames: In [-1, 1], on the CPU.
        strength: Standard deviation of the noise.
        generator: Its source, on the CPU.
    """
    if strength == 0:
        return frames
    return frames + strength * torch.randn(frames.shape, generator=generator)


@torch.inference_mode()
def embed_frames(
    frames_uint8: UInt8[np.ndarray, "frames height width 3"],
    image_encoder: ImageEncoder,
    *,
    batch_size: int = 8,
) -> Float32[np.ndarray, "frames image_dim"]:
    """Sum up RGB frames.

    Args:
        frames_uint8: RGB frames.
        image_encoder: Image encoder, anywhere.
        batch_size: Frames per call.
    """
    device = device_of(image_encoder)
    parts = [
        image_encoder.encode(to_frames(frames_uint8[start : start + batch_size], device))
        for start in range(0, len(frames_uint8), batch_size)
    ]
    return torch.cat(parts).float().cpu().numpy()


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedFaces:
    """What the recogniser makes of one face of each frame."""

    identities: Float32[np.ndarray, "faces identity_dim"]
    """Unit vectors."""
    raw_identities: Float32[np.ndarray, "faces identity_dim"] | None
    """The network's own output; None of recognisers that do not give it."""


def embed_faces(
    frames_uint8: UInt8[np.ndarray, "faces height width 3"],
    landmarks: Float32[np.ndarray, "faces 5 2"],
    embedder: IdentityEmbedder,
) -> EncodedFaces:
    """Embed one face of each frame.

    Args:
        frames_uint8: RGB frames.
        landmarks: The face's five landmarks in each, pixels.
        embedder: Identity network.
    """
    pairs = zip(frames_uint8, landmarks, strict=True)
    faces = [measure_face(embedder, frame, points) for frame, points in pairs]
    raw = [face.raw for face in faces if face.raw is not None]
    if not faces:
        return EncodedFaces(
            identities=np.zeros((0, embedder.embedding_dim), dtype=np.float32), raw_identities=None
        )
    return EncodedFaces(
        identities=np.stack([face.unit for face in faces]),
        raw_identities=np.stack(raw) if raw else None,
    )


def device_of(network: object) -> torch.device:
    """Return where a frozen network works; one without weights of its own works on the CPU."""
    weight = next(network.parameters(), None) if isinstance(network, nn.Module) else None
    return torch.device("cpu") if weight is None else weight.device


def mirror_landmarks(
    landmarks: Float32[np.ndarray, "faces 5 2"], width_px: int
) -> Float32[np.ndarray, "faces 5 2"]:
    """Return where landmarks lie after a left-right flip of a picture `width_px` wide."""
    flipped = landmarks[:, MIRRORED_LANDMARKS].copy()
    flipped[..., 0] = width_px - 1 - flipped[..., 0]
    return flipped
