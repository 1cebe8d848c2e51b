"""Run the frozen encoders over pictures and clips: latents, image and identity embeddings."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float16, Float32, UInt8
from torch import Tensor, nn

from animaray.models.frozen.protocols import IdentityEmbedder, ImageEncoder, LatentCodec
from animaray.models.identity import measure_face

MIRRORED_LANDMARKS = [1, 0, 2, 4, 3]
"""Order of the five face landmarks after a left-right flip of the picture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedFrames:
    """What the codec and the image encoder make of a clip's frames."""

    latents: Float16[np.ndarray, "frames channels latent_height latent_width"]
    image_embeddings: Float32[np.ndarray, "frames image_dim"]


@torch.inference_mode()
def encode_frames(
    frames_uint8: UInt8[np.ndarray, "frames height width 3"],
    codec: LatentCodec,
    image_encoder: ImageEncoder,
    *,
    batch_size: int = 8,
    device: torch.device | str = "cpu",
) -> EncodedFrames:
    """Encode RGB frames of the training size.

    Args:
        frames_uint8: RGB frames, sides multiples of the codec's downscale.
        codec: Codec, on `device`.
        image_encoder: Image encoder, on `device`.
        batch_size: Frames per call of each network.
        device: Where the two networks are.
    """
    latents, embeddings = [], []
    for start in range(0, len(frames_uint8), batch_size):
        frames = to_frames(frames_uint8[start : start + batch_size], device)
        latents.append(codec.encode(frames).to("cpu", torch.float16).numpy())
        embeddings.append(image_encoder.encode(frames).float().cpu().numpy())
    return EncodedFrames(
        latents=np.concatenate(latents), image_embeddings=np.concatenate(embeddings)
    )


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


def to_frames(
    frames_uint8: UInt8[np.ndarray, "frames height width 3"], device: torch.device | str = "cpu"
) -> Float[Tensor, "frames 3 height width"]:
    """Return pictures as the frozen encoders take them: channels first, in [-1, 1]."""
    return torch.from_numpy(frames_uint8).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


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
