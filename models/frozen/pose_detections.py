"""Decode the person detector of MediaPipe's pose: anchors, scores, merging, tiles.

References:
    Bazarevsky et al. 2019, "BlazeFace", arXiv 1907.05047 (anchors, blending instead of dropping).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

DETECTOR_SIDE_PX = 224
_ANCHORS_OF_STRIDE = ((8, 2), (16, 2), (32, 6))
_SAME_PERSON_IOU = 0.3
_TILE_OVERLAP = 1 / 3


@dataclass(frozen=True, kw_only=True, slots=True)
class PersonDetection:
    """One person as the detector sees it."""

    box: Float32[np.ndarray, " 4"]
    """Left, top, right, bottom of the face and shoulders region, pixels."""
    score: float
    """In [0, 1]."""
    centre: Float32[np.ndarray, " 2"]
    """Middle of the hips, pixels."""
    rim: Float32[np.ndarray, " 2"]
    """A point whose distance and direction from the centre give the body's size and turn."""

    def moved(self, offset: Float32[np.ndarray, " 2"], scale: float) -> "PersonDetection":
        """Return the detection with `(point + offset) * scale` applied to every point."""
        both = np.concatenate([offset, offset])
        return PersonDetection(
            box=((self.box + both) * scale).astype(np.float32),
            score=self.score,
            centre=((self.centre + offset) * scale).astype(np.float32),
            rim=((self.rim + offset) * scale).astype(np.float32),
        )


def _make_anchors() -> Float32[np.ndarray, "anchors 2"]:
    """Return the anchor centres in detector pixels, in the order of the network's outputs."""
    centres = []
    for stride, repeats in _ANCHORS_OF_STRIDE:
        cells = (np.arange(DETECTOR_SIDE_PX // stride, dtype=np.float32) + 0.5) * stride
        y, x = np.meshgrid(cells, cells, indexing="ij")
        centres.append(np.repeat(np.stack([x, y], axis=-1).reshape(-1, 2), repeats, axis=0))
    return np.concatenate(centres).astype(np.float32)


_ANCHORS = _make_anchors()


def decode_detections(
    rows: Float32[np.ndarray, "anchors 12"],
    logits: Float32[np.ndarray, " anchors"],
    min_score: float,
) -> list[PersonDetection]:
    """Return the people that the detector's raw outputs describe, best score first.

    Args:
        rows: Per anchor, relative to its centre: box centre, box size, four points; pixels.
        logits: Score per anchor before the sigmoid.
        min_score: Anchors below this score in [0, 1] are ignored.

    Overlapping anchors (IoU above 0.3) are blended, weighted by score.
    """
    scores = 1.0 / (1.0 + np.exp(-np.clip(logits, -60.0, 60.0)))
    chosen = np.flatnonzero(scores >= min_score)
    chosen = chosen[np.argsort(-scores[chosen], kind="stable")]
    scores, rows, anchors = scores[chosen], rows[chosen], _ANCHORS[chosen]
    middle, half = rows[:, 0:2] + anchors, rows[:, 2:4] / 2
    hips, rims = rows[:, 4:6] + anchors, rows[:, 6:8] + anchors
    table = np.concatenate([middle - half, middle + half, hips, rims], axis=1)
    found = []
    remaining = np.arange(len(table))
    while len(remaining):
        best = remaining[0]
        is_same = _overlaps(table[best, :4], table[remaining, :4]) > _SAME_PERSON_IOU
        is_same[0] = True
        group = remaining[is_same]
        row = np.average(table[group], axis=0, weights=scores[group]).astype(np.float32)
        found.append(
            PersonDetection(box=row[:4], score=float(scores[best]), centre=row[4:6], rim=row[6:8])
        )
        remaining = remaining[~is_same]
    return found


def _overlaps(
    box: Float32[np.ndarray, " 4"], others: Float32[np.ndarray, "boxes 4"]
) -> Float32[np.ndarray, " boxes"]:
    """Return intersection over union of one box with others."""
    corner = np.maximum(box[:2], others[:, :2])
    extent = np.clip(np.minimum(box[2:], others[:, 2:]) - corner, 0.0, None)
    shared = extent.prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1)
    union = (box[2:] - box[:2]).prod() + areas - shared
    return shared / np.maximum(union, 1e-6)


def tiles_of(width: int, height: int) -> list[tuple[int, int, int]]:
    """Return overlapping square tiles (x, y, side) that cover a picture, for far people.

    The side is the picture's short side, or 0.6 of it where the picture is nearly square.
    """
    short, long = min(width, height), max(width, height)
    side = short if long >= 1.25 * short else round(0.6 * short)
    return [(x, y, side) for y in _tile_starts(height, side) for x in _tile_starts(width, side)]


def _tile_starts(length: int, side: int) -> list[int]:
    """Return evenly spread starts so that neighbours overlap by at least a third."""
    if length <= side:
        return [0]
    count = 1 + int(np.ceil((length - side) / (side * (1.0 - _TILE_OVERLAP))))
    return [round(start) for start in np.linspace(0, length - side, count)]
