"""A canvas in metres on which backgrounds are painted."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import UInt8

from animaray.datasets.world.drawing import Colour

FLECK_THRESHOLD = 2.1
"""Of standard normal noise in cells of 3 px: about one cell of 28 gets a fleck."""
FLECK_SHARE = 5.0
"""Strength of a fleck over that of the grain."""
MARGIN = 0.3
"""Part of the frame's size that the picture reaches beyond each edge."""


class Painter:
    """Draws on a picture in metres: x right from the middle, y up from the foot of the wall."""

    def __init__(self, size: tuple[int, int], metre_px: float, base: complex, seed: int) -> None:
        width, height = (round(length * (1 + 2 * MARGIN)) for length in size)
        self.pixels: UInt8[np.ndarray, "tall wide 3"] = np.zeros((height, width, 3), np.uint8)
        self.metre_px = metre_px
        self.base = base + complex(round(MARGIN * size[0]), round(MARGIN * size[1]))
        self.rng = np.random.default_rng([41, seed])
        self.left, self.right = -self.base.real / metre_px, (width - self.base.real) / metre_px
        self.top, self.bottom = self.base.imag / metre_px, (self.base.imag - height) / metre_px

    def polygon(self, corners: list[tuple[float, float]], colour: Colour) -> None:
        """Fill a polygon with corners in metres."""
        points = np.array(corners) * [self.metre_px, -self.metre_px]
        points += [self.base.real, self.base.imag]
        fixed = np.rint(np.clip(points, -4000, 4000) * 16).astype(np.int32)
        cv2.fillPoly(self.pixels, [fixed], colour, cv2.LINE_AA, 4)

    def box(self, x: float, y: float, width: float, height: float, colour: Colour) -> None:
        """Fill a rectangle with its lower left corner at x, y."""
        self.polygon([(x, y), (x + width, y), (x + width, y + height), (x, y + height)], colour)

    def disc(self, x: float, y: float, radius: float, colour: Colour, *, flat: float = 1.0) -> None:
        """Fill a disc, flattened by a factor."""
        centre = (
            round((self.base.real + x * self.metre_px) * 16),
            round((self.base.imag - y * self.metre_px) * 16),
        )
        axes = (
            max(8, round(radius * self.metre_px * 16)),
            max(8, round(radius * flat * self.metre_px * 16)),
        )
        cv2.ellipse(self.pixels, centre, axes, 0, 0, 360, colour, -1, cv2.LINE_AA, 4)

    def line(self, corners: list[tuple[float, float]], width: float, colour: Colour) -> None:
        """Draw an open line of a width in metres."""
        points = np.array(corners) * [self.metre_px, -self.metre_px]
        points += [self.base.real, self.base.imag]
        fixed = np.rint(np.clip(points, -4000, 4000) * 16).astype(np.int32)
        thickness = max(1, round(width * self.metre_px))
        cv2.polylines(
            self.pixels,
            [fixed],
            isClosed=False,
            color=colour,
            thickness=thickness,
            lineType=cv2.LINE_AA,
            shift=4,
        )

    def gradient(self, low: float, high: float, lower: Colour, upper: Colour) -> None:
        """Fill the full width between two heights with a vertical gradient."""
        first = max(0, round(self.base.imag - high * self.metre_px))
        last = min(self.pixels.shape[0], round(self.base.imag - low * self.metre_px))
        if last <= first:
            return
        share = np.linspace(0.0, 1.0, last - first)[:, None, None]
        rows = np.array(upper) * (1 - share) + np.array(lower) * share
        self.pixels[first:last] = rows.astype(np.uint8)

    def pick(self, *choices: Colour) -> Colour:
        """Return one of the colours, slightly varied."""
        base = choices[int(self.rng.integers(len(choices)))]
        r, g, b = (int(np.clip(c + self.rng.integers(-10, 11), 0, 255)) for c in base)
        return (r, g, b)

    def uniform(self, low: float, high: float) -> float:
        """Return a random number."""
        return float(self.rng.uniform(min(low, high), max(low, high)))

    def grain(self, strength: float) -> None:
        """Add a paper-like grain at two scales, and flecks that a point tracker can hold on to."""
        height, width = self.pixels.shape[:2]
        total = np.zeros((height, width), np.float32)
        for cell, share in ((2, 0.5), (7, 0.8)):
            noise = self.rng.standard_normal((height // cell + 2, width // cell + 2))
            total += share * cv2.resize(noise.astype(np.float32), (width, height))
        flecks = self.rng.standard_normal((height // 3 + 2, width // 3 + 2)).astype(np.float32)
        flecks = np.where(np.abs(flecks) > FLECK_THRESHOLD, np.sign(flecks), np.float32(0.0))
        total += FLECK_SHARE * cv2.resize(flecks, (width, height))
        grey = cv2.cvtColor(strength * total, cv2.COLOR_GRAY2RGB)
        mixed = cv2.add(self.pixels.astype(np.float32), grey)
        self.pixels = np.clip(mixed, 0, 255).astype(np.uint8)
