"""Measure a generated video against the true one: L1, PSNR, SSIM, identity (CSIM), pose (Dis).

Frames are compared as 8-bit RGB, frame by frame. Papers print two PSNR columns: one from uint8
differences that wrap around (a bug, in favour of dark frames) and PSNR* without it; ours is PSNR*.
L1 is in [0, 1]; papers print it in units of 1e-4.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, UInt8
from skimage.metrics import structural_similarity

from animaray.models.face.identity import mean_similarity
from animaray.models.perception.protocols import Perception
from animaray.platform.errors import UsageError

_FULL_SCALE = 255.0


@dataclass(frozen=True, kw_only=True, slots=True)
class IdentitySimilarity:
    """How much the faces of a video are the reference's face."""

    per_frame: Float64[np.ndarray, " frames"]
    """Cosine in [-1, 1]; nan where no face was found."""
    mean: float
    """Mean over frames with a face; nan when no frame shows one."""
    num_without_face: int
    """Frames without a face: they are counted here and never enter the mean."""


def l1(
    frames: UInt8[np.ndarray, "frames height width 3"],
    truth: UInt8[np.ndarray, "_ _ _ 3"],
) -> float:
    """Return the mean absolute difference of two videos, in [0, 1]."""
    _check_same_shape(frames, truth)
    return float(np.abs(frames.astype(np.float64) - truth).mean() / _FULL_SCALE)


def psnr(
    frames: UInt8[np.ndarray, "frames height width 3"],
    truth: UInt8[np.ndarray, "_ _ _ 3"],
) -> float:
    """Return the mean over frames of the peak signal-to-noise ratio, decibels.

    Equal frames have an infinite ratio, and so has then the mean.
    """
    _check_same_shape(frames, truth)
    difference = frames.astype(np.float64) - truth
    error = np.square(difference).mean(axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        return float((10 * np.log10(_FULL_SCALE**2 / error)).mean())


def ssim(
    frames: UInt8[np.ndarray, "frames height width 3"],
    truth: UInt8[np.ndarray, "_ _ _ 3"],
) -> float:
    """Return the mean over frames of the structural similarity, with the authors' settings.

    References:
        Wang et al. 2004, IEEE TIP 13(4): Gaussian window of sigma 1.5, K1 0.01, K2 0.03.
    """
    _check_same_shape(frames, truth)
    values = [
        structural_similarity(
            frame,
            true,
            channel_axis=2,
            data_range=_FULL_SCALE,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for frame, true in zip(frames, truth, strict=True)
    ]
    return float(np.mean(values))


def embed_largest_faces(
    frames: UInt8[np.ndarray, "frames height width 3"], perception: Perception
) -> Float32[np.ndarray, "frames embedding"]:
    """Return the identity embedding of each frame's largest face; rows of nan without a face."""
    embedder = perception.identity_embedder
    embeddings = np.full((len(frames), embedder.embedding_dim), np.nan, np.float32)
    for index, frame in enumerate(frames):
        faces = perception.face_detector.detect(frame)
        if faces:
            embeddings[index] = embedder.embed(frame, faces[0].landmarks)
    return embeddings


def identity_similarity(
    embeddings: Float32[np.ndarray, "frames embedding"],
    reference_embedding: Float32[np.ndarray, " embedding"],
) -> IdentitySimilarity:
    """Compare unit embeddings of a video's faces with a reference's.

    Args:
        embeddings: One row per frame; nan where no face was found.
        reference_embedding: The reference's; any length but zero.

    Raises:
        UsageError: The reference embedding is zero or not finite.
    """
    length = float(np.linalg.norm(reference_embedding))
    if not np.isfinite(length) or length == 0:
        raise UsageError(f"Expected a reference embedding of some length, got length {length}.")
    per_frame = embeddings.astype(np.float64) @ (reference_embedding / length)
    mean, num_without_face = mean_similarity(per_frame)
    return IdentitySimilarity(
        per_frame=per_frame,
        mean=float("nan") if mean is None else mean,
        num_without_face=num_without_face,
    )


def keypoint_distance(
    keypoints: Float[np.ndarray, "frames 18 2"],
    truth: Float[np.ndarray, "frames 18 2"],
    visible: Bool[np.ndarray, "frames 18"],
    height_px: float,
) -> float:
    """Return the mean distance of keypoints to their true place, in picture heights (Dis).

    Args:
        keypoints: Pixels.
        truth: Pixels, same picture.

    Returns:
        The mean over visible keypoints of all frames; nan when none is visible.
    """
    distance = np.linalg.norm(keypoints - truth, axis=-1)[visible] / height_px
    return float(distance.mean()) if distance.size else float("nan")


def _check_same_shape(
    frames: UInt8[np.ndarray, "frames height width 3"],
    truth: UInt8[np.ndarray, "_ _ _ 3"],
) -> None:
    if frames.shape != truth.shape or len(frames) == 0:
        raise UsageError(
            f"Expected two videos of equal size and at least one frame, got {frames.shape} and"
            f" {truth.shape}."
        )
