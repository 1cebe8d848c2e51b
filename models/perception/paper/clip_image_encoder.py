"""The image encoder of the published model: CLIP ViT-H/14 with its projection, 1024 numbers.

References:
    Radford et al. 2021, arXiv 2103.00020; the weights are Stable Video Diffusion's.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import CLIPVisionModelWithProjection

from animaray.models.perception.paper.backbone_files import load_image_encoder_network
from animaray.models.perception.paper.clip_preprocessing import clip_pixels
from animaray.platform.weights.store import resolve_weights


class ClipImageEncoder(nn.Module):
    """Embed pictures of any size, stretched to a square as published."""

    def __init__(self, network: CLIPVisionModelWithProjection) -> None:
        super().__init__()
        self.name = "stable-video-diffusion/image_encoder"
        self.embedding_dim = int(network.config.projection_dim)
        self.side_px = int(network.config.image_size)
        self.network = network

    @classmethod
    def load(cls, file: Path | None = None) -> "ClipImageEncoder":
        """Load a safetensors file with its config.json, or the registered one; frozen.

        A missing, damaged or other file raises WeightsError.
        """
        file = file or resolve_weights("paper/stable-video-diffusion/image_encoder")
        return cls(load_image_encoder_network(file))

    def encode(
        self, frames: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch embedding"]:
        """Return one embedding per RGB picture in [-1, 1], any size; neither unit nor centred."""
        pixels = clip_pixels(frames.float(), side_px=self.side_px)
        weight = self.network.visual_projection.weight
        embeddings: Tensor = self.network(pixels.to(weight.dtype)).image_embeds
        return embeddings.to(torch.float32)
