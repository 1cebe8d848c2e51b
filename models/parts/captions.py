"""Captions over the person of a photo: they stay where they are, above whatever moves."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from animaray.models.perception.protocols import TextLine

MIN_SCORE, MIN_LETTERS = 0.8, 2
"""Less sure or shorter readings are folds and patterns."""
_ON_PERSON = (0.05, 0.6)
"""Share of a caption that covers the person: less stands beside them, more is printed on them."""
_MARGIN = 0.15
"""Around a line, in its heights: rims and shadows of letters."""
_CONTRAST = 28.0
"""Of a letter against the middle colour around it, grey levels in one channel."""


def captions_over(
    lines: Sequence[TextLine],
    picture: UInt8[np.ndarray, "height width 3"],
    alpha: Float32[np.ndarray, "height width"],
) -> Bool[np.ndarray, "height width"]:
    """Return the letters of captions that lie over the person.

    Args:
        lines: What can be read in the photo.
    """
    over = np.zeros(alpha.shape, bool)
    for line in lines:
        letters = sum(character.isalnum() for character in line.words)
        if line.score < MIN_SCORE or letters < MIN_LETTERS:
            continue
        box = np.zeros(alpha.shape, np.uint8)
        corners = _widened(line.corners)
        cv2.fillConvexPoly(box, corners.round().astype(np.int32), 1)
        inside = box > 0
        share = float((alpha[inside] > 0.5).mean()) if inside.any() else 0.0
        if _ON_PERSON[0] <= share <= _ON_PERSON[1]:
            height = float(np.linalg.norm(line.corners[3] - line.corners[0]))
            over |= inside & _letters(picture, max(3, int(1.5 * height) // 2 * 2 + 1))
    return cv2.dilate(over.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0


def without(
    picture: UInt8[np.ndarray, "height width 3"], letters: Bool[np.ndarray, "height width"]
) -> UInt8[np.ndarray, "height width 3"]:
    """Return a picture whose letters are filled from around them (Telea 2004)."""
    filled: UInt8[np.ndarray, "_ _ 3"] = cv2.inpaint(
        picture, letters.astype(np.uint8), 3, cv2.INPAINT_TELEA
    )
    return filled


def _letters(
    picture: UInt8[np.ndarray, "height width 3"], window_px: int
) -> Bool[np.ndarray, "height width"]:
    """Return what differs from the middle colour of its surroundings."""
    ground = cv2.medianBlur(picture, window_px)
    far: Bool[np.ndarray, "height width"] = cv2.absdiff(picture, ground).max(axis=2) > _CONTRAST
    return far


def _widened(corners: Float32[np.ndarray, "4 2"]) -> Float32[np.ndarray, "4 2"]:
    """Move the corners of a line outwards."""
    centre = corners.mean(axis=0)
    height = float(np.linalg.norm(corners[3] - corners[0]))
    away = corners - centre
    length = np.linalg.norm(away, axis=1, keepdims=True)
    wider: Float32[np.ndarray, "4 2"] = corners + away / np.maximum(length, 1e-6) * (
        2**0.5 * _MARGIN * height
    )
    return wider
