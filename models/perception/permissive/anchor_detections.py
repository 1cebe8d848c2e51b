"""Decode MediaPipe's detectors of people, faces and palms: anchors, scores, merging, tiles.

References:
    Bazarevsky et al. 2019, "BlazeFace", arXiv 1907.05047 (anchors, blending instead of dropping).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from animaray.models.perception.permissive.picture_network import probability

_SAME_THING_IOU = 0.3
_TILE_OVERLAP = 1 / 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Detection:
    """One thing as a detector sees it."""

    box: Float32[np.ndarray, " 4"]
    """Left, top, right, bottom, pixels; of a person only face and shoulders."""
    score: float
    """In [0, 1]."""
    points: Float32[np.ndarray, "points 2"]
    """What the detector marks, pixels."""

    def moved(self, offset: Float32[np.ndarray, " 2"], scale: float) -> "Detection":
        """Return the detection with `(point + offset) * scale` applied to every point."""
        return Detection(
            box=((self.box + np.concatenate([offset, offset])) * scale).astype(np.float32),
            score=self.score,
            points=((self.points + offset) * scale).astype(np.float32),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class AnchorLayout:
    """How a detector's rows lie in its picture."""

    side_px: int
    """Side of the detector's picture."""
    num_points: int
    """Points that each row marks; further ones are not read."""
    strides: tuple[tuple[int, int], ...]
    """Pixels between anchors, and how many anchors share a place."""

    def centres(self) -> Float32[np.ndarray, "anchors 2"]:
        """Return the anchor centres in detector pixels, in the order of the outputs."""
        centres = []
        for stride, repeats in self.strides:
            cells = (np.arange(self.side_px // stride, dtype=np.float32) + 0.5) * stride
            y, x = np.meshgrid(cells, cells, indexing="ij")
            centres.append(np.repeat(np.stack([x, y], axis=-1).reshape(-1, 2), repeats, axis=0))
        return np.concatenate(centres).astype(np.float32)


class AnchorDecoder:
    """Turn a detector's raw outputs into what they describe."""

    def __init__(self, layout: AnchorLayout) -> None:
        self.layout = layout
        self._centres = layout.centres()

    def decode(
        self,
        rows: Float32[np.ndarray, "anchors numbers"],
        logits: Float32[np.ndarray, " anchors"],
        min_score: float,
    ) -> list[Detection]:
        """Return the detections, best score first.

        Args:
            rows: Per anchor, relative to its centre: box centre, box size, points; pixels.
            logits: Score per anchor before the sigmoid.
            min_score: Anchors below this score in [0, 1] are ignored.

        Overlapping anchors (IoU above 0.3) are blended, weighted by score.
        """
        scores = probability(logits)
        chosen = np.flatnonzero(scores >= min_score)
        chosen = chosen[np.argsort(-scores[chosen], kind="stable")]
        scores, table = scores[chosen], self._table(rows[chosen], self._centres[chosen])
        found = []
        remaining = np.arange(len(table))
        while len(remaining):
            best = remaining[0]
            is_same = _overlaps(table[best, :4], table[remaining, :4]) > _SAME_THING_IOU
            is_same[0] = True
            group = remaining[is_same]
            row = np.average(table[group], axis=0, weights=scores[group]).astype(np.float32)
            found.append(
                Detection(box=row[:4], score=float(scores[best]), points=row[4:].reshape(-1, 2))
            )
            remaining = remaining[~is_same]
        return found

    def _table(
        self,
        rows: Float32[np.ndarray, "chosen numbers"],
        centres: Float32[np.ndarray, "chosen 2"],
    ) -> Float32[np.ndarray, "chosen columns"]:
        """Return corners of the box and all points of each row, detector pixels."""
        middle, half = rows[:, 0:2] + centres, rows[:, 2:4] / 2
        last = 4 + 2 * self.layout.num_points
        points = rows[:, 4:last] + np.tile(centres, self.layout.num_points)
        return np.concatenate([middle - half, middle + half, points], axis=1)


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


def distinct(found: Sequence[Detection]) -> list[Detection]:
    """Return detections without those that overlap a better one, best score first."""
    kept: list[Detection] = []
    for each in sorted(found, key=lambda one: one.score, reverse=True):
        if not kept or (
            _overlaps(each.box, np.stack([one.box for one in kept])).max() <= _SAME_THING_IOU
        ):
            kept.append(each)
    return kept


def letterbox(
    picture: UInt8[np.ndarray, "height width 3"], side_px: int
) -> tuple[UInt8[np.ndarray, "side side 3"], Float32[np.ndarray, " 2"], float]:
    """Return a picture shrunk into the middle of a black square, its left top corner and scale.

    Args:
        picture: RGB, of any shape.
    """
    height, width = picture.shape[:2]
    scale = side_px / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    shrunk = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    left, top = (side_px - size[0]) // 2, (side_px - size[1]) // 2
    square = np.zeros((side_px, side_px, 3), dtype=np.uint8)
    square[top : top + size[1], left : left + size[0]] = shrunk
    return square, np.array([left, top], dtype=np.float32), scale


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
