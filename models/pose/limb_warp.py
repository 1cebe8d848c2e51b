"""Move a picture's body parts onto a driven pose, part by part: a rough first draft of each frame.

Each limb, the torso and the head of the reference picture are mapped by an affine transform of
their own to where the driven pose has them; the place they leave is filled from around it. What
the reference does not show stays as it is. After the spatial part transforms of Balakrishnan et
al. 2018 (https://arxiv.org/abs/1804.07739), with masks drawn around the keypoints.
"""

import cmath
import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from animaray.models.pose.layouts import VISIBLE_CONFIDENCE

NOSE, NECK = 0, 1
SHOULDERS, HIPS = (2, 5), (8, 11)
HEAD_POINTS = (0, 1, 14, 15, 16, 17)
_LIMBS = (
    (9, 10, 0.17, 0.35),
    (12, 13, 0.17, 0.35),
    (8, 9, 0.22, 0.0),
    (11, 12, 0.22, 0.0),
)
"""Legs: from, to, half width in body units, and how far it goes on behind its end."""
_ARMS = ((2, 3, 0.21, 0.0), (5, 6, 0.21, 0.0), (3, 4, 0.16, 0.45), (6, 7, 0.16, 0.45))
_MAX_STRETCH = 3.0
_MAX_HEAD_TURN_RAD = 0.5
"""In the picture's plane: points of a head that turns aside look like a much larger turn."""
_SHORTEST = 0.12
"""A limb below this many body units is seen from its end: it keeps its width's scale."""
_FILL_MARGIN = 0.08
"""The hole left by the body reaches this much further, in body units."""
_FILL_SIZE_PX = 96
"""Holes are filled at this size: what belongs there is not known anyway."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BodyPose:
    """One person's keypoints in one picture."""

    keypoints: Float[np.ndarray, "18 2"]
    """Pixels."""
    confidence: Float[np.ndarray, " 18"]
    """In [0, 1]."""

    @property
    def visible(self) -> Bool[np.ndarray, " 18"]:
        """Which keypoints are there."""
        return self.confidence >= VISIBLE_CONFIDENCE

    def unit(self) -> float:
        """Return the body's size: about the width of its shoulders, however it is turned."""
        points, seen = self.keypoints, self.visible
        lengths = [
            _distance(points, a, b) * factor
            for a, b, factor in ((2, 5, 1.0), (1, 8, 0.7), (1, 11, 0.7), (0, 1, 1.3), (16, 17, 1.5))
            if seen[a] and seen[b]
        ]
        return max(lengths, default=0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class MovedPicture:
    """A draft of one frame, and what it is made of."""

    picture_uint8: UInt8[np.ndarray, "height width 3"]
    """Moved parts over the filled background."""
    moved: UInt8[np.ndarray, "height width"]
    """255 where a moved part is."""
    left: UInt8[np.ndarray, "height width"]
    """255 where the body was in the reference and no part came: the content is a guess."""


class LimbWarp:
    """Moves one picture's people; the background is filled once."""

    def __init__(
        self, picture_uint8: UInt8[np.ndarray, "height width 3"], people: list[BodyPose]
    ) -> None:
        """Find the parts of the reference.

        Args:
            picture_uint8: Reference picture, RGB.
            people: Everybody who moves.
        """
        self._picture = picture_uint8
        self._people = people
        height, width = picture_uint8.shape[:2]
        self._hole = np.zeros((height, width), np.uint8)
        for person in people:
            margin = _FILL_MARGIN * person.unit()
            for part in _parts(person, person):
                part.draw(self._hole, margin)
        self._background = _fill(picture_uint8, self._hole)

    def move(self, driven: list[BodyPose]) -> MovedPicture:
        """Return the draft of one frame.

        Args:
            driven: Where the people of the reference are now, in the same order.
        """
        height, width = self._hole.shape
        picture = self._background.copy()
        moved = np.zeros((height, width), np.uint8)
        for reference, target in zip(self._people, driven, strict=True):
            for part in _parts(reference, target):
                mask = np.zeros((height, width), np.uint8)
                part.draw(mask, 0.0)
                warped = cv2.warpAffine(
                    self._picture,
                    part.transform,
                    (width, height),
                    flags=cv2.INTER_LINEAR,
                    borderMode=cv2.BORDER_REPLICATE,
                )
                cv2.copyTo(warped, mask, picture)
                cv2.bitwise_or(moved, mask, moved)
        left = cv2.bitwise_and(self._hole, cv2.bitwise_not(moved))
        return MovedPicture(picture_uint8=picture, moved=moved, left=left)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """One body part: how it moves, and its outline in the driven picture."""

    transform: Float[np.ndarray, "2 3"]
    outline: Float[np.ndarray, "points 2"]
    radius: float
    """Half width of the outline's stroke, pixels."""

    def draw(self, mask: UInt8[np.ndarray, "height width"], margin: float) -> None:
        """Set the part's pixels to 255."""
        points = np.clip(np.round(self.outline), -4096, 4096).astype(np.int32)
        thickness = max(1, round(2 * (self.radius + margin)))
        if len(points) > 2:
            cv2.fillConvexPoly(mask, cv2.convexHull(points), 255)
        cv2.polylines(mask, [points], len(points) > 2, 255, thickness)


def _parts(reference: BodyPose, driven: BodyPose) -> Iterator[_Part]:
    """Yield the parts that both poses show, the nearest to the viewer last."""
    unit = reference.unit()
    if unit <= 0 or driven.unit() <= 0:
        return
    seen = reference.visible & driven.visible
    for limb in _LIMBS:
        if seen[limb[0]] and seen[limb[1]]:
            yield _limb(reference, driven, limb, unit)
    yield from _torso(reference, driven, unit)
    yield from _head(reference, driven, unit)
    for limb in _ARMS:
        if seen[limb[0]] and seen[limb[1]]:
            yield _limb(reference, driven, limb, unit)


def _limb(
    reference: BodyPose, driven: BodyPose, limb: tuple[int, int, float, float], unit: float
) -> _Part:
    first, last, half_width, beyond = limb
    across = _bounded(driven.unit() / unit)
    source = reference.keypoints[[first, last]].astype(np.float64)
    target = driven.keypoints[[first, last]].astype(np.float64)
    turn = _turn_and_stretch(source, target, across, _SHORTEST * unit)
    direction, _ = _axis(target, _SHORTEST * unit)
    end = target[1] + direction * beyond * unit * across
    return _Part(
        transform=_affine(turn, source[0], target[0]),
        outline=np.stack([target[0], end]),
        radius=half_width * unit * across,
    )


def _torso(reference: BodyPose, driven: BodyPose, unit: float) -> Iterator[_Part]:
    seen = reference.visible & driven.visible
    if not all(seen[list(SHOULDERS)]):
        return
    corners = [*SHOULDERS, *HIPS]
    across = _bounded(driven.unit() / unit)
    if all(seen[list(HIPS)]):
        source, target = reference.keypoints[corners], driven.keypoints[corners]
        transform = _least_squares(source, target)
    else:
        source, target = reference.keypoints[list(SHOULDERS)], driven.keypoints[list(SHOULDERS)]
        turn = _turn_and_stretch(
            source.astype(np.float64), target.astype(np.float64), across, _SHORTEST * unit
        )
        transform = _affine(turn, source.mean(0), target.mean(0))
        # The hips are taken to lie below the shoulders, as far as the picture shows them.
        down = np.array([[0.0, 1.6 * unit], [0.0, 1.6 * unit]]) + source
        target = np.concatenate([target, down @ transform[:, :2].T + transform[:, 2]])
    yield _Part(transform=transform, outline=target, radius=0.14 * unit * across)


def _head(reference: BodyPose, driven: BodyPose, unit: float) -> Iterator[_Part]:
    """Yield the head; it turns, shifts and scales as its points do."""
    seen = reference.visible & driven.visible
    points = [point for point in HEAD_POINTS if seen[point]]
    if NOSE not in points or len(points) < 2:
        return
    source, target = reference.keypoints[points], driven.keypoints[points]
    transform = _similarity(source, target, _MAX_HEAD_TURN_RAD)
    scale = float(np.hypot(*transform[:, 0]))
    face = [point for point in points if point != NECK]
    centre = reference.keypoints[face].mean(0)
    up = np.array([0.0, -1.0])
    size = 0.5 * unit
    if NECK in points:
        upwards = centre - reference.keypoints[NECK]
        if (length := float(np.linalg.norm(upwards))) > _SHORTEST * unit:
            up, size = upwards / length, 0.75 * length
    ends = np.stack([centre - 0.15 * size * up, centre + 0.45 * size * up])
    moved = ends @ transform[:, :2].T + transform[:, 2]
    yield _Part(transform=transform, outline=moved, radius=size * scale)


def _distance(points: Float[np.ndarray, "18 2"], first: int, last: int) -> float:
    return float(np.linalg.norm(points[first] - points[last]))


def _axis(ends: Float[np.ndarray, "2 2"], shortest: float) -> tuple[Float[np.ndarray, " 2"], float]:
    """Return direction and length of a limb; one that points at the viewer hangs down."""
    along = ends[1] - ends[0]
    length = float(np.linalg.norm(along))
    if length < 1e-3:
        return np.array([0.0, 1.0]), shortest
    return along / length, max(length, shortest)


def _turn_and_stretch(
    source: Float[np.ndarray, "2 2"],
    target: Float[np.ndarray, "2 2"],
    across: float,
    shortest: float,
) -> Float[np.ndarray, "2 2"]:
    """Map one pair of ends onto another along them, and scale by a factor across them."""
    source_axis, source_length = _axis(source, shortest)
    target_axis, target_length = _axis(target, shortest)
    scale = np.diag([_bounded(target_length / source_length), across])
    return _frame(target_axis) @ scale @ _frame(source_axis).T


def _bounded(factor: float) -> float:
    """Return a scale that no part is stretched or shrunk beyond."""
    return min(max(factor, 1 / _MAX_STRETCH), _MAX_STRETCH)


def _frame(axis: Float[np.ndarray, " 2"]) -> Float[np.ndarray, "2 2"]:
    return np.array([[axis[0], -axis[1]], [axis[1], axis[0]]])


def _affine(
    turn: Float[np.ndarray, "2 2"], source: Float[np.ndarray, " 2"], target: Float[np.ndarray, " 2"]
) -> Float[np.ndarray, "2 3"]:
    return np.column_stack([turn, target - turn @ source])


def _similarity(
    source: Float[np.ndarray, "n 2"],
    target: Float[np.ndarray, "n 2"],
    max_turn_rad: float = math.pi,
) -> Float[np.ndarray, "2 3"]:
    """Fit turn, scale and shift by least squares; one complex factor (no reflection)."""
    a = (source - source.mean(0)).astype(np.float64) @ np.array([1, 1j])
    b = (target - target.mean(0)).astype(np.float64) @ np.array([1, 1j])
    factor = (a.conj() @ b) / max(float((a.conj() @ a).real), 1e-6)
    size = _bounded(abs(factor))
    angle = min(max(cmath.phase(factor), -max_turn_rad), max_turn_rad)
    factor = cmath.rect(size, angle)
    turn = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    return _affine(turn, source.mean(0), target.mean(0))


def _least_squares(
    source: Float[np.ndarray, "n 2"], target: Float[np.ndarray, "n 2"]
) -> Float[np.ndarray, "2 3"]:
    """Fit an affine transform, drawn a little towards the similarity so that it cannot collapse."""
    plain = _similarity(source, target)
    scale = 0.1 * float(np.abs(source - source.mean(0)).mean() + 1.0)
    rows = np.column_stack([source, np.ones(len(source))])
    system = np.concatenate([rows, scale * np.eye(3)[:2]])
    wanted = np.concatenate([target, scale * plain[:, :2].T])
    return np.linalg.lstsq(system, wanted, rcond=None)[0].T


def _fill(
    picture_uint8: UInt8[np.ndarray, "height width 3"], hole: UInt8[np.ndarray, "height width"]
) -> UInt8[np.ndarray, "height width 3"]:
    """Fill a hole from its surroundings (Telea 2004), at a small size."""
    height, width = hole.shape
    factor = min(1.0, _FILL_SIZE_PX / min(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = cv2.resize(picture_uint8, size, interpolation=cv2.INTER_AREA)
    small_hole = cv2.resize(hole, size, interpolation=cv2.INTER_AREA)
    filled = cv2.inpaint(small, (small_hole > 0).astype(np.uint8), 3, cv2.INPAINT_TELEA)
    grown = cv2.resize(filled, (width, height), interpolation=cv2.INTER_LINEAR)
    background = picture_uint8.copy()
    cv2.copyTo(grown, hole, background)
    return background
