"""Summarise pictures of the generated world in 256 numbers: who, in what clothes, where.

The place of CLIP's image encoder in the demo. Trained by
benchmarks.bundled_weights.image_encoder; the card is generated/image_encoder.md.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from animaray.models.perception.generated.files import load_network, resolve_generated
from animaray.models.perception.generated.networks import IMAGE_DIM, ImageNetwork

INPUT_PX = 96


class GeneratedImageEncoder(nn.Module):
    """Embed pictures; each vector has zero mean and unit variance over its entries."""

    def __init__(self) -> None:
        super().__init__()
        self.name = "generated/image_encoder"
        self.embedding_dim = IMAGE_DIM
        self.network = ImageNetwork()

    @classmethod
    def load(cls, path: Path | None = None) -> "GeneratedImageEncoder":
        """Load the shipped weights, or those of a file; frozen, in evaluation mode.

        Args:
            path: A safetensors file; None takes the shipped one.

        Raises:
            WeightsError: The file is missing or of another network.
        """
        return load_network(cls(), path or resolve_generated("image_encoder"))

    def encode(
        self, frames: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch embedding"]:
        """Return one embedding per RGB picture in [-1, 1], any size (reduced to 96x96 px)."""
        if frames.shape[-2:] != (INPUT_PX, INPUT_PX):
            frames = functional.interpolate(
                frames, (INPUT_PX, INPUT_PX), mode="bilinear", antialias=True, align_corners=False
            )
        return self.network(frames.contiguous(memory_format=torch.channels_last))
