"""Move the vertices of a layer to a target pose: bones turn, joints blend by angle.

Blending angles instead of matrices keeps elbows and knees from collapsing when they bend by more
than a right angle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from animaray.models.parts.landmarks import (
    ARMS,
    HEAD_POINTS,
    LEGS,
    STEADY_FACE_POINTS,
    TORSO,
    angle_of,
    smooth_step,
    turn_and_scale,
    turn_matrix,
    wrapped,
)
from animaray.models.parts.layers import Layer
from animaray.models.parts.rig import Driven, Point, Rig, arm_path
from animaray.models.parts.skin_weights import LegWeights

Vertices = Float64[np.ndarray, "vertices 2"]
Weights = Float64[np.ndarray, " vertices"]
STRETCH_LIMITS = (0.25, 1.8)
"""Of a bone's length in the picture: it gets short when it points at the camera."""
HAND_LIMITS = (0.75, 1.2)
_FACE_SCALE = (0.93, 1.07)
"""How much the head of a whole body may grow or shrink."""
_FOOT_SEEN = (0.25, 0.5)
"""From the first length on (units) a foot is trusted a little, from the second fully."""
_FOOT_LIMITS = (0.7, 1.5)
_FOOT_TURN = 0.9
"""A foot turns by at most so much against the shin, radians."""


@dataclass(frozen=True, slots=True)
class Bone:
    """How a bone turns, and how it stretches before that."""

    angle: float
    """Radians."""
    stretch: Float64[np.ndarray, "2 2"]
    """Symmetric."""

    @classmethod
    def between(cls, start: Point, end: Point, to: tuple[Point, Point], *, is_hand: bool) -> Bone:
        """Return the motion that takes a segment to another one; hands change size evenly."""
        before, after = end - start, to[1] - to[0]
        length = np.linalg.norm(after) / max(float(np.linalg.norm(before)), 1e-6)
        length = np.clip(length, *STRETCH_LIMITS)
        across = 1.0
        if is_hand:
            length = across = np.clip(length, *HAND_LIMITS)
        heading = angle_of(before)
        axes = turn_matrix(heading)
        stretch = axes @ np.diag([length, across]) @ axes.T
        return cls(wrapped(angle_of(after) - heading), stretch)

    @classmethod
    def of_matrix(cls, matrix: Float64[np.ndarray, "2 2"]) -> Bone:
        """Split a linear map into stretch and turn (polar decomposition)."""
        left, sizes, right = np.linalg.svd(matrix)
        turn = left @ right
        return cls(float(np.arctan2(turn[1, 0], turn[0, 0])), right.T @ np.diag(sizes) @ right)


def blend_about(
    points: Vertices, joint: tuple[Point, Point], bones: tuple[Bone, Bone], weights: Weights
) -> Vertices:
    """Move points about a joint by a mix of the bones before and behind it.

    Args:
        joint: The joint at rest, and where it goes.
        bones: Before and behind it.
        weights: 0 follows the first bone, 1 the second.
    """
    first, second = bones
    angles = first.angle + weights * wrapped(second.angle - first.angle)
    cosine, sine = np.cos(angles), np.sin(angles)
    turns = np.stack([np.stack([cosine, -sine], -1), np.stack([sine, cosine], -1)], axis=-2)
    mix = weights[:, None, None]
    matrices = turns @ (first.stretch * (1 - mix) + second.stretch * mix)
    return joint[1] + np.einsum("vij,vj->vi", matrices, points - joint[0])


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacedLayer:
    """A layer in a target pose."""

    layer: Layer
    vertices: Float64[np.ndarray, "vertices 2"]
    depth: Float64[np.ndarray, " vertices"]
    """Large is far, pixels."""


