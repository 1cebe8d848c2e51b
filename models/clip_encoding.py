"""Run the frozen encoders over the frames of a clip: latents, image and identity embeddings."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float16, Float32, UInt8

from animaray.models.frozen.protocols import IdentityEmbedder, ImageEncoder, LatentCodec

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
        part = torch.from_numpy(frames_uint8[start : start + batch_size]).to(device)
        frames = part.permute(0, 3, 1, 2).float() / 127.5 - 1.0
        latents.append(codec.encode(frames).to("cpu", torch.float16).numpy())
        embeddings.append(image_encoder.encode(frames).float().cpu().numpy())
    return EncodedFrames(
        latents=np.concatenate(latents), image_embeddings=np.concatenate(embeddings)
    )


def embed_faces(
    frames_uint8: UInt8[np.ndarray, "faces height width 3"],
    landmarks: Float32[np.ndarray, "faces 5 2"],
    embedder: IdentityEmbedder,
) -> Float32[np.ndarray, "faces identity_dim"]:
    """Embed one face of each frame.

    Args:
        frames_uint8: RGB frames.
        landmarks: The face's five landmarks in each, pixels.
        embedder: Identity network.
    """
    if len(frames_uint8) == 0:
        return np.zeros((0, embedder.embedding_dim), dtype=np.float32)
    pairs = zip(frames_uint8, landmarks, strict=True)
    return np.stack([embedder.embed(frame, points) for frame, points in pairs])


def mirror_landmarks(
    landmarks: Float32[np.ndarray, "faces 5 2"], width_px: int
) -> Float32[np.ndarray, "faces 5 2"]:
    """Return where landmarks lie after a left-right flip of a picture `width_px` wide."""
    flipped = landmarks[:, MIRRORED_LANDMARKS].copy()
    flipped[..., 0] = width_px - 1 - flipped[..., 0]
    return flipped
