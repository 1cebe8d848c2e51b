"""Sample aligned faces from frames so that gradients flow from the crops to the frames.

The same crops as face_alignment.py makes of pictures, for face optimization.
"""

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn import functional

from animaray.models.perception.face_alignment import (
    averaging_factor,
    matrix_of_smaller,
    similarity_from_landmarks,
)


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
    factors = [averaging_factor(matrix) for matrix in matrices]
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


def _sampling_grid(
    matrix: Float64[np.ndarray, "2 3"],
    factor: int,
    size: tuple[int, int],
    frame_size: tuple[int, int],
) -> Float[Tensor, "crop_height crop_width 2"]:
    """Return where, in a frame averaged by `factor`, each crop pixel lies, in [-1, 1]."""
    to_crop = matrix_of_smaller(matrix, factor)
    inverse = np.linalg.inv(to_crop[:, :2])
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float64)
    crop_points = np.stack([columns, rows], axis=-1)
    frame_points = (crop_points - to_crop[:, 2]) @ inverse.T
    height, width = frame_size
    extent = np.array([max(width - 1, 1), max(height - 1, 1)], dtype=np.float64)
    return torch.from_numpy(2.0 * frame_points / extent - 1.0)
