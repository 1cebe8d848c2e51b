"""Cut the person into layers, each with its own texture, mesh and weights: body, arms."""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

from animaray.models.parts.labels import BODY, NUMBERS, label_parts
from animaray.models.parts.plate import spread_colours
from animaray.models.parts.rig import Rig
from animaray.models.parts.skin_weights import JointWeight, LegWeights, arm_weights, body_weights

LayerName = Literal["body", "right", "left"]
_SQUARE = np.ones((3, 3), np.uint8)
_WIDE, _WIDER = np.ones((5, 5), np.uint8), np.ones((9, 9), np.uint8)
_CELL = 0.075
"""Side of a mesh cell in units; at least 5 pixels."""
_HAND_REACH, _HAND_GAP = 0.3, 0.9
"""Of a hand that rests on the body, in units: how far around it hides, how much up and down."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """A part of the photo that is drawn in one go."""

    name: LayerName
    texture: Float32[np.ndarray, "height width 4"]
    """RGB times opacity, and opacity; both in [0, 255]."""
    vertices: Float64[np.ndarray, "vertices 2"]
    triangles: Int64[np.ndarray, "triangles 3"]
    depth_bias: Float64[np.ndarray, " triangles"]
    """Transparent triangles are drawn first."""
    joints: tuple[JointWeight, ...]
    """Of the arm; on the body what the arms pull along at the shoulders."""
    legs: tuple[LegWeights, ...]
    head: Float64[np.ndarray, " vertices"] | None
    """How far vertices follow the head; None for arms."""
    passes: tuple[Int64[np.ndarray, " _"], ...]
    """Triangles that are drawn together; later passes cover earlier ones. The last is the upper
    arm, or torso and head."""


def make_layers(
    picture: Float32[np.ndarray, "height width 3"],
    alpha: Float32[np.ndarray, "height width"],
    rig: Rig,
) -> list[Layer]:
    """Cut the body and each arm that can move.

    Args:
        picture: The padded photo, RGB in [0, 255].
        rig: Where the bones are.
    """
    labels = label_parts(picture, alpha, rig)
    inside = alpha > 0.5
    alpha = cv2.GaussianBlur(alpha, (0, 0), 0.7)
    core = cv2.erode((alpha > 0.93).astype(np.uint8), _SQUARE) > 0
    rows, columns = np.indices(alpha.shape)
    hands = _around_hands(labels.shape, rig)
    layers = []
    names: tuple[LayerName, ...] = ("body", *rig.arms)
    for name in names:
        own: Bool[np.ndarray, "height width"] = labels == (
            BODY if name == "body" else NUMBERS[name]
        )
        for side, path in rig.arms.items():
            if name in {"body", side}:  # both layers hold the shoulder, so that it never opens
                reach = (0.2 if name == "body" else 0.13) * rig.unit_px
                other = labels == (NUMBERS[side] if name == "body" else BODY)
                own |= (np.hypot(columns - path[0][0], rows - path[0][1]) < reach) & other
        source = known = core & own
        if name == "body":
            hidden = _hidden_body(labels, inside, hands, rig)
            own |= hidden  # one outline: two that meet would let the ground shine through
            rim, around = (
                cv2.dilate(hidden.astype(np.uint8), size) > 0 for size in (_WIDE, _WIDER)
            )
            known &= ~hidden
            source = known & ~rim
            known &= ~(rim & hands)  # a hand's colours and shadow mix into the cloth beside it
            source &= ~(around & hands)
        else:  # the same the other way round: a hand keeps no rim of the cloth it lay on
            beside = ((labels == BODY) & inside).astype(np.uint8)
            source = known = known & ~(hands & (cv2.dilate(beside, _WIDE) > 0))
        opacity = alpha * cv2.GaussianBlur(own.astype(np.float32), (0, 0), 0.8)
        texture = np.where(known[..., None], picture, spread_colours(picture, source))
        layers.append(_make_layer(name, texture, opacity, rig))
    return layers


def _make_layer(
    name: LayerName,
    texture: Float32[np.ndarray, "height width 3"],
    opacity: Float32[np.ndarray, "height width"],
    rig: Rig,
) -> Layer:
    cell = max(5, int(_CELL * rig.unit_px))
    shown = cv2.dilate((opacity > 0.02).astype(np.uint8), _SQUARE) > 0
    vertices, triangles = mesh_over(shown, cell)
    height, width = opacity.shape
    middles = vertices[triangles].mean(axis=1).astype(int).clip(0, [width - 1, height - 1])
    filled = cv2.boxFilter(opacity, -1, (cell, cell))[middles[:, 1], middles[:, 0]]
    if name == "body":
        head, joints, legs = body_weights(rig, vertices)
    else:
        head, joints, legs = None, arm_weights(rig, name, vertices), ()
    return Layer(
        name=name,
        texture=np.dstack([texture * opacity[..., None], opacity * 255.0]).astype(np.float32),
        vertices=vertices,
        triangles=triangles,
        depth_bias=(1.0 - filled.astype(np.float64)) * 3.0 * rig.unit_px,
        joints=joints,
        legs=legs,
        head=head,
        passes=_passes(name, triangles, joints, legs),
    )


def _passes(
    name: LayerName,
    triangles: Int64[np.ndarray, "triangles 3"],
    joints: tuple[JointWeight, ...],
    legs: tuple[LegWeights, ...],
) -> tuple[Int64[np.ndarray, " _"], ...]:
    """Return what is drawn one after the other: forearm, upper arm; each leg, torso."""
    if name != "body":
        bent = [joint.weight for joint in joints if joint.number == 1]
        if bent:
            weight = bent[0][triangles]
            upper = np.flatnonzero(weight.min(axis=1) < 0.75)
            return np.flatnonzero(weight.max(axis=1) > 0.25), upper
    elif legs:
        weights = [(leg.side_weight * leg.joints[0].weight)[triangles] for leg in legs]
        most = np.maximum.reduce(weights)
        torso = np.flatnonzero(most.min(axis=1) < 0.98)
        return *(np.flatnonzero(weight.max(axis=1) > 0.9) for weight in weights), torso
    return (np.arange(len(triangles)),)


def _around_hands(shape: tuple[int, ...], rig: Rig) -> Bool[np.ndarray, "height width"]:
    hands = np.zeros(shape, np.uint8)
    for path in rig.arms.values():
        if len(path) == 4:
            ends = path[2].astype(int).tolist(), path[3].astype(int).tolist()
            cv2.line(hands, *ends, 1, max(1, int(2 * _HAND_REACH * rig.unit_px)))
    return hands > 0


def _hidden_body(
    labels: UInt8[np.ndarray, "height width"],
    inside: Bool[np.ndarray, "height width"],
    hands: Bool[np.ndarray, "height width"],
    rig: Rig,
) -> Bool[np.ndarray, "height width"]:
    """Return where an arm hides the body: within the torso, the legs, or a bay of the outline.

    Under a hand the outline is also taken to go on from above the hand to below it.
    """
    hull = np.zeros(labels.shape, np.uint8)
    quad = cv2.convexHull(rig.torso_quad(0.95, 0.95).astype(np.float32)).astype(np.int32)
    cv2.fillConvexPoly(hull, quad, 1)
    for start, end in rig.leg_lines():
        ends = start.astype(int).tolist(), end.astype(int).tolist()
        cv2.line(hull, *ends, 1, max(1, int(0.16 * rig.unit_px)))
    body = ((labels == BODY) & inside).astype(np.uint8)
    reach = max(2, int(0.16 * rig.unit_px))
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    hull |= _closed(body, disk)
    column = np.ones((max(3, int(_HAND_GAP * rig.unit_px)), 1), np.uint8)
    hull[hands] |= _closed(body, column)[hands]
    return (hull > 0) & (labels != BODY) & inside


def _closed(
    mask: UInt8[np.ndarray, "height width"], kernel: UInt8[np.ndarray, "rows columns"]
) -> UInt8[np.ndarray, "height width"]:
    """Close the gaps of a mask; nothing lies beyond the picture's edge."""
    edge = max(kernel.shape)
    around = cv2.copyMakeBorder(mask, *(edge,) * 4, cv2.BORDER_CONSTANT)
    return cv2.morphologyEx(around, cv2.MORPH_CLOSE, kernel)[edge:-edge, edge:-edge]


def mesh_over(
    mask: Bool[np.ndarray, "height width"], cell: int
) -> tuple[Float64[np.ndarray, "vertices 2"], Int64[np.ndarray, "triangles 3"]]:
    """Return a regular mesh whose cells cover a mask: vertices (x, y) and triangles.

    Args:
        cell: Side of a cell, pixels.
    """
    height, width = mask.shape
    rows, columns = height // cell + 2, width // cell + 2
    padded = np.zeros((rows * cell, columns * cell), bool)
    padded[:height, :width] = mask
    y, x = np.nonzero(padded.reshape(rows, cell, columns, cell).any(axis=(1, 3)))
    number = np.arange((rows + 1) * (columns + 1)).reshape(rows + 1, columns + 1)
    corners = number[y, x], number[y, x + 1], number[y + 1, x], number[y + 1, x + 1]
    upper = np.stack([corners[0], corners[1], corners[2]], axis=1)
    lower = np.stack([corners[1], corners[3], corners[2]], axis=1)
    used, triangles = np.unique(np.concatenate([upper, lower]), return_inverse=True)
    places = np.stack([used % (columns + 1), used // (columns + 1)], axis=1) * float(cell)
    return places, triangles.reshape(-1, 3)
