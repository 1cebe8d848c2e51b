"""The photo's person as bones and joints: what labels, meshes and motion all look at."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from animaray.models.parts.landmarks import (
    ARMS,
    HEAD_POINTS,
    HIPS,
    LEGS,
    SHOULDERS,
    Arm,
    Leg,
    PersonLandmarks,
    Side,
    TargetPose,
    face_middle,
    middle,
)

Point = Float64[np.ndarray, " 2"]
HAND_REACH = 1.7
"""Finger tips lie so many times as far from the wrist as the middle of the knuckles."""
_UNSEEN_HIPS = 1.7
"""Distance of hips that are not seen from the shoulders, in units."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rig:
    """Joints of a person at rest, pixels of the padded photo."""

    person: PersonLandmarks
    unit_px: float
    hips: tuple[Point, Point]
    """Left and right; guessed where they are not seen."""
    has_hips: bool
    arms: dict[Side, list[Point]]
    """Shoulder, elbow and, where seen, wrist and finger tips of the arms that can move."""
    legs: dict[Side, Leg]
    """Legs that show a knee."""
    head: Point
    """Middle of the face."""

    @classmethod
    def of(cls, person: PersonLandmarks) -> "Rig":
        """Read the joints off the landmarks."""
        points, unit = person.points, person.unit_px
        has_hips = person.sees(*HIPS)
        below = np.array([0.0, _UNSEEN_HIPS * unit])
        left, right = (
            points[hip] if has_hips else points[shoulder] + below
            for hip, shoulder in zip(HIPS, SHOULDERS, strict=True)
        )
        arms: dict[Side, list[Point]] = {}
        for side, arm in ARMS.items():
            if person.sees(arm.shoulder, arm.elbow):
                path = arm_path(points, arm)
                arms[side] = path if person.sees(arm.wrist) else path[:2]
        face = person.face
        return cls(
            person=person,
            unit_px=unit,
            hips=(left, right),
            has_hips=has_hips,
            arms=arms,
            legs={side: leg for side, leg in LEGS.items() if person.sees(leg.hip, leg.knee)},
            head=points[HEAD_POINTS].mean(axis=0) if face is None else face_middle(face),
        )

    @property
    def points(self) -> Float64[np.ndarray, "33 2"]:
        """X and y of the body points."""
        return self.person.points

    @property
    def shoulders(self) -> tuple[Point, Point]:
        """Left and right."""
        return self.points[SHOULDERS[0]], self.points[SHOULDERS[1]]

    @property
    def neck(self) -> Point:
        """Midway between the shoulders."""
        return middle(self.points, SHOULDERS)

    @property
    def hip_middle(self) -> Point:
        """Midway between the hips."""
        return (self.hips[0] + self.hips[1]) / 2.0

    def torso_quad(self, shoulder_share: float, hip_share: float) -> Float64[np.ndarray, "4 2"]:
        """Return the torso's corners, drawn in towards its axis by these shares."""
        neck, hips = self.neck, self.hip_middle
        (left, right), (low_left, low_right) = self.shoulders, self.hips
        return np.array(
            [
                neck + shoulder_share * (left - neck),
                neck + shoulder_share * (right - neck),
                hips + hip_share * (low_right - hips),
                hips + hip_share * (low_left - hips),
            ]
        )

    def leg_lines(self) -> list[tuple[Point, Point]]:
        """Return the segments of the legs that are seen: thigh, shin, foot."""
        lines = []
        for leg in LEGS.values():
            pairs = ((leg.hip, leg.knee), (leg.knee, leg.ankle), (leg.ankle, leg.toe))
            lines += [
                (self.points[start], self.points[end])
                for start, end in pairs
                if self.person.sees(start, end)
            ]
        return lines


def arm_path(points: Float64[np.ndarray, "33 2"], arm: Arm) -> list[Point]:
    """Return shoulder, elbow, wrist and finger tips of an arm."""
    wrist = points[arm.wrist]
    tips = wrist + HAND_REACH * (points[list(arm.knuckles)].mean(axis=0) - wrist)
    return [points[arm.shoulder], points[arm.elbow], wrist, tips]


@dataclass(frozen=True, kw_only=True, slots=True)
class Driven:
    """A target pose, with what is read off it once a frame; pixels of the padded photo."""

    points: Float64[np.ndarray, "33 2"]
    z: Float64[np.ndarray, " 33"]
    face: Float64[np.ndarray, "468 3"] | None
    torso_z: float
    """Mean depth of shoulders and, where seen, hips."""

    @classmethod
    def of(cls, target: TargetPose, rig: Rig, pad_px: int) -> "Driven":
        """Move a target into the padded photo."""
        torso = (*SHOULDERS, *HIPS) if rig.has_hips else SHOULDERS
        shift = np.array([pad_px, pad_px, 0.0])
        face = None if target.face is None or rig.person.face is None else target.face + shift
        return cls(
            points=target.points + float(pad_px),
            z=target.body[:, 2],
            face=face,
            torso_z=float(target.body[list(torso), 2].mean()),
        )
