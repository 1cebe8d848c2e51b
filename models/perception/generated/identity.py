"""Identity embeddings of generated faces: 112x112 aligned crops to 128-d unit vectors.

Trained by benchmarks.bundled_weights.identity with an additive angular margin; the card
generated/identity.md has the held-out accuracy.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn

from animaray.models.frames import to_frames
from animaray.models.perception.face_alignment import align_face
from animaray.models.perception.generated.files import load_network, resolve_generated
from animaray.models.perception.generated.networks import IDENTITY_DIM, IdentityNetwork

CROP_PX = 112
FACE_TEMPLATE = np.array(
    # Eyes, nose, mouth corners: wider margins than usual, because hair is part of a drawn identity.
    [[41.0, 52.0], [71.0, 52.0], [56.0, 66.0], [45.0, 82.0], [67.0, 82.0]],
    dtype=np.float32,
)


class GeneratedIdentityEmbedder(nn.Module):
    """Map generated faces to unit vectors; the tensor path is differentiable."""

    def __init__(self) -> None:
        super().__init__()
        self.name = "generated/identity"
        self.embedding_dim = IDENTITY_DIM
        self.crop_height_px = CROP_PX
        self.crop_width_px = CROP_PX
        self.network = IdentityNetwork()

    @classmethod
    def load(cls, path: Path | None = None) -> "GeneratedIdentityEmbedder":
        """Load the shipped weights, or those of a file; frozen, in evaluation mode.

        Args:
            path: A safetensors file; None takes the shipped one.

        Raises:
            WeightsError: The file is missing or of another network.
        """
        return load_network(cls(), path or resolve_generated("identity"))

    def template(self) -> Float32[np.ndarray, "5 2"]:
        """Return where the five landmarks belong in the aligned crop, pixels."""
        return FACE_TEMPLATE.copy()

    @torch.no_grad()
    def embed(
        self,
        frame: UInt8[np.ndarray, "height width 3"],
        landmarks: Float32[np.ndarray, "5 2"],
    ) -> Float32[np.ndarray, " embedding"]:
        """Return the unit embedding of one face of an RGB picture.

        Args:
            landmarks: Eyes, nose, mouth corners, pixels of the picture.
        """
        crop = align_face(frame, landmarks, FACE_TEMPLATE, CROP_PX, CROP_PX)
        device = next(self.parameters()).device
        frames = to_frames(np.ascontiguousarray(crop)[None], device)
        return self.embed_crops(frames)[0].cpu().numpy()

    def embed_crops(
        self, crops: Float[Tensor, "crops 3 crop_height crop_width"]
    ) -> Float[Tensor, "crops embedding"]:
        """Return unit embeddings of aligned RGB crops in [-1, 1]; gradients flow to the crops."""
        return self.network(crops.contiguous(memory_format=torch.channels_last))
