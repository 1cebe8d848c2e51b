"""Bring a face into a recogniser's crop: similarity transform from five landmarks, and a sampler.

Pixel coordinates are those of OpenCV: integers are pixel centres. Curation looks at pictures with
this; gradients flow through face_sampling.py.
"""

import cv2
import numpy as np
from jaxtyping import Float, Float64, UInt8

from animaray.platform.errors import FaceError

USUAL_TEMPLATE = (
    (30.2946, 51.6963),
    (65.5318, 51.5014),
    (48.0252, 71.7366),
    (33.5493, 92.3655),
    (62.7299, 92.2041),
)
"""Where the five landmarks lie in the crop of most recognisers, pixels."""
USUAL_CROP_HEIGHT_PX, USUAL_CROP_WIDTH_PX = 112, 96


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
        landmarks: Points in the frame, pixels.
        template: Where they belong in the crop, pixels.
    """
    return warp_crop(frame, similarity_from_landmarks(landmarks, template), height_px, width_px)


def warp_crop(
    frame: UInt8[np.ndarray, "height width 3"],
    matrix: Float64[np.ndarray, "2 3"],
    height_px: int,
    width_px: int,
    *,
    border: int = cv2.BORDER_CONSTANT,
) -> UInt8[np.ndarray, "crop_height crop_width 3"]:
    """Return the crop that a similarity transform cuts out; outside the frame it is black.

    Args:
        matrix: Crop point = matrix[:, :2] @ frame point + matrix[:, 2]; pixels.
        border: OpenCV's name of what is outside the frame, black unless said.
    """
    factor = averaging_factor(matrix)
    if factor > 1:
        frame, matrix = _average_down(frame, matrix, factor)
    return cv2.warpAffine(
        frame, matrix, (width_px, height_px), flags=cv2.INTER_LINEAR, borderMode=border
    )


def averaging_factor(matrix: Float64[np.ndarray, "2 3"]) -> int:
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
    return small, matrix_of_smaller(matrix, factor)


def matrix_of_smaller(
    matrix: Float64[np.ndarray, "2 3"], factor: int
) -> Float64[np.ndarray, "2 3"]:
    """Rewrite a matrix for pictures averaged by `factor`: old = factor * new + (factor - 1) / 2."""
    linear = matrix[:, :2]
    offset = matrix[:, 2] + linear @ np.full(2, (factor - 1) / 2)
    return np.concatenate([linear * factor, offset[:, None]], axis=1)
