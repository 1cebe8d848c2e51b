"""Measure light, sharpness, damage and rate of a clip's picture.

Reads: samples, clip_damaged_share, clip_combed_share, clip_fps, clip_width, clip_height. Adds:
picture_scores. Drops: nothing. What each score says: datasets/schemas.py.
"""

from typing import Any

import cv2
import numpy as np
from jaxtyping import Float64, UInt8

from animaray.platform.media.video import FrameSelection

READS = (
    "samples", "clip_damaged_share", "clip_combed_share", "clip_fps", "clip_width", "clip_height",
)  # fmt: skip
ADDS = ("picture_scores",)
DROPS: tuple[str, ...] = ()

SELECTION = FrameSelection(fps=1.0, short_side_px=360)
"""Frames looked at."""
_BLOCK_PX = 16


def measure_picture(row: dict[str, Any]) -> dict[str, Any]:
    """Score one clip at one frame a second."""
    frames = row["samples"].take(SELECTION).frames_uint8
    values = np.stack([measure_frame(frame) for frame in frames])
    darkest, brightest, sharpness, flat = np.median(values, axis=0)
    scores = {
        "picture_luminance_p5": float(darkest),
        "picture_luminance_p95": float(brightest),
        "picture_sharpness": float(sharpness),
        "picture_flat_share": float(flat),
        "picture_damaged_share": float(row["clip_damaged_share"]),
        "picture_combed_share": row["clip_combed_share"],
        "picture_frame_rate_fps": float(row["clip_fps"]),
        "picture_short_side_px": int(min(row["clip_width"], row["clip_height"])),
    }
    return {**row, "picture_scores": scores}


def measure_frame(frame: UInt8[np.ndarray, "height width 3"]) -> Float64[np.ndarray, " 4"]:
    """Return darkest 5 %, brightest 5 %, Laplacian variance and flat share of one frame."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    darkest, brightest = np.percentile(grey, [5, 95])
    sharpness = laplacian_variance(grey)
    height, width = (side // _BLOCK_PX * _BLOCK_PX for side in grey.shape)
    blocks = grey[:height, :width].astype(np.float64)
    blocks = blocks.reshape(height // _BLOCK_PX, _BLOCK_PX, width // _BLOCK_PX, _BLOCK_PX)
    flat = float((blocks.std(axis=(1, 3)) < 0.5).mean())
    return np.array([darkest, brightest, sharpness, flat])


def laplacian_variance(grey: UInt8[np.ndarray, "height width"]) -> float:
    """Return the variance of the Laplacian: high for fine detail, low out of focus."""
    return float(cv2.Laplacian(grey, cv2.CV_64F).var())
