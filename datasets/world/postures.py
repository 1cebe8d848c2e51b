"""Postures of generated people: joint angles, and where they put the 18 keypoints in space.

Space: metres, x to the right of the picture, y up from the ground, z towards the camera. A person
at yaw 0 faces the camera, so that the person's right side lies on the left of the picture; positive
yaw turns the face to the right of the picture, positive pitch lifts it.

Joints follow the 18 points of OpenPose COCO (`models/pose/layouts.py`).

References:
    Cao et al. 2019, OpenPose, arXiv:1812.08008 (the order of the joints).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from animaray.datasets.world.people import Body

ANKLE_HEIGHT = 0.045
"""Ankle joint over the ground, body heights."""

_Array = Float[np.ndarray, "..."]


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmAngles:
    """Where one arm points, in the frame of the chest, radians.

    Lift is the angle from hanging down; heading is the side it is lifted to: 0 is outwards, pi/2 is
    forwards, pi is across the chest.
    """

    lift: float = 0.12
    heading: float = 0.3
    fore_lift: float = 0.25
    fore_heading: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class LegAngles:
    """Joint angles of one leg, radians."""

    flex: float = 0.0
    """Thigh forwards."""
    spread: float = 0.05
    """Thigh outwards."""
    knee: float = 0.04
    """Shin backwards against the thigh."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Posture:
    """All joint angles of one instant; index 0 is the person's right side."""

    shift_x: float = 0.0
    """Place of the pelvis along the picture, body heights."""
    lift_y: float = 0.0
    """Height above standing ground contact, body heights."""
    yaw_rad: float = 0.0
    """Turn of the pelvis about the vertical."""
    twist_rad: float = 0.0
    """Turn of the chest against the pelvis."""
    lean_rad: float = 0.0
    """Chest forwards."""
    sway_rad: float = 0.0
    """Chest sideways, positive to the person's left."""
    head_yaw_rad: float = 0.0
    """Turn of the head against the chest."""
    head_pitch_rad: float = 0.0
    """Nod of the head, positive up."""
    head_roll_rad: float = 0.0
    """Tilt of the head, clockwise on the picture."""
    arms: tuple[ArmAngles, ArmAngles] = (ArmAngles(), ArmAngles())
    legs: tuple[LegAngles, LegAngles] = (LegAngles(), LegAngles())
    eye_open: float = 1.0
    """1 is open, 0 is closed."""
    mouth_open: float = 0.0
    """Height of the open mouth, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Pose:
    """One person's joints in space at one instant."""

    joints: Float[np.ndarray, "18 3"]
    """Metres; the five face joints are placed by the head's own geometry when drawn."""
    head_yaw_rad: float
    """Yaw of the head in space."""
    head_pitch_rad: float
    """Pitch of the head."""
    head_roll_rad: float
    """Roll of the head."""
    body_yaw_rad: float
    """Yaw of the chest in space."""
    eye_open: float = 1.0
    mouth_open: float = 0.0


def posture_to_pose(posture: Posture, body: Body) -> Pose:
    """Turn joint angles into joints in space by forward kinematics.

    The lower foot stands on the ground: the pelvis is placed so that the lowest ankle is at ankle
    height.

    Args:
        posture: Joint angles.

    Returns:
        Joints in metres.
    """
    pelvis = _yaw_matrix(posture.yaw_rad)
    chest = _yaw_matrix(posture.yaw_rad + posture.twist_rad) @ _lean_matrix(
        posture.lean_rad, posture.sway_rad
    )
    joints = np.zeros((18, 3))
    neck = chest @ np.array([0.0, body.torso_length, 0.0])
    joints[1] = neck
    for index, side in ((0, -1.0), (1, 1.0)):
        shoulder = neck + chest @ np.array([side * body.shoulder_half_width, -0.012, 0.0])
        arm = posture.arms[index]
        elbow = shoulder + body.upper_arm * (chest @ _direction(side, arm.lift, arm.heading))
        wrist = elbow + body.forearm * (chest @ _direction(side, arm.fore_lift, arm.fore_heading))
        joints[2 + 3 * index : 5 + 3 * index] = shoulder, elbow, wrist
        hip = pelvis @ np.array([side * body.hip_half_width, 0.0, 0.0])
        leg = posture.legs[index]
        knee = hip + body.thigh * (pelvis @ _leg_direction(side, leg.flex, leg.spread))
        shin_spread = leg.spread * 0.6
        ankle = knee + body.shin * (pelvis @ _leg_direction(side, leg.flex - leg.knee, shin_spread))
        joints[8 + 3 * index : 11 + 3 * index] = hip, knee, ankle
    head_up = chest @ np.array([0.0, 0.03 + 0.5 * body.head_height, 0.01])
    joints[[0, 14, 15, 16, 17]] = neck + head_up
    ground = ANKLE_HEIGHT - min(joints[10, 1], joints[13, 1])
    joints += np.array([posture.shift_x, ground + posture.lift_y, 0.0])
    chest_yaw = posture.yaw_rad + posture.twist_rad
    return Pose(
        joints=joints * body.height_m,
        head_yaw_rad=chest_yaw + posture.head_yaw_rad,
        head_pitch_rad=posture.head_pitch_rad - 0.5 * posture.lean_rad,
        head_roll_rad=posture.head_roll_rad + 0.5 * posture.sway_rad,
        body_yaw_rad=chest_yaw,
        eye_open=posture.eye_open,
        mouth_open=posture.mouth_open,
    )


def _yaw_matrix(yaw: float) -> _Array:
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def _lean_matrix(lean: float, sway: float) -> _Array:
    c, s = np.cos(lean), np.sin(lean)
    forwards = np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])
    c, s = np.cos(sway), np.sin(sway)
    return np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]]) @ forwards


def _direction(side: float, lift: float, heading: float) -> _Array:
    reach = np.sin(lift)
    return np.array([side * reach * np.cos(heading), -np.cos(lift), reach * np.sin(heading)])


def _leg_direction(side: float, flex: float, spread: float) -> _Array:
    return np.array([side * np.sin(spread), -np.cos(spread) * np.cos(flex), np.sin(flex)])
