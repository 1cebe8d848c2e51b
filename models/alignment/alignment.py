"""Align a driving clip to a reference picture: four methods, one transform per clip.

Every method moves a whole person by one transform a frame, which the 18 body keypoints decide; the
further points (feet, face, hands) go with them, so hands stay at their wrists.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from animaray.models.alignment.aligner import PoseAligner
from animaray.models.alignment.methods import AlignmentMethod, TransformScope
from animaray.models.alignment.procrustes import (
    SimilarityTransform,
    closed_form,
    fit_similarity_transform,
    joint_confidence,
)
from animaray.models.alignment.published_fit import published_fit
from animaray.models.pose.further_points import map_further
from animaray.models.pose.layouts import VISIBLE_CONFIDENCE
from animaray.platform.errors import ConfigError, PoseError


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignmentReport:
    """How well the driving clip fits the reference."""

    residual: float
    """Mean distance to the reference's keypoints where both are seen, in picture heights. It
    holds the difference of the two poses too, so it is not zero for a perfect alignment."""
    out_of_frame_share: float
    """Share of the seen driving keypoints that land outside the picture."""
    visible_share: float
    """Share of all driving keypoints that are seen."""
    scale: float
    """Median scale, driving heights to reference heights."""
    rotation_rad: float
    """Mean rotation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PosedPicture:
    """Keypoints together with the size of the picture they belong to."""

    keypoints: Float[np.ndarray, "*frames 18 2"]
    """Pixels."""
    keypoint_confidence: Float[np.ndarray, "*frames 18"]
    """In [0, 1]."""
    width_px: int
    """Width of the picture."""
    height_px: int
    """Height of the picture."""
    further_points: Float[np.ndarray, "*frames 116 3"] | None = None
    """Feet, face and hands: pixels and confidence; None where nobody looked for them."""
    is_alone: Bool[np.ndarray, " frames"] | None = None
    """Of a driving clip, the frames that show nobody else; None where that is not known."""

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height of the picture."""
        return self.width_px, self.height_px

    def in_heights(self) -> tuple[Float[Tensor, "*frames 18 2"], Float[Tensor, "*frames 18"]]:
        """Return keypoints divided by the height (both axes), and confidences, as tensors."""
        points = torch.as_tensor(np.asarray(self.keypoints, dtype=np.float32)) / self.height_px
        return points, torch.as_tensor(np.asarray(self.keypoint_confidence, dtype=np.float32))


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignedPose:
    """A driving clip in the reference's picture."""

    keypoints: Float[np.ndarray, "frames 18 2"]
    """Pixels of the reference's picture; method `fit` keeps the precision of what it moves."""
    keypoint_confidence: Float[np.ndarray, "frames 18"]
    """As given."""
    report: AlignmentReport
    """How well it fits."""
    further_points: Float[np.ndarray, "frames 116 3"] | None = None
    """Feet, face and hands, moved as the body: pixels and confidence; None where the driving clip
    has none."""

    def within(self, picture: PosedPicture) -> PosedPicture:
        """Return the poses with the size of the picture that they were aligned to."""
        return replace(
            picture,
            keypoints=self.keypoints,
            keypoint_confidence=self.keypoint_confidence,
            further_points=self.further_points,
            is_alone=None,
        )


def align_clip(
    method: AlignmentMethod,
    reference: PosedPicture,
    driving: PosedPicture,
    *,
    aligner: PoseAligner | None = None,
    scope: TransformScope = "clip",
) -> AlignedPose:
    """Move a driving clip's keypoints into the reference's picture.

    Args:
        method: `none` only scales to the picture's height and centres; `fit` is the released
            code's baseline (one scale and a shift for the whole clip, whatever `scope` says);
            `procrustes` is the closed form; `learned` needs an aligner.
        driving: One pose per frame.
        scope: `clip` moves all frames by one transform, so that the motion stays as it is and
            nothing trembles; `frame` fits each frame alone.

    Raises:
        ConfigError: The method is `learned` and there is no aligner.
        PoseError: No frame shares two seen keypoints with the reference.
    """
    if method == "learned" and aligner is None:
        raise ConfigError(
            "Alignment method `learned` needs an aligner, and these weights have none.",
            fix="Use --alignment procrustes, or weights with an aligner/ folder.",
        )
    if method == "fit":
        return _fitted(reference, driving)
    # The transform onto the reference, in picture heights.
    ref_points, ref_confidence = reference.in_heights()
    points, confidence = driving.in_heights()
    if method == "none":
        transform = _centred(reference, driving, len(points))
    else:
        weight = joint_confidence(
            confidence, ref_confidence.expand_as(confidence), VISIBLE_CONFIDENCE
        )
        if not bool(((weight > 0).sum(-1) >= 2).any()):
            raise PoseError(
                "No frame of the driving video shows two keypoints that the reference shows too.",
                fix="Choose a reference image and a driving video that show the same body parts.",
                reason="too_few_keypoints",
            )
        transform = _fit(ref_points, ref_confidence, points, confidence, aligner, method)
        if scope == "clip":
            transform = _shared(transform, points, weight, ref_points, method)

    # All points go the same way: body, hands and face.
    aligned = transform.apply(points)
    report = _report(aligned, confidence, ref_points, ref_confidence, reference, transform)
    is_as_it_was = method == "none" and reference.size_px == driving.size_px

    def moved(places: Float[np.ndarray, "frames points 2"]) -> Float[np.ndarray, "frames points 2"]:
        if is_as_it_was:  # spared the rounding, too
            return places
        heights = torch.as_tensor(places, dtype=torch.float32) / driving.height_px
        return (transform.apply(heights) * reference.height_px).numpy()

    return AlignedPose(
        keypoints=moved(driving.keypoints).astype(np.float32),
        keypoint_confidence=confidence.numpy(),
        report=report,
        further_points=map_further(driving.further_points, moved),
    )


