"""What the parts engine knows of a person: 33 body points, 468 face points, and sizes of both.

Pixel coordinates are OpenCV's: integers are pixel centres, x right, y down; z grows away from the
camera, in pixels too. Left and right are the person's own.

References:
    Bazarevsky et al. 2020, "BlazePose", arXiv 2006.10204 (order of the body points);
    Kartynnik et al. 2019, arXiv 1907.06724 (order of the face points).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64

Side = Literal["right", "left"]

NOSE, LEFT_EAR, RIGHT_EAR = 0, 7, 8
HEAD_POINTS = slice(0, 11)
"""Nose, eyes, ears, mouth."""
LEFT_SHOULDER, RIGHT_SHOULDER, LEFT_HIP, RIGHT_HIP = 11, 12, 23, 24
SHOULDERS, HIPS = (LEFT_SHOULDER, RIGHT_SHOULDER), (LEFT_HIP, RIGHT_HIP)
TORSO = (*SHOULDERS, *HIPS)
BODY_POINTS = slice(11, 25)
"""Shoulders to hips with both arms and hands: what poses are compared by."""
ELBOWS, WRISTS, KNEES, ANKLES = (13, 14), (15, 16), (25, 26), (27, 28)
SOLES = (29, 30, 31, 32)
"""Heels and toes."""
VISIBLE = 0.5
"""From this visibility on a body point is taken as seen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """Body points of one arm."""

    shoulder: int
    elbow: int
    wrist: int
    knuckles: tuple[int, int]
    """Of the little finger and the forefinger."""
    hand: tuple[int, int, int]
    """The same and the thumb."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Leg:
    """Body points of one leg."""

    hip: int
    knee: int
    ankle: int
    heel: int
    toe: int


ARMS: dict[Side, Arm] = {
    "right": Arm(shoulder=12, elbow=14, wrist=16, knuckles=(18, 20), hand=(18, 20, 22)),
    "left": Arm(shoulder=11, elbow=13, wrist=15, knuckles=(17, 19), hand=(17, 19, 21)),
}
LEGS: dict[Side, Leg] = {
    "right": Leg(hip=24, knee=26, ankle=28, heel=30, toe=32),
    "left": Leg(hip=23, knee=25, ankle=27, heel=29, toe=31),
}

FOREHEAD_TOP, CHIN, FACE_RIGHT, FACE_LEFT = 10, 152, 234, 454
EYE_RIGHT, EYE_LEFT = (33, 133), (362, 263)
"""Outer and inner corner of the right eye, inner and outer one of the left eye."""
UPPER_LIP, LOWER_LIP, MOUTH_RIGHT, MOUTH_LEFT = 13, 14, 78, 308
"""Inner borders of the lips, and the inner corners."""
STEADY_FACE_POINTS = (
    10, 67, 297, 109, 338, 151, 9, 8, 168, 6, 197, 195, 5, 4, 1, 33, 133, 362, 263, 127, 356, 234,
    454, 93, 323, 132, 361, 116, 345, 117, 346, 50, 280,
)  # fmt: skip
"""Forehead, nose, eye corners, temples and cheek bones: they move with the head, not the mouth."""
UPPER_INNER_LIP = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
LOWER_INNER_LIP = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
INNER_LIPS = (*UPPER_INNER_LIP, *LOWER_INNER_LIP[-2:0:-1])
"""Closed contour of the mouth's opening."""
FACE_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152,
    148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
EXPRESSION_POINTS = (
    *INNER_LIPS, 105, 334, 65, 295, 159, 145, 386, 374, 61, 291, 0, 17, 152,
)  # fmt: skip
"""Lips, brows, eyelids, chin: what tells a calm face from a lively one."""
CHEEKS = (50, 280, 117, 346, 205, 425, 101, 330)
"""Bare skin of most people."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PersonLandmarks:
    """One person in one picture."""

    body: Float64[np.ndarray, "33 3"]
    """x, y, z."""
    visibility: Float64[np.ndarray, " 33"]
    """In [0, 1]."""
    face: Float64[np.ndarray, "468 3"] | None = None
    """x, y, z; None where no face is found."""
    hands: Mapping[Side, Float64[np.ndarray, "21 2"]] = field(default_factory=dict)
    """x and y of the hands that were looked for and found."""

    @property
    def points(self) -> Float64[np.ndarray, "33 2"]:
        """X and y of the body points."""
        return self.body[:, :2]

    @property
    def unit_px(self) -> float:
        """Shoulder width as far as it can be told, pixels: the unit of most rules."""
        points = self.points
        torso = float(np.linalg.norm(points[LEFT_SHOULDER] - points[LEFT_HIP]))
        return max(
            float(np.linalg.norm(points[LEFT_SHOULDER] - points[RIGHT_SHOULDER])),
            0.55 * torso if self.visibility[LEFT_HIP] > VISIBLE else 0.0,
            1.8 * float(np.linalg.norm(points[LEFT_EAR] - points[RIGHT_EAR])),
            1.0,
        )

    @property
    def torso_px(self) -> float:
        """Distance of the shoulders' and the hips' middle, pixels."""
        points = self.points
        return float(np.linalg.norm(middle(points, SHOULDERS) - middle(points, HIPS)))

    def sees(self, *indices: int) -> bool:
        """Tell whether all these body points are seen."""
        return bool((self.visibility[list(indices)] > VISIBLE).all())

    def within(self, width_px: int, height_px: int) -> PersonLandmarks:
        """Return a copy in which points clearly outside the picture count as unseen."""
        size = np.array([width_px, height_px])
        inside = ((self.points > -0.02 * size) & (self.points < 1.02 * size)).all(axis=1)
        return replace(self, visibility=np.where(inside, self.visibility, 0.0))

    def mapped(self, scale: float, shift: Float[np.ndarray, " 2"]) -> PersonLandmarks:
        """Return a copy at another place and size: scaled first, then shifted."""
        offset = np.append(shift, 0.0)
        face = None if self.face is None else self.face * scale + offset
        hands = {side: points * scale + shift for side, points in self.hands.items()}
        return replace(self, body=self.body * scale + offset, face=face, hands=hands)


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetPose:
    """Where the photo's person shall be in one frame, pixels of the photo."""

    body: Float64[np.ndarray, "33 3"]
    face: Float64[np.ndarray, "468 3"] | None

    @property
    def points(self) -> Float64[np.ndarray, "33 2"]:
        """X and y of the body points."""
        return self.body[:, :2]


