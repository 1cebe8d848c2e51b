"""What an animator is told of a clip, put together in one place for training and animation alike.

Whatever a training row and an animation should have in common is decided here: how poses are
drawn, which form of the identity the Face Encoder is given, to which precision the reference is
told, how the warped reference is made.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from animaray.models.alignment.alignment import PosedPicture
from animaray.models.face.identity import FaceIdentity
from animaray.models.frames import to_frames
from animaray.models.networks.animator_config import AnimatorConfig
from animaray.models.networks.conditioning import Conditioning
from animaray.models.parts.warped_reference import MovingPerson, warp_reference
from animaray.models.perception.protocols import LatentCodec
from animaray.models.pose.body_pose import BodyPose
from animaray.models.pose.drawing import draw_people, draw_pose_clip
from animaray.platform.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceInputs:
    """What the frozen encoders say of the reference picture."""

    latents: Float[Tensor, "1 channels h w"]
    """Of the picture in the model's size, scaled."""
    image_embedding: Float[Tensor, "1 image_dim"]
    """Of the picture."""
    identity: FaceIdentity
    """Of the main person's face."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PosedPerson:
    """One person: where the reference shows them, and where they are to be."""

    reference: PosedPicture
    """One pose, in the model's picture."""
    driven: PosedPicture
    """One pose per frame, in the same picture."""


def assemble_conditioning(
    config: AnimatorConfig,
    reference: ReferenceInputs,
    people: Sequence[PosedPerson],
    codec: LatentCodec | None,
) -> Conditioning:
    """Return what the animator is told of one clip, as a batch of one.

    Args:
        config: Of the animator.
        reference: Of the picture.
        people: Everybody who is drawn, the main person first.
        codec: Makes the warped reference of models that take it; may be None for others.

    Raises:
        ConfigError: There is no codec for the warped reference, or the model wants an identity that
            the recogniser does not give.
    """
    # Encoded clips hold latents in half precision: sampling shall see the same numbers,
    # in the same order in memory, because convolutions round by that, too.
    latents = reference.latents.half().float().contiguous()
    if config.warped_reference is None:
        warped = None
    elif codec is None:
        raise ConfigError("This animator takes the warped reference and needs a codec for it.")
    else:
        warped = warp_reference(codec, latents, [_moving(person) for person in people])[None]
    identity = reference.identity.face_encoder_input(config.identity_input)
    size = config.width_px, config.height_px
    driven = draw_pose_clip([each.driven for each in people], *size, config.pose_layout)
    own = draw_people([each.reference for each in people], *size, config.pose_layout)
    return Conditioning(
        reference_latents=latents,
        image_embedding=reference.image_embedding,
        identity_embedding=torch.from_numpy(identity.copy())[None],
        pose_images=to_frames(driven)[None],
        reference_pose_image=to_frames(own[None]),
        warped_reference=warped,
    )


def _moving(person: PosedPerson) -> MovingPerson:
    return MovingPerson(
        reference=BodyPose(
            keypoints=np.asarray(person.reference.keypoints),
            confidence=np.asarray(person.reference.keypoint_confidence),
        ),
        driven_keypoints=np.asarray(person.driven.keypoints),
        driven_confidence=np.asarray(person.driven.keypoint_confidence),
    )
