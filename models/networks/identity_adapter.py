"""The identity adapter: face attention merged with image attention by distribution (eq. 13, 14).

The adapter is the `processor` of a cross-attention (unet_layers.py), so that its weights lie under
`...attn2.processor.id_to_k` and `.id_to_v`, as in the published checkpoints.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from animaray.models.networks.attention import attend

AdapterMode = Literal["distribution", "addition", "norm"]

STANDARD_DEVIATION_FLOOR = 1e-5
"""Added to the deviation of the face branch only, as published."""


class IdentityAdapter(nn.Module):
    """Attend to the face tokens, and add that to the attention to the image token.

    Modes: `distribution` gives the face branch the mean and deviation of the image branch
    (the method); `norm` only normalises it; `addition` leaves it as it is (two ablations).
    Statistics are one scalar per frame, over tokens and channels together.
    """

    def __init__(
        self,
        hidden_dim: int,
        cross_attention_dim: int,
        *,
        num_face_tokens: int,
        mode: AdapterMode = "distribution",
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_face_tokens = num_face_tokens
        self.mode = mode
        self.scale = scale
        self.id_to_k = nn.Linear(cross_attention_dim, hidden_dim, bias=False)
        self.id_to_v = nn.Linear(cross_attention_dim, hidden_dim, bias=False)

    def forward(
        self,
        query: Float[Tensor, "frames tokens channels"],
        image: Float[Tensor, "frames tokens channels"],
        face_tokens: Float[Tensor, "frames face_tokens cross"],
        num_heads: int,
    ) -> Float[Tensor, "frames tokens channels"]:
        """Return the attention to image and face, merged.

        Args:
            query: Of the attention to both.
            image: Attention to the image tokens, heads merged.
            face_tokens: Keys and values are made of them.
            num_heads: Heads of the attention.
        """
        face = attend(query, self.id_to_k(face_tokens), self.id_to_v(face_tokens), num_heads)
        return image + self.scale * align_to_image(face, image, self.mode)


def align_to_image(
    face: Float[Tensor, "frames tokens channels"],
    image: Float[Tensor, "frames tokens channels"],
    mode: AdapterMode,
) -> Float[Tensor, "frames tokens channels"]:
    """Return the face branch as it is added to the image branch (eq. 14).

    Args:
        face: Attention to the face tokens, heads merged.
        image: Attention to the image token or prompt, heads merged.
    """
    if mode == "addition":
        return face
    deviation, mean = torch.std_mean(face, dim=(1, 2), keepdim=True)
    normalised = (face - mean) / (deviation + STANDARD_DEVIATION_FLOOR)
    if mode == "norm":
        return normalised
    image_deviation, image_mean = torch.std_mean(image, dim=(1, 2), keepdim=True)
    return normalised * image_deviation + image_mean
