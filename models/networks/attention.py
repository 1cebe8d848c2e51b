"""Softmax attention over heads, in the form that is fastest where it runs.

Measured on a CPU with bfloat16 instructions: for up to about a thousand tokens, two matrix
products and a softmax take half the time of PyTorch's fused kernel in bfloat16 (forward and
backward, 576 tokens: 24 ms against 46 ms), while in float32 and on GPUs the fused kernel wins.
"""

import torch
import torch.nn.functional as nnf
from jaxtyping import Float
from torch import Tensor

EXPLICIT_MAX_TOKENS = 1024
"""Above this many queries the explicit form would hold too large a matrix."""


def attend(
    query: Float[Tensor, "batch tokens channels"],
    key: Float[Tensor, "batch context channels"],
    value: Float[Tensor, "batch context channels"],
    num_heads: int,
) -> Float[Tensor, "batch tokens channels"]:
    """Return softmax attention with heads of equal width.

    One single context token is what every query gets, so nothing is computed for it (and
    nothing but the value projection learns from it).
    """
    if key.shape[1] == 1:
        return value.expand(-1, query.shape[1], -1)
    query, key, value = (
        torch.unflatten(x, -1, (num_heads, -1)).transpose(1, 2) for x in (query, key, value)
    )
    return attend_heads(query, key, value).transpose(1, 2).flatten(2)


def attend_heads(
    query: Float[Tensor, "batch heads tokens head_dim"],
    key: Float[Tensor, "batch heads context head_dim"],
    value: Float[Tensor, "batch heads context head_dim"],
) -> Float[Tensor, "batch heads tokens head_dim"]:
    """Return softmax attention of separate heads."""
    is_explicit = (
        query.device.type == "cpu"
        and query.dtype == torch.bfloat16
        and key.shape[2] <= EXPLICIT_MAX_TOKENS
    )
    if not is_explicit:
        return nnf.scaled_dot_product_attention(query, key, value)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    return torch.softmax(scores, dim=-1).to(value.dtype) @ value
