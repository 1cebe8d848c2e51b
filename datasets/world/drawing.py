"""Anti-aliased drawing of flat shapes on a transparent layer, twice as fine as the frame.

A layer holds premultiplied colour: cv2 blends the anti-aliased edge into all four channels with one
coefficient, and the layer starts at zero, so colour and alpha stay consistent. Points in the plane
are complex numbers (x to the right, y down), which makes turning and scaling one multiplication.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Complex, UInt8

Colour = tuple[int, int, int]

_SUPERSAMPLING = 2
_SHIFT_BITS = 4
_ARC = np.exp(1j * np.linspace(0.5 * np.pi, 1.5 * np.pi, 9))
_CIRCLE = np.exp(1j * np.linspace(0.0, 2.0 * np.pi, 24, endpoint=False))
_SHADOW_TINT = (58, 40, 92)
_LIGHT_TINT = (255, 246, 224)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Return the colour that lies the given share of the way from the first to the second."""
    r, g, b = (round(x + (y - x) * share) for x, y in zip(first, second, strict=True))
    return (r, g, b)


def darker(colour: Colour, share: float) -> Colour:
    """Return the colour in shadow: mixed with a cool dark tint and multiplied down."""
    tinted = mix(colour, _SHADOW_TINT, 0.55 * share)
    return mix(tinted, (0, 0, 0), 0.45 * share)


def lighter(colour: Colour, share: float) -> Colour:
    """Return the colour in light: mixed with a warm white."""
    return mix(colour, _LIGHT_TINT, share)


def capsule(
    start: complex, end: complex, start_radius: float, end_radius: float
) -> Complex[np.ndarray, " points"]:
    """Return the outline of a tapered stroke with round ends.

    Args:
        start: First end, px.
        end: Second end, px.
        start_radius: Radius at the first end, px.
        end_radius: Radius at the second end, px.

    Returns:
        The outline, px.
    """
    along = end - start
    length = abs(along)
    turn = along / length if length > 1e-6 else 1.0 + 0j
    return np.concatenate([start + (start_radius * turn) * _ARC, end - (end_radius * turn) * _ARC])


def ellipse(
    centre: complex, half_width: float, half_height: float, *, angle_rad: float = 0.0
) -> Complex[np.ndarray, " points"]:
    """Return the outline of an ellipse, px, turned by angle_rad (clockwise on the image)."""
    shape = half_width * _CIRCLE.real + 1j * half_height * _CIRCLE.imag
    return centre + shape * complex(np.cos(angle_rad), np.sin(angle_rad))


def smooth_closed(
    points: Complex[np.ndarray, " corners"], *, steps: int = 4
) -> Complex[np.ndarray, " points"]:
    """Return a closed Catmull-Rom curve through the points.

    Args:
        points: Corners of the closed shape, px.
        steps: Curve points for each corner.

    Returns:
        The curve, px.
    """
    t = np.arange(steps)[None, :] / steps
    before, here = np.roll(points, 1)[:, None], points[:, None]
    after, beyond = np.roll(points, -1)[:, None], np.roll(points, -2)[:, None]
    curve = here + 0.5 * t * (
        after
        - before
        + t
        * (2 * before - 5 * here + 4 * after - beyond + t * (3 * (here - after) + beyond - before))
    )
    return curve.ravel()


class Layer:
    """A transparent picture over one part of a frame, drawn on at twice the frame's resolution."""

    def __init__(self, left: int, top: int, width: int, height: int) -> None:
        self.left, self.top, self.width, self.height = left, top, width, height
        self._pixels = np.zeros((height * _SUPERSAMPLING, width * _SUPERSAMPLING, 4), np.uint8)
        self._origin = complex(left - 0.5, top - 0.5)

    def _fixed_point(self, points: Complex[np.ndarray, " points"]) -> np.ndarray:
        fine = (points - self._origin) * _SUPERSAMPLING - (0.5 + 0.5j)
        flat = np.ascontiguousarray(fine).view(np.float64).reshape(-1, 2)
        return np.rint(np.clip(flat, -8000, 8000) * (1 << _SHIFT_BITS)).astype(np.int32)

    def fill(self, outline: Complex[np.ndarray, " points"], colour: Colour) -> None:
        """Fill a closed outline (frame px) with one opaque colour."""
        corners = self._fixed_point(outline)
        cv2.fillPoly(self._pixels, [corners], (*colour, 255), cv2.LINE_AA, _SHIFT_BITS)

    def fill_hull(self, outline: Complex[np.ndarray, " points"], colour: Colour) -> None:
        """Fill the convex hull of points (frame px) with one opaque colour."""
        corners = cv2.convexHull(self._fixed_point(outline))
        cv2.fillConvexPoly(self._pixels, corners, (*colour, 255), cv2.LINE_AA, _SHIFT_BITS)

    def fill_ring(
        self,
        outer: Complex[np.ndarray, " outer"],
        inner: Complex[np.ndarray, " inner"],
        colour: Colour,
    ) -> None:
        """Fill the area between two outlines (frame px)."""
        rings = [self._fixed_point(outer), self._fixed_point(inner)]
        cv2.fillPoly(self._pixels, rings, (*colour, 255), cv2.LINE_AA, _SHIFT_BITS)

    def fill_many(self, outlines: list[Complex[np.ndarray, " _"]], colour: Colour) -> None:
        """Fill several outlines (frame px) that do not overlap with one colour."""
        if outlines:
            corners = [self._fixed_point(outline) for outline in outlines]
            cv2.fillPoly(self._pixels, corners, (*colour, 255), cv2.LINE_AA, _SHIFT_BITS)

    def stroke(
        self, points: Complex[np.ndarray, " points"], width_px: float, colour: Colour
    ) -> None:
        """Draw an open line through the points (frame px), at least half a frame pixel wide."""
        corners = self._fixed_point(points)
        thickness = max(1, round(width_px * _SUPERSAMPLING))
        cv2.polylines(
            self._pixels,
            [corners],
            isClosed=False,
            color=(*colour, 255),
            thickness=thickness,
            lineType=cv2.LINE_AA,
            shift=_SHIFT_BITS,
        )

    def paste_onto(self, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        """Blend the layer into the frame, in place."""
        small = self._reduced()
        part = frame[self.top : self.top + self.height, self.left : self.left + self.width]
        alpha = cv2.cvtColor(small[..., 3], cv2.COLOR_GRAY2BGR)
        under = cv2.multiply(part, cv2.bitwise_not(alpha), scale=1.0 / 255.0)
        part[...] = cv2.add(under, cv2.cvtColor(small, cv2.COLOR_RGBA2RGB))

    def opacity_over(self, size: tuple[int, int]) -> UInt8[np.ndarray, "height width"]:
        """Return how far the layer covers a frame of this width and height, 255 all over."""
        whole = np.zeros(size[::-1], np.uint8)
        part = whole[self.top : self.top + self.height, self.left : self.left + self.width]
        part[...] = self._reduced()[..., 3]
        return whole

    def _reduced(self) -> UInt8[np.ndarray, "height width 4"]:
        size = (self.width, self.height)
        small: UInt8[np.ndarray, "_ _ 4"] = cv2.resize(
            self._pixels, size, interpolation=cv2.INTER_AREA
        )
        return small
