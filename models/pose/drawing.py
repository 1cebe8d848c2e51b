"""Draw keypoints as the picture that PoseNet reads.

`published` reproduces the released code bit by bit: everything is drawn on a canvas whose shorter
side is 2160 pixels and resized, which takes tens of milliseconds and leaves broken lines below some
500 pixels. `bold` draws proportional lines on twice the wanted size, for small pictures.

Whoever trains, encodes, animates or exports draws with `draw_pose_clip` or `draw_people`, so that a
model is shown the same picture for the same keypoints everywhere. The layout says how much is
drawn: the body, or also hands and face where a pose has them. Feet are never drawn, as published.
"""

import math
from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from animaray.models.pose.further_points import HasPose
from animaray.models.pose.layouts import (
    FACE,
    HAND_EDGES,
    LEFT_HAND,
    LIMBS,
    PALETTE,
    RIGHT_HAND,
    VISIBLE_CONFIDENCE,
    PoseLayout,
)

PoseStyle = Literal["auto", "bold", "published"]
"""`auto` is `bold` below BOLD_BELOW_PX, else `published`."""

BOLD_BELOW_PX = 320
"""Shorter side from which on the published drawing is unbroken."""
CANVAS_PX = 2160
"""Shorter side of the published canvas."""
BOLD_RADIUS = 0.012
"""Half width of a bold limb, in shorter sides."""
_BOLD_HAND_SHARE = 0.3
"""Half width of a bold finger, and radius of a bold face point, in those of a limb."""


class _Skeleton:
    """One person in one picture, as it is drawn."""

    def __init__(self, person: HasPose, layout: PoseLayout, frame: int | None = None) -> None:
        """Take one frame of a person's poses, or the only one.

        Args:
            person: Keypoints in pixels.
            layout: How much of it is drawn.
            frame: Which pose; None for somebody with one.
        """
        further = None if layout == "openpose_18" else person.further_points
        pose = () if frame is None else frame
        self.body = np.asarray(person.keypoints)[pose]
        self.confidence = np.asarray(person.keypoint_confidence)[pose]
        self._further = None if further is None else np.asarray(further)[pose]

    def part(self, points: slice) -> Float[np.ndarray, "points 3"] | None:
        """Return a hand or the face; None where it is not to be drawn or not seen at all."""
        if self._further is None:
            return None
        part = self._further[points]
        return part if (part[:, 2] > 0).any() else None


def draw_people(
    people: Sequence[HasPose],
    width: int,
    height: int,
    layout: PoseLayout,
    style: PoseStyle = "auto",
) -> UInt8[np.ndarray, "height width 3"]:
    """Draw the people of one picture.

    Where people cross, the later of equal parts covers the earlier, as published; of bold people
    the brighter wins.

    Args:
        width: Of the picture, pixels.
        height: Of the picture, pixels.
        layout: What the model was trained with (`AnimatorConfig.pose_layout`).
        style: See the module's description.
    """
    return _draw([_Skeleton(person, layout) for person in people], width, height, style)


def draw_pose_clip(
    people: Sequence[HasPose],
    width: int,
    height: int,
    layout: PoseLayout,
    style: PoseStyle = "auto",
) -> UInt8[np.ndarray, "frames height width 3"]:
    """Draw people frame by frame; arguments as for `draw_people`, with equally many poses each."""
    pictures = [
        _draw([_Skeleton(person, layout, frame) for person in people], width, height, style)
        for frame in range(len(people[0].keypoints))
    ]
    return np.stack(pictures)


def _draw(
    people: Sequence[_Skeleton], width: int, height: int, style: PoseStyle
) -> UInt8[np.ndarray, "height width 3"]:
    if style == "bold" or (style == "auto" and min(width, height) < BOLD_BELOW_PX):
        drawn = [_draw_bold(person, width, height) for person in people]
        return np.maximum.reduce(drawn)
    return _draw_published(people, width, height)


def _draw_bold(person: _Skeleton, width: int, height: int) -> UInt8[np.ndarray, "height width 3"]:
    """Draw limbs of proportional width, at twice the size and averaged down."""
    canvas = np.zeros((2 * height, 2 * width, 3), np.uint8)
    radius = 2 * BOLD_RADIUS * min(width, height)
    points = 2.0 * person.body + 0.5
    for (start, end), colour in zip(LIMBS, PALETTE, strict=False):
        certain = float(person.confidence[start]), float(person.confidence[end])
        if min(certain) < VISIBLE_CONFIDENCE:
            continue
        shade = _shade(colour, 0.6 * certain[0] * certain[1])
        ends = [tuple(round(float(x)) for x in points[index]) for index in (start, end)]
        cv2.line(canvas, ends[0], ends[1], shade, max(1, round(2 * radius)), cv2.LINE_8)
    for point, certain_point, colour in zip(points, person.confidence, PALETTE, strict=True):
        if certain_point >= VISIBLE_CONFIDENCE:
            centre = round(float(point[0])), round(float(point[1]))
            shade = _shade(colour, float(certain_point))
            cv2.circle(canvas, centre, max(1, round(1.2 * radius)), shade, thickness=-1)
    thin = max(1, round(_BOLD_HAND_SHARE * radius))
    for side in (LEFT_HAND, RIGHT_HAND):
        _draw_hand(canvas, _scaled(person.part(side), np.full(2, 2.0)), radius=thin, line=thin)
    _draw_face(canvas, _scaled(person.part(FACE), np.full(2, 2.0)), radius=thin)
    return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)


