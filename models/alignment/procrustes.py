"""The procrustes fit: the similarity transform that best maps one pose onto another.

With centred points d_i, r_i (2-D) and weights w_i, the sum of w_i |s R d_i - r_i|^2 is smallest for

    R = argmax_R trace(R K),  K = sum_i w_i d_i r_i^T                                          (1)
    s = trace(R K) / sum_i w_i |d_i|^2                                                         (2)

In the plane, rotations are one angle, and trace(R K) = c (K_xx + K_yy) + s (K_xy - K_yx), so (1) is
solved by angle = atan2(K_xy - K_yx, K_xx + K_yy). This equals the singular value decomposition of K
with the determinant kept at +1: a reflection is never returned.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from animaray.platform.errors import PoseError

SMALLEST_SPREAD = 1e-12
"""Below this weighted sum of squares, points count as one point."""


@dataclass(frozen=True, slots=True)
class SimilarityTransform:
    """p -> scale * rotate(p) + translation, batched over any leading axes."""

    scale: Float[Tensor, "*batch"]
    """Unitless, above 0."""
    rotation: Float[Tensor, "*batch"]
    """Radians, from the x axis (right) towards the y axis (down): clockwise on the screen."""
    translation: Float[Tensor, "*batch 2"]
    """In the unit of the points."""

    def matrix(self) -> Float[Tensor, "*batch 2 2"]:
        """Return scale times rotation."""
        cosine, sine = self.rotation.cos() * self.scale, self.rotation.sin() * self.scale
        rows = torch.stack([cosine, -sine], -1), torch.stack([sine, cosine], -1)
        return torch.stack(rows, -2)

    def apply(self, points: Float[Tensor, "*batch points 2"]) -> Float[Tensor, "*batch points 2"]:
        """Map points; leading axes broadcast."""
        return points @ self.matrix().transpose(-1, -2) + self.translation[..., None, :]

    def inverse(self) -> "SimilarityTransform":
        """Return the transform that undoes this one."""
        scale = 1 / self.scale
        back = SimilarityTransform(scale, -self.rotation, torch.zeros_like(self.translation))
        return SimilarityTransform(
            scale, -self.rotation, -back.apply(self.translation[..., None, :])[..., 0, :]
        )

    def after(self, first: "SimilarityTransform") -> "SimilarityTransform":
        """Return the transform that applies `first` and then this one."""
        return SimilarityTransform(
            self.scale * first.scale,
            self.rotation + first.rotation,
            self.apply(first.translation[..., None, :])[..., 0, :],
        )


def fit_similarity_transform(
    driving: Float[Tensor, "*batch keypoints 2"],
    reference: Float[Tensor, "*batch keypoints 2"],
    confidence: Float[Tensor, "*batch keypoints"],
) -> SimilarityTransform:
    """Fit the similarity transform that maps driving onto reference keypoints, eq. (1), (2).

    Exact when the two sets differ by such a transform. Rotations only make sense where one unit
    is as long on both axes: pass pixels, or pixels divided by the height.

    Args:
        reference: Where they should land.
        confidence: Weight of each keypoint, 0 ignores it.

    Raises:
        PoseError: An item has fewer than two weighted keypoints, or all in one place.

    References:
        Umeyama 1991, IEEE TPAMI 13(4).
    """
    num_weighted = (confidence > 0).sum(-1)
    if bool((num_weighted < 2).any()):
        raise PoseError(
            f"Expected at least two keypoints that both poses show, got {int(num_weighted.min())}.",
            fix="Choose a reference image and a driving video that show the same body parts.",
            reason="too_few_keypoints",
        )
    weight = confidence / confidence.sum(-1, keepdim=True)
    centred = driving - (weight[..., None] * driving).sum(-2, keepdim=True)
    if bool(((weight * centred.square().sum(-1)).sum(-1) < SMALLEST_SPREAD).any()):
        raise PoseError(
            "The driving keypoints lie in one place; no scale or rotation can be fitted.",
            reason="no_spread",
        )
    return closed_form(driving, reference, confidence)


def closed_form(
    driving: Float[Tensor, "*batch keypoints 2"],
    reference: Float[Tensor, "*batch keypoints 2"],
    confidence: Float[Tensor, "*batch keypoints"],
) -> SimilarityTransform:
    """Fit as `fit_similarity_transform` does, without checks: finite for any input.

    Without two weighted keypoints in different places the result is the identity, or a shift.
    """
    total = confidence.sum(-1, keepdim=True)
    weight = (confidence / total.clamp_min(1e-8))[..., None]
    driving_mean = (weight * driving).sum(-2, keepdim=True)
    reference_mean = (weight * reference).sum(-2, keepdim=True)
    centred, target = driving - driving_mean, reference - reference_mean
    covariance = (weight * centred).transpose(-1, -2) @ target
    cosine = covariance[..., 0, 0] + covariance[..., 1, 1]
    sine = covariance[..., 0, 1] - covariance[..., 1, 0]
    spread = (weight * centred.square()).sum((-1, -2))
    is_fit = (cosine.abs() + sine.abs() > SMALLEST_SPREAD) & (spread > SMALLEST_SPREAD)
    # Replaced before hypot and atan2, whose gradients at the origin are not finite.
    cosine = torch.where(is_fit, cosine, torch.ones_like(cosine))
    sine = torch.where(is_fit, sine, torch.zeros_like(sine))
    spread = torch.where(is_fit, spread, torch.ones_like(spread))
    scale, rotation = torch.hypot(cosine, sine) / spread, torch.atan2(sine, cosine)
    turned = SimilarityTransform(scale, rotation, torch.zeros_like(driving_mean[..., 0, :]))
    translation = (reference_mean - turned.apply(driving_mean))[..., 0, :]
    return SimilarityTransform(scale, rotation, translation)


def joint_confidence(
    driving_confidence: Float[Tensor, "*batch keypoints"],
    reference_confidence: Float[Tensor, "*batch keypoints"],
    minimum: float,
) -> Float[Tensor, "*batch keypoints"]:
    """Return the product of two confidences, 0 where either is below the minimum."""
    is_seen = (driving_confidence >= minimum) & (reference_confidence >= minimum)
    return driving_confidence * reference_confidence * is_seen
