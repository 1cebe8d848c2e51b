"""Warp the reference to every frame of a clip: decode it, move its body parts, encode again."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from animaray.models.frames import to_frames, to_uint8
from animaray.models.parts.keypoint_puppet import KeypointPuppet
from animaray.models.perception.protocols import LatentCodec
from animaray.models.pose.body_pose import BodyPose

_ENCODE_FRAMES = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class MovingPerson:
    """One person of the reference and where the pose wants them."""

    reference: BodyPose
    """In the reference picture."""
    driven_keypoints: Float[np.ndarray, "frames 18 2"]
    """Pixels of the same picture size."""
    driven_confidence: Float[np.ndarray, "frames 18"]
    """In [0, 1]."""

    def at(self, frame: int) -> BodyPose:
        """Return the pose of one frame."""
        return BodyPose(
            keypoints=self.driven_keypoints[frame], confidence=self.driven_confidence[frame]
        )


@torch.no_grad()
def warp_reference(
    codec: LatentCodec,
    reference_latents: Float[Tensor, "1 channels h w"],
    people: Sequence[MovingPerson],
) -> Float[Tensor, "frames planes h w"]:
    """Return what the network is told of each frame: latents of its warped reference and two masks.

    The picture is decoded from its latents in training and sampling alike, so that the network
    sees the same kind of warped reference in both.

    Args:
        codec: Frames to latents and back.
        reference_latents: Of the reference picture.
        people: Everybody who moves, in the reference's picture.
    """
    picture = to_uint8(codec.decode(reference_latents))[0]
    puppet = KeypointPuppet(picture, [person.reference for person in people])
    warped_frames = [
        puppet.move([person.at(frame) for person in people])
        for frame in range(len(people[0].driven_keypoints))
    ]
    device = reference_latents.device
    pixels = np.stack([moved.picture_uint8 for moved in warped_frames])
    frames = to_frames(pixels, device)
    latents = torch.cat([codec.encode(part) for part in torch.split(frames, _ENCODE_FRAMES)])
    masks = torch.from_numpy(np.stack([[moved.moved, moved.left] for moved in warped_frames]))
    small = functional.interpolate(
        masks.to(device).float() / 255, size=latents.shape[-2:], mode="area"
    )
    return torch.cat([latents.float(), small], dim=1)