def _fitted(reference: PosedPicture, driving: PosedPicture) -> AlignedPose:
    """Align by the released code's fit, over the frames that show this person and nobody else.

    Where somebody else is always there, too, all frames that show the person count; the released
    code crashes there.
    """
    size = np.array([reference.width_px, reference.height_px])
    driving_size = np.array([driving.width_px, driving.height_px])
    counts = (driving.keypoint_confidence > VISIBLE_CONFIDENCE).any(axis=-1)
    if driving.is_alone is not None and (counts & driving.is_alone).any():
        counts &= driving.is_alone
    transform = published_fit(
        reference.keypoints / size,
        reference.keypoint_confidence > VISIBLE_CONFIDENCE,
        driving.keypoints[counts] / driving_size,
    )

    def moved(points: Float[np.ndarray, "*items 2"]) -> Float[np.ndarray, "*items 2"]:
        return transform.apply(points / driving_size) * size

    keypoints = moved(driving.keypoints).astype(driving.keypoints.dtype)
    ref_points, ref_confidence = reference.in_heights()
    _, confidence = driving.in_heights()
    report = _report(
        torch.from_numpy(keypoints).float() / reference.height_px,
        confidence,
        ref_points,
        ref_confidence,
        reference,
        SimilarityTransform(
            torch.full((len(keypoints),), float(transform.scale[1])),
            torch.zeros(len(keypoints)),
            torch.zeros(len(keypoints), 2),
        ),
    )
    return AlignedPose(
        keypoints=keypoints,
        keypoint_confidence=driving.keypoint_confidence,
        report=report,
        further_points=map_further(driving.further_points, moved),
    )


def _centred(
    reference: PosedPicture, driving: PosedPicture, num_frames: int
) -> SimilarityTransform:
    """Return a shift that puts the driving picture's centre line on the reference's."""
    shift = 0.5 * (reference.width_px / reference.height_px - driving.width_px / driving.height_px)
    translation = torch.tensor([[shift, 0.0]]).expand(num_frames, -1)
    return SimilarityTransform(torch.ones(num_frames), torch.zeros(num_frames), translation)


@torch.no_grad()
def _fit(
    ref_points: Float[Tensor, "18 2"],
    ref_confidence: Float[Tensor, " 18"],
    points: Float[Tensor, "frames 18 2"],
    confidence: Float[Tensor, "frames 18"],
    aligner: PoseAligner | None,
    method: AlignmentMethod,
) -> SimilarityTransform:
    """Return one transform per frame."""
    frames = len(points)
    ref_points, ref_confidence = (
        ref_points.expand(frames, -1, -1),
        ref_confidence.expand(frames, -1),
    )
    if method == "learned" and aligner is not None:
        return aligner(ref_points, ref_confidence, points, confidence).transform
    weight = joint_confidence(confidence, ref_confidence, VISIBLE_CONFIDENCE)
    return closed_form(points, ref_points, weight)


def _shared(
    transform: SimilarityTransform,
    points: Float[Tensor, "frames 18 2"],
    weight: Float[Tensor, "frames 18"],
    ref_points: Float[Tensor, "18 2"],
    method: AlignmentMethod,
) -> SimilarityTransform:
    """Return one transform for all frames: the fit to every frame's target at once.

    For the closed form the target is the reference itself; for the learned aligner it is where
    each frame's own transform puts the keypoints. Scale and rotation are fitted to keypoints
    centred frame by frame: a person who walks about would otherwise look larger than one pose.
    """
    frames = len(points)
    target = ref_points.expand(frames, -1, -1)
    if method == "learned":
        target = transform.apply(points)
    total = weight.sum(-1, keepdim=True)
    share = (weight / total.clamp_min(1e-8))[..., None]
    centre = (share * points).sum(1, keepdim=True)
    target_centre = (share * target).sum(1, keepdim=True)
    turn = fit_similarity_transform(
        (points - centre).flatten(0, 1), (target - target_centre).flatten(0, 1), weight.flatten()
    )
    about_origin = SimilarityTransform(turn.scale, turn.rotation, torch.zeros(2))
    shift = (target_centre - about_origin.apply(centre))[:, 0]
    frame_share = total / total.sum()
    return SimilarityTransform(
        turn.scale.expand(frames),
        turn.rotation.expand(frames),
        (frame_share * shift).sum(0).expand(frames, -1),
    )


def _report(
    aligned: Float[Tensor, "frames 18 2"],
    confidence: Float[Tensor, "frames 18"],
    ref_points: Float[Tensor, "18 2"],
    ref_confidence: Float[Tensor, " 18"],
    reference: PosedPicture,
    transform: SimilarityTransform,
) -> AlignmentReport:
    seen = confidence >= VISIBLE_CONFIDENCE
    both = (seen & (ref_confidence >= VISIBLE_CONFIDENCE)).float()
    distance = torch.linalg.vector_norm(aligned - ref_points, dim=-1)
    size = torch.tensor([reference.width_px / reference.height_px, 1.0])
    outside = ((aligned < 0) | (aligned > size)).any(-1) & seen
    angle = torch.atan2(transform.rotation.sin().mean(), transform.rotation.cos().mean())
    return AlignmentReport(
        residual=float((distance * both).sum() / both.sum().clamp_min(1)),
        out_of_frame_share=float(outside.sum() / seen.sum().clamp_min(1)),
        visible_share=float(seen.float().mean()),
        scale=float(transform.scale.median()),
        rotation_rad=float(angle),
    )
