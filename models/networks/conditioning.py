"""Everything the denoiser is told, before and after the conditioning encoders."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditioning:
    """Conditioning of a batch of clips as it comes from the data."""

    reference_latents: Float[Tensor, "batch channels h w"]
    """Latents of the reference image."""
    image_embedding: Float[Tensor, "batch image_dim"]
    """Image embedding of the reference image."""
    identity_embedding: Float[Tensor, "batch identity_dim"]
    """Identity embedding of the reference face; zeros when no face is known."""
    pose_images: Float[Tensor, "batch frames 3 height width"]
    """Driven pose pictures in [-1, 1]."""
    reference_pose_image: Float[Tensor, "batch 3 height width"] | None = None
    """The reference's own pose picture in [-1, 1]; needed by models with reference attention."""
    warped_reference: Float[Tensor, "batch frames planes h w"] | None = None
    """Latents and masks of the warped reference (`parts.warped_reference`), of models with it."""

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "Conditioning":
        """Return a copy on another device or of another floating-point type."""
        pose, warped = self.reference_pose_image, self.warped_reference
        return Conditioning(
            reference_latents=self.reference_latents.to(device, dtype),
            image_embedding=self.image_embedding.to(device, dtype),
            identity_embedding=self.identity_embedding.to(device, dtype),
            pose_images=self.pose_images.to(device, dtype),
            reference_pose_image=None if pose is None else pose.to(device, dtype),
            warped_reference=None if warped is None else warped.to(device, dtype),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedConditioning:
    """Conditioning as the U-Net takes it; a sampler computes it once per clip."""

    image_tokens: Float[Tensor, "batch tokens cross"]
    """The image embedding as context tokens."""
    face_tokens: Float[Tensor, "batch face_tokens cross"]
    """Output of the Face Encoder."""
    reference_latents: Float[Tensor, "batch channels h w"]
    """Concatenated to the noisy latents of every frame."""
    pose_features: Float[Tensor, "batch frames width h w"] | None
    """Added after the first convolution; None adds nothing."""
    reference_features: Float[Tensor, "batch frames width h w"] | None = None
    """Of the reference attention and the warped reference, added likewise; None without them."""
    warped_latents: Float[Tensor, "batch frames channels h w"] | None = None
    """What the model's estimate is a correction of; None for models without one."""

    def drop(
        self, *, image: Bool[Tensor, " batch"], reference: Bool[Tensor, " batch"]
    ) -> "EncodedConditioning":
        """Return a copy without the image token or the reference where the masks are True.

        The face tokens keep what the Face Encoder saw of the image, as published; a warped
        reference stays what the estimate corrects.
        """
        keep_image, keep_reference = (~image).float(), (~reference).float()
        features = self.reference_features
        return replace(
            self,
            image_tokens=self.image_tokens * keep_image[:, None, None],
            reference_latents=self.reference_latents * keep_reference[:, None, None, None],
            reference_features=None
            if features is None
            else features * keep_reference[:, None, None, None, None],
        )

    def unconditional(self, *, keep_face_and_pose: bool) -> "EncodedConditioning":
        """Return guidance's second branch: no image, no reference, and no face and pose if asked.

        Args:
            keep_face_and_pose: False is the published rule.
        """
        features = self.reference_features
        dropped = replace(
            self,
            image_tokens=torch.zeros_like(self.image_tokens),
            reference_latents=torch.zeros_like(self.reference_latents),
            reference_features=None if features is None else torch.zeros_like(features),
        )
        if keep_face_and_pose:
            return dropped
        return replace(dropped, face_tokens=torch.zeros_like(self.face_tokens), pose_features=None)

    def window(self, frames: Int64[Tensor, " window"]) -> "EncodedConditioning":
        """Return the conditioning of some frames only."""
        pose, reference = self.pose_features, self.reference_features
        warped = self.warped_latents
        return replace(
            self,
            warped_latents=None if warped is None else warped[:, frames],
            pose_features=None if pose is None else pose[:, frames],
            reference_features=None if reference is None else reference[:, frames],
        )
