"""How far each vertex of a mesh follows each joint: by its place along and beside the bones."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from animaray.models.parts.landmarks import (
    LEGS,
    Leg,
    Side,
    distance_to_path,
    distance_to_segment,
    smooth_step,
)
from animaray.models.parts.rig import Point, Rig

Vertices = Float64[np.ndarray, "vertices 2"]
Weights = Float64[np.ndarray, " vertices"]


@dataclass(frozen=True, kw_only=True, slots=True)
class JointWeight:
    """How far vertices follow the bone behind a joint rather than the one before it."""

    side: Side
    number: int
    """0 shoulder or hip, 1 elbow or knee, 2 wrist or ankle."""
    weight: Float64[np.ndarray, " vertices"]
    """In [0, 1]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LegWeights:
    """How far vertices belong to a leg, and how they follow its joints."""

    side_weight: Float64[np.ndarray, " vertices"]
    """1 where the vertex is on this leg's side; both legs' add up to 1."""
    joints: tuple[JointWeight, ...]


def arm_weights(rig: Rig, side: Side, vertices: Vertices) -> tuple[JointWeight, ...]:
    """Return the weights of an arm's own layer."""
    path, unit = rig.arms[side], rig.unit_px
    joints = [JointWeight(side=side, number=0, weight=_shoulder_weight(path, unit, vertices))]
    for number, reach in ((1, 0.17 * unit), (2, 0.08 * unit)):
        if number >= len(path) - 1:
            break
        before, joint, after = path[number - 1 : number + 2]
        weight = _bend_weight(vertices, before, joint, after, reach)
        upper = distance_to_path(vertices, path[: number + 1])
        lower = distance_to_path(vertices, path[number:])
        weight = np.where(lower < upper + reach, weight, 0.0)
        weight = np.where(upper > lower + reach, 1.0, weight)
        joints.append(JointWeight(side=side, number=number, weight=weight))
    return tuple(joints)


def body_weights(
    rig: Rig, vertices: Vertices
) -> tuple[Weights, tuple[JointWeight, ...], tuple[LegWeights, ...]]:
    """Return how the body's vertices follow the head, the arms (at the shoulders) and the legs."""
    base = rig.neck + 0.12 * (rig.head - rig.neck)
    up = rig.head - base
    head = smooth_step((vertices - base) @ up / (up @ up + 1e-6), 0.15, 0.6)
    unit, joints = rig.unit_px, []
    for side, path in rig.arms.items():
        near = smooth_step(
            1.0 - np.linalg.norm(vertices - path[0], axis=1) / (0.32 * unit), 0.0, 0.5
        )
        weight = 0.4 * _shoulder_weight(path, unit, vertices) * near
        joints.append(JointWeight(side=side, number=0, weight=weight))
    return head, tuple(joints), _leg_weights(rig, vertices)


def _shoulder_weight(path: list[Point], unit: float, vertices: Vertices) -> Weights:
    """Return how far vertices follow the upper arm: it takes over around the shoulder."""
    along = distance_to_segment(vertices, path[0], path[1])[1]
    return smooth_step(along * np.linalg.norm(path[1] - path[0]), -0.1 * unit, 0.22 * unit)


def _bend_weight(
    vertices: Vertices, before: Point, joint: Point, after: Point, reach: float
) -> Weights:
    """Return a rise across a joint, along the line that halves its bend."""
    return smooth_step((vertices - joint) @ _halfway(before, joint, after), -reach, reach)


def _halfway(before: Point, joint: Point, after: Point) -> Point:
    first, second = joint - before, after - joint
    direction = first / (np.linalg.norm(first) + 1e-6) + second / (np.linalg.norm(second) + 1e-6)
    halfway: Point = direction / (np.linalg.norm(direction) + 1e-6)
    return halfway


def _leg_weights(rig: Rig, vertices: Vertices) -> tuple[LegWeights, ...]:
    points = rig.points
    distances: dict[Side, Weights] = {}
    for side, leg in rig.legs.items():
        seen = [leg.hip, leg.knee] + ([leg.ankle] if rig.person.sees(leg.ankle) else [])
        distances[side] = distance_to_path(vertices, [points[index] for index in seen])
    found = []
    for side in rig.legs:
        share = np.ones(len(vertices))
        if len(distances) == 2:
            own, other = distances[side], distances["left" if side == "right" else "right"]
            share = smooth_step((other - own) / (other + own + 1e-3), -0.3, 0.3)
        joints = _joints_of_leg(rig, side, LEGS[side], vertices)
        found.append(LegWeights(side_weight=share, joints=joints))
    return tuple(found)


def _joints_of_leg(rig: Rig, side: Side, leg: Leg, vertices: Vertices) -> tuple[JointWeight, ...]:
    points, unit = rig.points, rig.unit_px
    hip, knee, ankle = points[leg.hip], points[leg.knee], points[leg.ankle]
    along = distance_to_segment(vertices, hip, knee)[1]
    joints = [JointWeight(side=side, number=0, weight=smooth_step(along, -0.12, 0.4))]
    if rig.person.sees(leg.ankle):
        weight = _bend_weight(vertices, hip, knee, ankle, 0.2 * unit)
        joints.append(JointWeight(side=side, number=1, weight=weight))
        if rig.person.sees(leg.toe):
            down = (ankle - knee) / (np.linalg.norm(ankle - knee) + 1e-6)
            weight = smooth_step((vertices - ankle) @ down, -0.1 * unit, 0.06 * unit)
            joints.append(JointWeight(side=side, number=2, weight=weight))
    return tuple(joints)
