"""The identity adapter: face attention merged with image attention by distribution (eq. 13, 14).

The adapter is the `processor` of a cross-attention, ours or diffusers', so that its weights lie
under `...attn2.processor.id_to_k` and `.id_to_v`, as in the published checkpoints.
"""

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from animaray.models.networks.attention import attend

AdapterMode = Literal["distribution", "addition", "norm"]

STANDARD_DEVIATION_FLOOR = 1e-5
"""Added to the deviation of the face branch only, as published."""


class IdentityAdapter(nn.Module):
    """Attend to the image token and to the face tokens, and add the two outputs.

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
        attn: Any,  # noqa: ANN401 - ours, or diffusers' Attention, which is untyped
        hidden_states: Float[Tensor, "frames tokens channels"],
        encoder_hidden_states: Float[Tensor, "frames context cross"] | None = None,
        attention_mask: None = None,  # noqa: ARG002 - fixed by diffusers
        temb: None = None,  # noqa: ARG002 - fixed by diffusers
    ) -> Float[Tensor, "frames tokens channels"]:
        """Return the merged cross-attention; the last tokens of the context are the face's.

        Raises:
            ValueError: diffusers called the layer without a context.
        """
        if encoder_hidden_states is None:
            raise ValueError("The identity adapter needs a context; it is not self-attention.")
        image = encoder_hidden_states[:, : -self.num_face_tokens]
        face = encoder_hidden_states[:, -self.num_face_tokens :]
        query = attn.to_q(hidden_states)
        image_output = attend(query, attn.to_k(image), attn.to_v(image), attn.heads)
        face_output = attend(query, self.id_to_k(face), self.id_to_v(face), attn.heads)
        merged = image_output + self.scale * align_to_image(face_output, image_output, self.mode)
        return attn.to_out[1](attn.to_out[0](merged))


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
