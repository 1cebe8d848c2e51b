"""Convolutions whose weights are frozen: the gradient of the input needs no stored input.

PyTorch keeps the input of every convolution for the weights' gradient, even where there is none.
Without it a decoder's graph is about half as large.
"""

from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn


def frozen_convolution(conv: nn.Conv2d | nn.Conv3d, features: Tensor) -> Tensor:
    """Return conv(features), keeping only what the gradient of `features` needs.

    Args:
        conv: Zero-padded; its weights must not need a gradient.
        features: As the convolution takes them.
    """
    if not (torch.is_grad_enabled() and features.requires_grad) or conv.weight.requires_grad:
        plain: Tensor = conv(features)
        return plain
    result: Tensor = _FrozenConvolution.apply(features, conv)  # type: ignore[no-untyped-call]
    return result


class _FrozenConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, conv: nn.Conv2d | nn.Conv3d) -> Tensor:  # noqa: ANN401
        ctx.conv, ctx.shape = conv, features.shape
        apply = nnf.conv2d if isinstance(conv, nn.Conv2d) else nnf.conv3d
        result: Tensor = apply(
            features, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups
        )
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        conv, gradient = ctx.conv, gradients[0]
        # Only the shape of the input is read when its own gradient alone is asked for.
        shape_only = gradient.new_empty(1).expand(ctx.shape)
        of_input = torch.ops.aten.convolution_backward(
            gradient,
            shape_only,
            conv.weight,
            None,
            conv.stride,
            conv.padding,
            conv.dilation,
            False,  # noqa: FBT003 - not transposed
            [0] * len(conv.stride),
            conv.groups,
            (True, False, False),
        )[0]
        return of_input, None
