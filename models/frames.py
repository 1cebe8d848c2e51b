"""Pictures of uint8 as frames of a network in [-1, 1], and back."""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from animaray.platform.errors import UsageError


def to_frames(
    frames_uint8: UInt8[np.ndarray, "frames height width 3"], device: torch.device | str = "cpu"
) -> Float[Tensor, "frames 3 height width"]:
    """Return pictures as the networks take them: channels first, in [-1, 1]."""
    return torch.from_numpy(frames_uint8).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_uint8(frames: Float[Tensor, "frames 3 height width"]) -> np.ndarray:
    """Return RGB frames of about [-1, 1] as uint8 pictures, channels last."""
    scaled = ((frames.detach().float() + 1) * 127.5).round().clamp(0, 255)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def check_sides(frames: Float[Tensor, "frames 3 height width"], multiple: int) -> None:
    """Refuse frames that a codec cannot reduce evenly.

    Raises:
        UsageError: Height or width is no multiple of the codec's downscale.
    """
    height, width = frames.shape[-2:]
    if height % multiple or width % multiple:
        raise UsageError(
            f"The codec expects frames whose sides are multiples of {multiple} px; got "
            f"{width}x{height}.",
            fix="Resize or pad the frames first.",
        )
