"""Draw keypoints as the picture that PoseNet reads.

`published` reproduces the released code bit by bit: everything is drawn on a canvas whose shorter
side is 2160 pixels and resized, which takes tens of milliseconds and leaves broken lines below some
500 pixels. `bold` draws proportional lines on twice the wanted size, for small pictures.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from animaray.models.pose.layouts import LIMBS, PALETTE, VISIBLE_CONFIDENCE

PoseStyle = Literal["auto", "bold", "published"]
"""`auto` is `bold` below BOLD_BELOW_PX, else `published`."""

BOLD_BELOW_PX = 320
"""Shorter side from which on the published drawing is unbroken."""
CANVAS_PX = 2160
"""Shorter side of the published canvas."""
BOLD_RADIUS = 0.012
"""Half width of a bold limb, in shorter sides."""
HAND_EDGES = tuple(
    (finger + joint - 1 if joint else 0, finger + joint)
    for finger in (1, 5, 9, 13, 17)
    for joint in range(4)
)
"""The 20 bones of a hand, finger by finger from the wrist (point 0)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WholeBody:
    """One person's keypoints in pixels, with hands and face where a detector gives them."""

    body: Float[np.ndarray, "18 2"]
    """OpenPose order."""
    body_confidence: Float[np.ndarray, " 18"]
    """In [0, 1]."""
    hands: Float[np.ndarray, "2 21 2"] | None = None
    """Left and right hand."""
    hands_confidence: Float[np.ndarray, "2 21"] | None = None
    """In [0, 1]."""
    face: Float[np.ndarray, "68 2"] | None = None
    """Face points."""
    face_confidence: Float[np.ndarray, " 68"] | None = None
    """In [0, 1]."""


def draw_pose(
    keypoints: Float[np.ndarray, "18 2"],
    confidence: Float[np.ndarray, " 18"],
    width: int,
    height: int,
    style: PoseStyle = "auto",
) -> UInt8[np.ndarray, "height width 3"]:
    """Draw one body.

    Args:
        keypoints: Pixels of the picture to draw.
        confidence: In [0, 1]; limbs are as bright as their ends are certain.
        width: Of the picture, pixels.
        height: Of the picture, pixels.
        style: See the module's description.
    """
    is_bold = style == "bold" or (style == "auto" and min(width, height) < BOLD_BELOW_PX)
    if is_bold:
        return _draw_bold(keypoints, confidence, width, height)
    return draw_people([WholeBody(body=keypoints, body_confidence=confidence)], width, height)


def draw_pose_clip(
    keypoints: Float[np.ndarray, "frames 18 2"],
    confidence: Float[np.ndarray, "frames 18"],
    width: int,
    height: int,
    style: PoseStyle = "auto",
) -> UInt8[np.ndarray, "frames height width 3"]:
    """Draw one body per frame; arguments as for `draw_pose`."""
    pictures = [
        draw_pose(points, certain, width, height, style)
        for points, certain in zip(keypoints, confidence, strict=True)
    ]
    return np.stack(pictures)


def pose_images_to_tensor(
    pictures: UInt8[np.ndarray, "frames height width 3"],
) -> Float[Tensor, "frames 3 height width"]:
    """Return pose pictures as PoseNet takes them: channels first, in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def _draw_bold(
    keypoints: Float[np.ndarray, "18 2"],
    confidence: Float[np.ndarray, " 18"],
    width: int,
    height: int,
) -> UInt8[np.ndarray, "height width 3"]:
    """Draw limbs of proportional width, at twice the size and averaged down."""
    canvas = np.zeros((2 * height, 2 * width, 3), np.uint8)
    radius = 2 * BOLD_RADIUS * min(width, height)
    points = 2.0 * keypoints + 0.5
    for (start, end), colour in zip(LIMBS, PALETTE, strict=False):
        certain = float(confidence[start]), float(confidence[end])
        if min(certain) < VISIBLE_CONFIDENCE:
            continue
        shade = _shade(colour, 0.6 * certain[0] * certain[1])
        ends = [tuple(round(float(x)) for x in points[index]) for index in (start, end)]
        cv2.line(canvas, ends[0], ends[1], shade, max(1, round(2 * radius)), cv2.LINE_8)
    for point, certain_point, colour in zip(points, confidence, PALETTE, strict=True):
        if certain_point >= VISIBLE_CONFIDENCE:
            centre = round(float(point[0])), round(float(point[1]))
            shade = _shade(colour, float(certain_point))
            cv2.circle(canvas, centre, max(1, round(1.2 * radius)), shade, thickness=-1)
    return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)


def draw_people(
    people: Sequence[WholeBody], width: int, height: int
) -> UInt8[np.ndarray, "height width 3"]:
    """Draw people as the released code does, with hands and faces where given.

    Args:
        people: Keypoints in pixels of the picture to draw.
        width: Of the picture, pixels.
        height: Of the picture, pixels.
    """
    ratio = CANVAS_PX / min(width, height)
    canvas = np.zeros((int(height * ratio), int(width * ratio), 3), np.uint8)
    size = np.array([canvas.shape[1] / width, canvas.shape[0] / height])
    for limb, colour in zip(LIMBS, PALETTE, strict=False):
        for person in people:
            _draw_limb(canvas, person.body * size, person.body_confidence, limb, colour)
    canvas = (canvas * 0.6).astype(np.uint8)
    for index, colour in enumerate(PALETTE):
        for person in people:
            certain = float(person.body_confidence[index])
            if certain > VISIBLE_CONFIDENCE:
                _draw_dot(canvas, person.body[index] * size, 4, _shade(colour, certain))
    for side in (0, 1):  # all left hands come first
        for person in people:
            _draw_hand(canvas, person, side, size)
    for person in people:
        _draw_face(canvas, person, size)
    return cv2.resize(canvas, (width, height))


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
    person: WholeBody,
    side: int,
    size: Float[np.ndarray, " 2"],
) -> None:
    """Draw what of a hand does not touch the picture's left or top edge."""
    if person.hands is None or person.hands_confidence is None:
        return
    hand, confidence = person.hands[side] * size, person.hands_confidence[side]
    for edge, (start, end) in enumerate(HAND_EDGES):
        ends = hand[[start, end]].astype(int)
        if (ends > 0).all():
            shade = _hue(edge / len(HAND_EDGES), float(confidence[start] * confidence[end]))
            cv2.line(canvas, ends[0].tolist(), ends[1].tolist(), shade, thickness=2)
    for point, certain in zip(hand, confidence, strict=True):
        if (point.astype(int) > 0).all():
            _draw_dot(canvas, point, 4, (0, 0, int(certain * 255)))


def _draw_face(
    canvas: UInt8[np.ndarray, "canvas_height canvas_width 3"],
    person: WholeBody,
    size: Float[np.ndarray, " 2"],
) -> None:
    if person.face is None or person.face_confidence is None:
        return
    for point, certain in zip(person.face * size, person.face_confidence, strict=True):
        if (point.astype(int) > 0).all():
            grey = int(certain * 255)
            _draw_dot(canvas, point, 3, (grey, grey, grey))


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