class Skeleton:
    """One frame's bones.

    Args:
        rig: The person at rest.
        driven: Where they shall be.
    """

    def __init__(self, rig: Rig, driven: Driven) -> None:
        self._rig, self._driven = rig, driven
        self._corners = np.array([*rig.shoulders, *rig.hips])
        self._affine, self._residuals = self._fit_torso()
        self._root = Bone.of_matrix(self._affine[:2].T + np.eye(2))
        self.head = head_motion(rig, driven, limits=_FACE_SCALE)

    def place(self, layer: Layer) -> PlacedLayer:
        """Return where a layer's vertices go, and how far away they are."""
        moved, depth = self._torso(layer.vertices), np.zeros(len(layer.vertices))
        if layer.head is not None:
            linear, shift = self.head
            on_head = layer.head[:, None]
            moved = moved * (1 - on_head) + (layer.vertices @ linear.T + shift) * on_head
        self._move_arms(layer, moved, depth)
        if layer.legs:
            moved = self._move_legs(layer, moved, depth)
        return PlacedLayer(layer=layer, vertices=moved, depth=depth)

    def _fit_torso(
        self,
    ) -> tuple[Float64[np.ndarray, "3 2"], Float64[np.ndarray, "4 2"]]:
        """Return the affine motion of shoulders and hips, and what it leaves of each."""
        corners, points = self._corners, self._driven.points
        goal = points[list(TORSO)] if self._rig.has_hips else self._shoulders_only()
        columns = np.c_[corners, np.ones(4)]
        normal = columns.T @ columns + 1e-3 * np.diag([1.0, 1.0, 0.0])
        affine = np.linalg.solve(normal, columns.T @ (goal - corners))
        return affine, goal - corners - columns @ affine

    def _shoulders_only(self) -> Float64[np.ndarray, "4 2"]:
        before, after = self._rig.points[[11, 12]], self._driven.points[[11, 12]]
        was, now = before[0] - before[1], after[0] - after[1]
        scale = np.clip(np.linalg.norm(now) / max(float(np.linalg.norm(was)), 1e-6), 0.85, 1.15)
        turn = turn_matrix(angle_of(now) - angle_of(was)) * scale
        goal: Float64[np.ndarray, "4 2"] = (self._corners - self._rig.neck) @ turn.T
        return goal + after.mean(axis=0)

    def _torso(self, vertices: Vertices) -> Vertices:
        distances = np.linalg.norm(vertices[:, None] - self._corners[None], axis=-1)
        nearness = 1.0 / (distances**2 + 1.0)
        nearness = nearness / nearness.sum(axis=1, keepdims=True)
        columns = np.c_[vertices, np.ones(len(vertices))]
        moved: Vertices = vertices + columns @ self._affine + nearness @ self._residuals
        return moved

    def _move_arms(self, layer: Layer, moved: Vertices, depth: Weights) -> None:
        points, z = self._driven.points, self._driven.z
        for joint in layer.joints:
            arm, path = ARMS[joint.side], self._rig.arms[joint.side]
            goal = arm_path(points, arm)
            bones = [self._root] + [
                Bone.between(path[i], path[i + 1], (goal[i], goal[i + 1]), is_hand=i == 2)
                for i in range(len(path) - 1)
            ]
            number, on = joint.number, joint.weight > 0
            weight = joint.weight[on]
            turned = blend_about(
                layer.vertices[on],
                (path[number], goal[number]),
                (bones[number], bones[number + 1]),
                weight,
            )
            mix = weight[:, None] if number == 0 else 1.0
            moved[on] = moved[on] * (1 - mix) + turned * mix
            far = z[(arm.elbow, arm.wrist, arm.knuckles[0])[number]] - self._driven.torso_z
            depth[on] += weight * (far - depth[on])

    def _move_legs(self, layer: Layer, moved: Vertices, depth: Weights) -> Vertices:
        total, sum_of_sides = np.zeros_like(moved), np.zeros(len(moved))
        for leg in layer.legs:
            placed, leg_depth = self._move_leg(layer.vertices, leg, moved)
            total += leg.side_weight[:, None] * placed
            depth += leg.side_weight * leg_depth
            sum_of_sides += leg.side_weight
        share = np.maximum(sum_of_sides, 1e-6)[:, None]
        return np.where(sum_of_sides[:, None] > 0, total / share, moved)

    def _move_leg(
        self, vertices: Vertices, leg: LegWeights, moved: Vertices
    ) -> tuple[Vertices, Weights]:
        placed, depth = moved.copy(), np.zeros(len(moved))
        for joint in leg.joints:
            points_of = LEGS[joint.side]
            at = (points_of.hip, points_of.knee, points_of.ankle)[joint.number]
            tip = (points_of.knee, points_of.ankle, points_of.toe)[joint.number]
            on = joint.weight > 0
            weight = joint.weight[on]
            turned = blend_about(
                vertices[on],
                (self._rig.points[at], self._driven.points[at]),
                self._leg_bones(joint.side, joint.number),
                weight,
            )
            mix = weight[:, None] if joint.number == 0 else 1.0
            placed[on] = placed[on] * (1 - mix) + turned * mix
            far = self._driven.z[tip] - self._driven.torso_z
            depth[on] += weight * (far - depth[on])
        return placed, depth

    def _leg_bones(self, side: str, number: int) -> tuple[Bone, Bone]:
        """Return the bones before and behind a joint of a leg."""
        leg = LEGS["left" if side == "left" else "right"]
        thigh = self._bone(leg.hip, leg.knee)
        if number == 0:
            return self._root, thigh
        shin = self._bone(leg.knee, leg.ankle)
        if number == 1:
            return thigh, shin
        return shin, self._foot(leg.heel, leg.toe, shin)

    def _bone(self, start: int, end: int) -> Bone:
        before, after = self._rig.points, self._driven.points
        return Bone.between(before[start], before[end], (after[start], after[end]), is_hand=False)

    def _foot(self, heel: int, toe: int, shin: Bone) -> Bone:
        """Turn and stretch a foot by heel and toe, less the more it points at the camera."""
        before = self._rig.points[toe] - self._rig.points[heel]
        after = self._driven.points[toe] - self._driven.points[heel]
        was, now = float(np.linalg.norm(before)), float(np.linalg.norm(after))
        shortest = min(was, now) / self._rig.unit_px
        trust = float(smooth_step(np.array([shortest]), *_FOOT_SEEN)[0])
        turn = wrapped(angle_of(after) - angle_of(before) - shin.angle)
        turn = float(np.clip(turn, -_FOOT_TURN, _FOOT_TURN))
        length = 1.0 + trust * (float(np.clip(now / max(was, 1e-6), *_FOOT_LIMITS)) - 1.0)
        axes = turn_matrix(angle_of(before))
        angle = shin.angle * (1 - 0.5 * (1 - trust)) + trust * turn
        return Bone(angle, axes @ np.diag([length, 1.0]) @ axes.T)


def head_motion(
    rig: Rig, driven: Driven, limits: tuple[float, float] | None
) -> tuple[Float64[np.ndarray, "2 2"], Point]:
    """Return the similarity (matrix, shift) that best moves the head.

    Args:
        rig: The person at rest.
        driven: Where they shall be.
        limits: Least and greatest change of size; None leaves it free. Without a face the size
            stays.
    """
    if driven.face is not None and rig.person.face is not None:
        steady = list(STEADY_FACE_POINTS)
        before, after = rig.person.face[steady, :2], driven.face[steady, :2]
    else:
        before, after = rig.points[HEAD_POINTS], driven.points[HEAD_POINTS]
        limits = (1.0, 1.0)
    centre, goal = before.mean(axis=0), after.mean(axis=0)
    turn = turn_and_scale(before - centre, after - goal)
    if limits is not None:
        turn = turn / max(abs(turn), 1e-9) * float(np.clip(abs(turn), *limits))
    matrix = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    return matrix, goal - matrix @ centre
