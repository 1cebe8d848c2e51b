"""The shape of a head: a stack of ellipses, its visible outline and points on its surface.

Head units are half head heights: y is -1 at the chin and 1 at the crown, x points to the right of
the picture for a head that looks at the camera, z towards the camera. Azimuth runs around the
vertical: 0 is the face, positive is the picture's right, pi the back of the head.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Complex, Float

from animaray.datasets.world.people import Face

DEPTH_RATIO = 1.06
"""Half depth over half width of a head."""
_TEMPLE = 0.08
"""Height of the widest section, head units."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadPlacement:
    """Where a head is on the picture and which way it looks."""

    centre: complex
    """Middle of the head, px."""
    unit_px: float
    """Half the head's height, px."""
    yaw_rad: float
    pitch_rad: float
    roll_rad: float


class HeadShape:
    """One head, placed: projects head points to the picture and cuts them at the visible rim."""

    def __init__(self, face: Face, placement: HeadPlacement) -> None:
        self.face = face
        self.placement = placement
        cy, sy = np.cos(placement.yaw_rad), np.sin(placement.yaw_rad)
        cp, sp = np.cos(placement.pitch_rad), np.sin(placement.pitch_rad)
        cr, sr = np.cos(placement.roll_rad), np.sin(placement.roll_rad)
        yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        pitch = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
        roll = np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
        self.rotation: Float[np.ndarray, "3 3"] = roll @ yaw @ pitch
        to_plane = self.rotation[0] - 1j * self.rotation[1]
        self._to_plane = placement.unit_px * to_plane
        self.right_rim = float(np.arctan2(cy, DEPTH_RATIO * sy))
        """Azimuth of the outline on the picture's right; the left one is pi less."""

    def project(self, points: Float[np.ndarray, "points 3"]) -> Complex[np.ndarray, " points"]:
        """Return where head points are seen, px."""
        return points @ self._to_plane + self.placement.centre

    def towards_camera(self, points: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, " points"]:
        """Return how far points lie towards the camera, head units."""
        return points @ self.rotation[2]

    def half_width(self, height: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
        """Return the half width of the bare head at heights in head units."""
        above = np.clip((height - _TEMPLE) / (1.0 - _TEMPLE), 0.0, 1.0)
        below = np.clip((_TEMPLE - height) / (1.0 + _TEMPLE), 0.0, 1.0)
        power = self.face.jaw_power
        dome = np.sqrt(1.0 - above**2.3)
        jaw = (1.0 - below ** (power + 0.4)) ** (1.0 / (0.55 + 0.5 * power))
        return self.face.half_width * np.where(height >= _TEMPLE, dome, jaw)

    def surface(
        self,
        azimuth: Float[np.ndarray, " points"],
        height: Float[np.ndarray, " points"],
        *,
        swell: float = 0.0,
    ) -> Float[np.ndarray, "points 3"]:
        """Return points of the bare head, moved outwards by swell (head units)."""
        half_width = self.half_width(height) + swell
        depth = DEPTH_RATIO * half_width * np.cos(azimuth) + _forward(height)
        return np.stack([half_width * np.sin(azimuth), height, depth], axis=1)

    def on_face(
        self, x: Float[np.ndarray, " points"], y: Float[np.ndarray, " points"]
    ) -> Float[np.ndarray, "points 3"]:
        """Return the points of the front surface with the given x and y, head units."""
        half_width = self.half_width(np.clip(y, -0.97, 0.97))
        rest = np.sqrt(np.maximum(half_width**2 - x**2, 0.0))
        return np.stack([x, y, DEPTH_RATIO * rest + _forward(y)], axis=1)

    def outline(self, *, swell: float = 0.0) -> Complex[np.ndarray, " points"]:
        """Return the outline of the bare head, px."""
        heights = _OUTLINE_HEIGHTS
        right = self.surface(np.full(heights.shape, self.right_rim), heights, swell=swell)
        left = self.surface(np.full(heights.shape, self.right_rim - np.pi), heights, swell=swell)
        return self.project(np.concatenate([right, left[::-1]]))

    def visible_span(self, first: float, last: float) -> tuple[float, float] | None:
        """Return the visible part of a span of azimuths, None where it is turned away.

        Args:
            first: Start of the span, radians.
            last: End of the span, radians.

        Returns:
            Start and end inside the span, shifted by full turns where needed.
        """
        low, high = self.right_rim - np.pi, self.right_rim
        best: tuple[float, float] | None = None
        for turn in (-2 * np.pi, 0.0, 2 * np.pi):
            start, end = max(first + turn, low), min(last + turn, high)
            if end - start > 1e-3 and (best is None or end - start > best[1] - best[0]):
                best = (start, end)
        return best

    def faces_camera(self, x: float, y: float, *, threshold: float = 0.08) -> bool:
        """Return whether the face surface at a point is turned to the camera."""
        half_width = float(self.half_width(np.array([y]))[0])
        azimuth = np.arcsin(np.clip(x / max(half_width, 1e-6), -1.0, 1.0))
        normal = np.array([np.sin(azimuth) * DEPTH_RATIO, 0.25 * y, np.cos(azimuth)])
        return bool(self.rotation[2] @ normal > threshold)

    def face_region_box(self) -> Float[np.ndarray, " 4"]:
        """Return the box around the visible part of the face, chin to forehead, px xyxy."""
        span = self.visible_span(-1.35, 1.35)
        if span is None:
            span = (self.right_rim - np.pi, self.right_rim)
        azimuth = np.repeat(np.linspace(span[0], span[1], 7), len(_BOX_HEIGHTS))
        height = np.tile(_BOX_HEIGHTS, 7)
        points = self.project(self.surface(azimuth, height))
        return np.array(
            [points.real.min(), points.imag.min(), points.real.max(), points.imag.max()]
        )


_OUTLINE_HEIGHTS = -np.cos(np.linspace(0.0, np.pi, 22))
_BOX_HEIGHTS = np.array([-1.0, -0.8, -0.5, -0.1, 0.25, 0.55])


def _forward(height: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
    """Return how far a section is moved forwards: the chin is, the skull lies back."""
    return -0.08 + 0.26 * np.clip(_TEMPLE - height, 0.0, 1.0)


@lru_cache(maxsize=256)
def mark_places(seed: int, count: int) -> tuple[tuple[float, float], ...]:
    """Return the places of small irregular marks on the face plane, drawn from a seed."""
    rng = np.random.default_rng([13, seed])
    x = rng.uniform(0.12, 0.5, count) * np.where(np.arange(count) % 2 == 0, 1.0, -1.0)
    y = rng.uniform(-0.42, -0.12, count)
    return tuple((float(a), float(b)) for a, b in zip(x, y, strict=True))