def _draw_published(
    people: Sequence[_Skeleton], width: int, height: int
) -> UInt8[np.ndarray, "height width 3"]:
    """Draw as the released code does: limb by limb, and of each limb person by person."""
    ratio = CANVAS_PX / min(width, height)
    canvas = np.zeros((int(height * ratio), int(width * ratio), 3), np.uint8)
    size = np.array([canvas.shape[1] / width, canvas.shape[0] / height])
    for limb, colour in zip(LIMBS, PALETTE, strict=False):
        for person in people:
            _draw_limb(canvas, person.body * size, person.confidence, limb, colour)
    canvas = (canvas * 0.6).astype(np.uint8)
    for index, colour in enumerate(PALETTE):
        for person in people:
            certain = float(person.confidence[index])
            if certain > VISIBLE_CONFIDENCE:
                _draw_dot(canvas, person.body[index] * size, 4, _shade(colour, certain))
    for side in (LEFT_HAND, RIGHT_HAND):  # all left hands come first
        for person in people:
            _draw_hand(canvas, _scaled(person.part(side), size), radius=4, line=2)
    for person in people:
        _draw_face(canvas, _scaled(person.part(FACE), size), radius=3)
    return cv2.resize(canvas, (width, height))


def _scaled(
    part: Float[np.ndarray, "points 3"] | None, size: Float[np.ndarray, " 2"]
) -> Float[np.ndarray, "points 3"] | None:
    """Return points of the picture on a canvas, with their confidence."""
    return None if part is None else part.astype(np.float64) * [*size, 1.0]


def _draw_limb(
    canvas: UInt8[np.ndarray, "canvas_height canvas_width 3"],
    points: Float[np.ndarray, "18 2"],
    confidence: Float[np.ndarray, " 18"],
    limb: tuple[int, int],
    colour: tuple[int, int, int],
) -> None:
    start, end = limb
    certain = float(confidence[start]), float(confidence[end])
    if min(certain) < VISIBLE_CONFIDENCE:
        return
    (x0, y0), (x1, y1) = points[start].tolist(), points[end].tolist()
    centre = int((x0 + x1) / 2), int((y0 + y1) / 2)
    length = math.hypot(y0 - y1, x0 - x1)
    angle = int(math.degrees(math.atan2(y0 - y1, x0 - x1)))
    polygon = cv2.ellipse2Poly(centre, (int(length / 2), 4), angle, 0, 360, 1)
    cv2.fillConvexPoly(canvas, polygon, _shade(colour, certain[0] * certain[1]))


def _draw_hand(
    canvas: UInt8[np.ndarray, "canvas_height canvas_width 3"],
    hand: Float[np.ndarray, "21 3"] | None,
    *,
    radius: int,
    line: int,
) -> None:
    """Draw what of a hand does not touch the picture's left or top edge."""
    if hand is None:
        return
    for edge, (start, end) in enumerate(HAND_EDGES):
        ends = hand[[start, end], :2].astype(int)
        if (ends > 0).all():
            shade = _hue(edge / len(HAND_EDGES), float(hand[start, 2] * hand[end, 2]))
            cv2.line(canvas, ends[0].tolist(), ends[1].tolist(), shade, thickness=line)
    for point in hand:
        if (point[:2].astype(int) > 0).all():
            _draw_dot(canvas, point[:2], radius, (0, 0, int(point[2] * 255)))


def _draw_face(
    canvas: UInt8[np.ndarray, "canvas_height canvas_width 3"],
    face: Float[np.ndarray, "68 3"] | None,
    *,
    radius: int,
) -> None:
    if face is None:
        return
    for point in face:
        if (point[:2].astype(int) > 0).all():
            grey = int(point[2] * 255)
            _draw_dot(canvas, point[:2], radius, (grey, grey, grey))


def _draw_dot(
    canvas: UInt8[np.ndarray, "canvas_height canvas_width 3"],
    point: Float[np.ndarray, " 2"],
    radius: int,
    colour: tuple[int, int, int],
) -> None:
    cv2.circle(canvas, (int(point[0]), int(point[1])), radius, colour, thickness=-1)


def _shade(colour: tuple[int, int, int], factor: float) -> tuple[int, int, int]:
    red, green, blue = (int(channel * factor) for channel in colour)
    return red, green, blue


def _hue(hue: float, factor: float) -> tuple[int, int, int]:
    """Return a fully saturated colour, dimmed after rounding as the released code does."""
    sector, rest = divmod(hue * 6.0, 1.0)
    rising, falling = rest, 1.0 - rest
    red, green, blue = (
        (1.0, rising, 0.0),
        (falling, 1.0, 0.0),
        (0.0, 1.0, rising),
        (0.0, falling, 1.0),
        (rising, 0.0, 1.0),
        (1.0, 0.0, falling),
    )[int(sector) % 6]
    scale = int(factor * 255)
    return round(red * scale), round(green * scale), round(blue * scale)