def middle(
    points: Float[np.ndarray, "points dims"], pair: tuple[int, int]
) -> Float64[np.ndarray, " dims"]:
    """Return the point midway between two."""
    return (points[pair[0]] + points[pair[1]]) / 2.0


def angle_of(vector: Float[np.ndarray, " 2"]) -> float:
    """Return a direction in the picture, radians."""
    return float(np.arctan2(vector[1], vector[0]))


def wrapped(angle_rad: float) -> float:
    """Return the same turn in [-pi, pi)."""
    return float((angle_rad + np.pi) % (2 * np.pi) - np.pi)


def turn_matrix(angle_rad: float) -> Float64[np.ndarray, "2 2"]:
    """Return the rotation by an angle."""
    cosine, sine = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[cosine, -sine], [sine, cosine]])


def turn_and_scale(
    before: Float[np.ndarray, "points 2"], after: Float[np.ndarray, "points 2"]
) -> complex:
    """Return the turn and scale that best take centred points to others, as one factor."""
    size = float((before**2).sum())
    if size == 0.0:
        return 1.0 + 0.0j
    across = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    return complex((before * after).sum(), across.sum()) / size


def smooth_step(
    values: Float[np.ndarray, "*shape"], low: float, high: float
) -> Float64[np.ndarray, "*shape"]:
    """Return 0 below `low`, 1 above `high` and a smooth rise between."""
    share = np.clip((np.asarray(values, np.float64) - low) / (high - low), 0.0, 1.0)
    return share * share * (3.0 - 2.0 * share)


def distance_to_segment(
    points: Float[np.ndarray, "*shape 2"],
    start: Float[np.ndarray, " 2"],
    end: Float[np.ndarray, " 2"],
) -> tuple[Float64[np.ndarray, "*shape"], Float64[np.ndarray, "*shape"]]:
    """Return each point's distance to a segment, and its place along it (0 start, 1 end)."""
    along = end - start
    share = ((points - start) @ along) / (along @ along + 1e-6)
    nearest = start + np.clip(share, 0.0, 1.0)[..., None] * along
    return np.linalg.norm(points - nearest, axis=-1), share


def distance_to_path(
    points: Float[np.ndarray, "*shape 2"], path: list[Float64[np.ndarray, " 2"]]
) -> Float64[np.ndarray, "*shape"]:
    """Return each point's distance to a chain of segments."""
    pieces = [distance_to_segment(points, a, b)[0] for a, b in pairwise(path)]
    return np.minimum.reduce(pieces)


def face_size_px(face: Float[np.ndarray, "468 3"]) -> float:
    """Return the mean of a face's height and width, pixels."""
    height = np.linalg.norm(face[FOREHEAD_TOP] - face[CHIN])
    width = np.linalg.norm(face[FACE_RIGHT] - face[FACE_LEFT])
    return float(height + width) / 2.0


def lip_gap(face: Float[np.ndarray, "468 3"]) -> float:
    """Return how far the lips are apart, in face sizes."""
    gap = np.linalg.norm(face[UPPER_LIP, :2] - face[LOWER_LIP, :2])
    return float(gap) / max(face_size_px(face), 1e-6)


def face_middle(face: Float[np.ndarray, "468 3"]) -> Float64[np.ndarray, " 2"]:
    """Return the middle of the face's outline."""
    return face[list(FACE_OVAL), :2].mean(axis=0)


def head_axes(face: Float[np.ndarray, "468 3"]) -> Float64[np.ndarray, "3 3"]:
    """Return the head's axes as columns: to its left, to its chin, away from the camera."""
    across = face[EYE_LEFT[1]] - face[EYE_RIGHT[0]]
    across = across / np.linalg.norm(across)
    down = face[CHIN] - face[FOREHEAD_TOP]
    down = down - across * (across @ down)
    down = down / np.linalg.norm(down)
    return np.stack([across, down, np.cross(across, down)], axis=1)


def head_angles(face: Float[np.ndarray, "468 3"]) -> Float64[np.ndarray, " 3"]:
    """Return yaw, pitch and roll of a head, radians; all 0 for a face that looks at the camera."""
    axes = head_axes(face)
    yaw = np.arctan2(-axes[2, 0], np.hypot(axes[0, 0], axes[1, 0]))
    pitch = np.arctan2(axes[2, 1], axes[2, 2])
    return np.array([yaw, pitch, np.arctan2(axes[1, 0], axes[0, 0])])


def axes_of(angles: Float[np.ndarray, " 3"]) -> Float64[np.ndarray, "3 3"]:
    """Return the axes of a head with this yaw, pitch and roll; undoes `head_angles`."""
    (cy, cp, cr), (sy, sp, sr) = np.cos(angles), np.sin(angles)
    roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    pitch = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    return roll @ yaw @ pitch
