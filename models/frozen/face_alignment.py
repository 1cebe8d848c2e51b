"""Bring a face into a recogniser's crop: similarity transform from five landmarks, two samplers.

Pixel coordinates are those of OpenCV: integers are pixel centres. The numpy sampler serves
curation, the tensor sampler lets gradients flow from the crop to the frame (face optimization).
"""

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor
from torch.nn import functional

from animaray.platform.errors import FaceError


def similarity_from_landmarks(
    landmarks: Float[np.ndarray, "points 2"], template: Float[np.ndarray, "points 2"]
) -> Float64[np.ndarray, "2 3"]:
    """Return the similarity transform that maps landmarks onto a template, in least squares.

    Args:
        landmarks: Points in the frame, pixels.
        template: Where they belong in the crop, pixels.

    Returns:
        Matrix M with crop point = M[:, :2] @ frame point + M[:, 2]; never a reflection.

    Raises:
        FaceError: The landmarks are not finite or fall into one point.

    References:
        Umeyama 1991, IEEE TPAMI 13(4).
    """
    source = np.asarray(landmarks, dtype=np.float64)
    target = np.asarray(template, dtype=np.float64)
    if not np.isfinite(source).all():
        raise FaceError("Expected finite face landmarks, got NaN or infinity.", reason="landmarks")
    source_centre, target_centre = source.mean(axis=0), target.mean(axis=0)
    source, target = source - source_centre, target - target_centre
    spread = float((source**2).sum())
    if spread < 1e-6:
        raise FaceError(
            "The face landmarks fall into one point; no crop can be aligned to them.",
            reason="landmarks",
        )
    # In 2D the optimal rotation and scale are two sums: no singular value decomposition needed.
    cosine = float((source * target).sum()) / spread
    sine = float((source[:, 0] * target[:, 1] - source[:, 1] * target[:, 0]).sum()) / spread
    linear = np.array([[cosine, -sine], [sine, cosine]])
    offset = target_centre - linear @ source_centre
    return np.concatenate([linear, offset[:, None]], axis=1)


def align_face(
    frame: UInt8[np.ndarray, "height width 3"],
    landmarks: Float[np.ndarray, "points 2"],
    template: Float[np.ndarray, "points 2"],
    height_px: int,
    width_px: int,
) -> UInt8[np.ndarray, "crop_height crop_width 3"]:
    """Return the aligned crop of one face; what lies outside the frame is black.

    A face larger than the crop is averaged down first, so that fine texture does not alias.

    Args:
        frame: RGB picture.
        landmarks: Points in the frame, pixels.
        template: Where they belong in the crop, pixels.
        height_px: Crop height.
        width_px: Crop width.
    """
    return warp_crop(frame, similarity_from_landmarks(landmarks, template), height_px, width_px)


def warp_crop(
    frame: UInt8[np.ndarray, "height width 3"],
    matrix: Float64[np.ndarray, "2 3"],
    height_px: int,
    width_px: int,
) -> UInt8[np.ndarray, "crop_height crop_width 3"]:
    """Return the crop that a similarity transform cuts out; outside the frame it is black.

    Args:
        frame: RGB picture.
        matrix: Crop point = matrix[:, :2] @ frame point + matrix[:, 2]; pixels.
        height_px: Crop height.
        width_px: Crop width.
    """
    factor = _averaging_factor(matrix)
    if factor > 1:
        frame, matrix = _average_down(frame, matrix, factor)
    return cv2.warpAffine(frame, matrix, (width_px, height_px), flags=cv2.INTER_LINEAR)


def align_frames(
    frames: Float[Tensor, "frames 3 height width"],
    landmarks: Float[Tensor, "frames points 2"],
    template: Float[np.ndarray, "points 2"],
    size: tuple[int, int],
) -> Float[Tensor, "frames 3 crop_height crop_width"]:
    """Return aligned crops of one face per frame, differentiable with respect to the frames.

    Args:
        frames: RGB in [-1, 1].
        landmarks: Points in each frame, pixels; constants for the gradient.
        template: Where they belong in the crop, pixels.
        size: (height, width) of the crops in pixels.

    Returns:
        Crops in [-1, 1]; what lies outside the frame is black (-1).
    """
    points = landmarks.detach().cpu().double().numpy()
    matrices = [similarity_from_landmarks(each, template) for each in points]
    factors = [_averaging_factor(matrix) for matrix in matrices]
    crops: list[Tensor | None] = [None] * len(matrices)
    for factor in sorted(set(factors)):
        rows = [row for row, each in enumerate(factors) if each == factor]
        group = frames[rows]
        if factor > 1:
            group = functional.avg_pool2d(group, factor)
        grids = [
            _sampling_grid(matrices[row], factor, size, (group.shape[-2], group.shape[-1]))
            for row in rows
        ]
        grid = torch.stack(grids).to(device=frames.device, dtype=frames.dtype)
        # Sampled in [0, 2], so that the zero padding outside the frame means black.
        sampled = functional.grid_sample(
            group + 1.0, grid, mode="bilinear", padding_mode="zeros", align_corners=True
        )
        for row, crop in zip(rows, sampled - 1.0, strict=True):
            crops[row] = crop
    return torch.stack([crop for crop in crops if crop is not None])


def _averaging_factor(matrix: Float64[np.ndarray, "2 3"]) -> int:
    """Return by how many whole pixels to average before sampling: 1 for faces up to crop size."""
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    return max(1, int(1.0 / scale))


def _average_down(
    frame: UInt8[np.ndarray, "height width 3"], matrix: Float64[np.ndarray, "2 3"], factor: int
) -> tuple[UInt8[np.ndarray, "small_height small_width 3"], Float64[np.ndarray, "2 3"]]:
    """Average factor x factor pixels into one and adapt the matrix to the smaller picture."""
    height, width = (side // factor * factor for side in frame.shape[:2])
    small = cv2.resize(
        frame[:height, :width], (width // factor, height // factor), interpolation=cv2.INTER_AREA
    )
    return small, _matrix_of_smaller(matrix, factor)


def _matrix_of_smaller(
    matrix: Float64[np.ndarray, "2 3"], factor: int
) -> Float64[np.ndarray, "2 3"]:
    """Rewrite a matrix for pictures averaged by `factor`: old = factor * new + (factor - 1) / 2."""
    linear = matrix[:, :2]
    offset = matrix[:, 2] + linear @ np.full(2, (factor - 1) / 2)
    return np.concatenate([linear * factor, offset[:, None]], axis=1)


def _sampling_grid(
    matrix: Float64[np.ndarray, "2 3"],
    factor: int,
    size: tuple[int, int],
    frame_size: tuple[int, int],
) -> Float[Tensor, "crop_height crop_width 2"]:
    """Return where, in a frame averaged by `factor`, each crop pixel lies, in [-1, 1]."""
    to_crop = _matrix_of_smaller(matrix, factor)
    inverse = np.linalg.inv(to_crop[:, :2])
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float64)
    crop_points = np.stack([columns, rows], axis=-1)
    frame_points = (crop_points - to_crop[:, 2]) @ inverse.T
    height, width = frame_size
    extent = np.array([max(width - 1, 1), max(height - 1, 1)], dtype=np.float64)
    return torch.from_numpy(2.0 * frame_points / extent - 1.0)
