"""From pictures to network input and from heat maps to points, for the generated detectors.

Pixel centres lie at whole numbers; a cell of a map stands for the middle of its pixels.
"""

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

_STEP_PX = 32
_PADDING_GREY = 114
_MAX_ENLARGEMENT = 3.0


def fit_to_input(
    frame: UInt8[np.ndarray, "height width 3"], long_side_px: int
) -> tuple[Float32[np.ndarray, "1 3 input_height input_width"], float]:
    """Resize a picture to a long side, pad it to steps of 32 px at the right and bottom.

    Args:
        frame: RGB picture of any size.
        long_side_px: Long side after resizing; small pictures are enlarged at most three times.

    Returns:
        The input in [-1, 1], and the factor from picture pixels to input pixels.
    """
    height, width = frame.shape[:2]
    scale = min(long_side_px / max(height, width), _MAX_ENLARGEMENT)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = frame if size == (width, height) else cv2.resize(frame, size, interpolation=way)
    right, bottom = -size[0] % _STEP_PX, -size[1] % _STEP_PX
    if right or bottom:
        small = cv2.copyMakeBorder(
            small, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=(_PADDING_GREY,) * 3
        )
    values = small.astype(np.float32).transpose(2, 0, 1)[None] / 127.5 - 1
    return np.ascontiguousarray(values), scale


def to_picture(points: Float[np.ndarray, "*n 2"], scale: float) -> Float32[np.ndarray, "*n 2"]:
    """Return input points as points of the picture, pixels."""
    return ((points + 0.5) / scale - 0.5).astype(np.float32)


def find_peaks(
    heat: Float[np.ndarray, "rows columns"], threshold: float, *, limit: int = 16
) -> Int[np.ndarray, "peaks 2"]:
    """Return rows and columns of the local maxima above a threshold, highest first."""
    ridge = cv2.dilate(np.ascontiguousarray(heat), np.ones((3, 3), np.uint8))
    rows, columns = np.nonzero((heat >= ridge) & (heat > threshold))
    order = np.argsort(-heat[rows, columns], kind="stable")[:limit]
    return np.stack([rows[order], columns[order]], axis=1)


def refine_peak(
    heat: Float[np.ndarray, "rows columns"], row: int, column: int
) -> tuple[float, float]:
    """Return the place of a peak inside its cell as (x, y) in cells; exact for a Gaussian blob."""
    logs = np.log(np.maximum(heat, 1e-6))
    x, y = float(column), float(row)
    if 0 < column < heat.shape[1] - 1:
        x += _parabola(*logs[row, column - 1 : column + 2].tolist())
    if 0 < row < heat.shape[0] - 1:
        y += _parabola(*logs[row - 1 : row + 2, column].tolist())
    return x, y


def _parabola(before: float, here: float, after: float) -> float:
    bend = 2 * here - before - after
    return float(np.clip((after - before) / (2 * bend), -0.6, 0.6)) if bend > 1e-6 else 0.0
