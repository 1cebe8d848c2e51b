"""Draw a body below the neck: limbs as tapered strokes, torso and pelvis as turned cylinders.

All radii are in body heights and become pixels through the `unit` of the placed body.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex, Float

from animaray.datasets.world.drawing import (
    Colour,
    Layer,
    capsule,
    darker,
    ellipse,
    lighter,
    mix,
    smooth_closed,
)
from animaray.datasets.world.people import Person

_ARM_RADII = (0.033, 0.027, 0.021)
_LEG_RADII = (0.049, 0.036, 0.027)
# Height (0 at the hip joints, 1 at the neck) and half width of the torso before scaling by person.
_TORSO_HEIGHTS = np.array([-0.13, 0.0, 0.18, 0.42, 0.66, 0.84, 0.945, 1.01])
_OUTLINE = 0.0065
_LIGHT = complex(-0.55, -0.83)


@dataclass(frozen=True, slots=True)
class PlacedBody:
    """A body on the picture: joints and the directions of its frame."""

    person: Person
    points: Complex[np.ndarray, " 18"]
    """Joints, px."""
    depths: Float[np.ndarray, " 18"]
    """Joints towards the camera, body heights."""
    unit: float
    """One body height, px."""
    right: complex
    """The chest's direction to the person's left arm (picture's right at yaw 0), on the picture."""
    forward: complex
    """The chest's forward direction, on the picture."""
    right_depth: float
    """How far `right` points to the camera."""
    forward_depth: float
    """How far `forward` points to the camera."""
    feet: tuple[complex, complex]
    """Direction of each foot on the picture, 1 for a foot seen from the side."""


def draw_limb(
    layer: Layer, joints: list[complex], radii: list[float], colour: Colour, *, outline: float
) -> None:
    """Draw a chain of tapered strokes with a dark rim, a shaded side and a lit side.

    Args:
        joints: The chain, px.
        radii: Radius at every joint, px.
        colour: RGB.
        outline: Width of the rim, px.
    """
    passes = (
        (outline, 0.0, darker(colour, 0.45)),
        (0.0, 0.0, darker(colour, 0.20)),
        (None, 0.22, colour),
    )
    pairs = list(zip(joints[:-1], joints[1:], radii[:-1], radii[1:], strict=True))
    for grow, shift, tone in passes:
        for start, end, first, last in pairs:
            if grow is None:
                move = _LIGHT * shift
                shape = capsule(start + move * first, end + move * last, first * 0.72, last * 0.72)
            else:
                shape = capsule(start, end, first + grow, last + grow)
            layer.fill(shape, tone)


def draw_leg(layer: Layer, body: PlacedBody, side: int) -> None:
    """Draw one leg with its shoe; side 0 is the person's right."""
    outfit, unit = body.person.outfit, body.unit
    thick = 0.5 + 0.5 * body.person.body.limb_thickness
    radii = [radius * unit * thick for radius in _LEG_RADII]
    hip, knee, ankle = (complex(p) for p in body.points[8 + 3 * side : 11 + 3 * side])
    rim = _OUTLINE * unit
    skin = body.person.face.skin
    _draw_shoe(layer, body, side, ankle)
    if outfit.leg_wear == "trousers":
        wide = [radii[0], radii[1] * 1.08, radii[2] * 1.2]
        draw_limb(layer, [hip, knee, ankle], wide, outfit.leg_colour, outline=rim)
        return
    draw_limb(layer, [hip, knee, ankle], [r * 0.9 for r in radii], skin, outline=rim)
    sock = ankle + 0.16 * (knee - ankle)
    draw_limb(layer, [ankle, sock], [radii[2], radii[2] * 0.98], (244, 242, 238), outline=rim)
    if outfit.leg_wear == "shorts":
        hem = hip + 0.72 * (knee - hip)
        draw_limb(layer, [hip, hem], [radii[0], radii[0] * 0.98], outfit.leg_colour, outline=rim)


def _draw_shoe(layer: Layer, body: PlacedBody, side: int, ankle: complex) -> None:
    unit, colour = body.unit, body.person.outfit.shoe_colour
    heel = ankle + unit * 0.018j - 0.018 * unit * body.feet[side]
    toe = ankle + unit * 0.024j + 0.082 * unit * body.feet[side]
    for grow, tone in ((0.006, darker(colour, 0.5)), (0.0, colour)):
        shape = capsule(heel, toe, unit * (0.026 + grow), unit * (0.022 + grow))
        layer.fill(shape, tone)
    sole = capsule(heel + unit * 0.018j, toe + unit * 0.015j, unit * 0.009, unit * 0.009)
    layer.fill(sole, mix(colour, (250, 248, 244), 0.75))


def draw_arm(layer: Layer, body: PlacedBody, side: int) -> None:
    """Draw one arm with its hand; side 0 is the person's right."""
    outfit, unit, skin = body.person.outfit, body.unit, body.person.face.skin
    thick = body.person.body.limb_thickness
    radii = [radius * unit * thick for radius in _ARM_RADII]
    shoulder, elbow, wrist = (complex(p) for p in body.points[2 + 3 * side : 5 + 3 * side])
    rim = _OUTLINE * unit
    _draw_hand(layer, body, elbow, wrist)
    if outfit.long_sleeves:
        sleeve = [radii[0], radii[1] * 1.06, radii[2] * 1.2]
        draw_limb(layer, [shoulder, elbow, wrist], sleeve, outfit.top_colour, outline=rim)
        cuff = wrist + 0.10 * (elbow - wrist)
        tone = outfit.accent_colour if outfit.top_pattern != "plain" else outfit.top_colour
        draw_limb(layer, [cuff, wrist], [sleeve[2]] * 2, tone, outline=rim)
        return
    draw_limb(layer, [shoulder, elbow, wrist], [r * 0.92 for r in radii], skin, outline=rim)
    hem = shoulder + 0.58 * (elbow - shoulder)
    draw_limb(
        layer, [shoulder, hem], [radii[0] * 1.02, radii[0] * 1.06], outfit.top_colour, outline=rim
    )


def _draw_hand(layer: Layer, body: PlacedBody, elbow: complex, wrist: complex) -> None:
    unit, skin = body.unit, body.person.face.skin
    reach = wrist - elbow
    along = reach / abs(reach) if abs(reach) > 0.02 * unit else 0.5j
    side = 1j * along * (1.0 if (along * 1j).imag > 0 else -1.0)
    palm, tips = wrist + along * unit * 0.022, wrist + along * unit * 0.052
    thumb = wrist + along * unit * 0.036 + side.conjugate().conjugate() * unit * 0.026
    shapes = ((palm, tips, 0.024, 0.019), (palm, thumb, 0.013, 0.010))
    for grow, tone in ((_OUTLINE, darker(skin, 0.42)), (0.0, skin)):
        for start, end, first, last in shapes:
            layer.fill(capsule(start, end, (first + grow) * unit, (last + grow) * unit), tone)


class Torso:
    """The trunk as a stack of ellipses along the spine."""

    def __init__(self, body: PlacedBody) -> None:
        self.body = body
        shape, unit = body.person.body, body.unit
        hips = complex(body.points[8] + body.points[11]) / 2
        neck = complex(body.points[1])
        self.spine = neck - hips
        along = self.spine / max(abs(self.spine), 1e-6)
        self.normal = along * 1j
        if (self.normal * body.right.conjugate()).real < 0 and abs(body.right) > 1e-3:
            self.normal = self.normal  # the sign only mirrors left and right of the outline
        thick = 0.55 + 0.45 * shape.limb_thickness
        hip = shape.hip_half_width + 0.036 * thick
        shoulder = shape.shoulder_half_width + 0.012
        waist = shape.waist * 0.5 * (hip + 0.84 * shoulder)
        widths = [hip * 0.80, hip, 0.5 * (hip + waist), waist, 0.86 * shoulder]
        self.widths = np.array([*widths, 0.95 * shoulder, 0.72 * shoulder, 0.034]) * unit
        depths = np.array([0.052, 0.066, 0.064, 0.060, 0.068, 0.064, 0.048, 0.030])
        self.depths = depths * thick * unit
        self._across = (body.right * self.normal.conjugate()).real
        self._ahead = (body.forward * self.normal.conjugate()).real
        self._hips = hips

    def rims(
        self, heights: Float[np.ndarray, " n"], *, grow: float = 0.0
    ) -> tuple[Complex[np.ndarray, " n"], Complex[np.ndarray, " n"]]:
        """Return both sides of the outline at the given heights, px."""
        width = np.interp(heights, _TORSO_HEIGHTS, self.widths)
        depth = np.interp(heights, _TORSO_HEIGHTS, self.depths)
        extent = np.hypot(width * self._across, depth * self._ahead) + grow
        middle = self._hips + heights * self.spine
        return middle + extent * self.normal, middle - extent * self.normal

    def surface(
        self, azimuth: Float[np.ndarray, " n"], heights: Float[np.ndarray, " n"]
    ) -> Complex[np.ndarray, " n"]:
        """Return points on the cloth: azimuth 0 is the breastbone, positive the person's left."""
        width = np.interp(heights, _TORSO_HEIGHTS, self.widths)
        depth = np.interp(heights, _TORSO_HEIGHTS, self.depths)
        shift = width * np.sin(azimuth) * self._across + depth * np.cos(azimuth) * self._ahead
        return self._hips + heights * self.spine + shift * self.normal

    def is_seen(self, azimuth: float) -> bool:
        """Return whether the cloth at an azimuth is turned to the camera."""
        body = self.body
        depth = np.sin(azimuth) * body.right_depth + np.cos(azimuth) * body.forward_depth
        return bool(depth > 0.12)

    def band(self, low: float, high: float, *, grow: float = 0.0) -> Complex[np.ndarray, " n"]:
        """Return the outline of the part between two heights."""
        heights = np.linspace(low, high, max(3, round((high - low) * 14)))
        first, second = self.rims(heights, grow=grow)
        return np.concatenate([first, second[::-1]])


def draw_torso(layer: Layer, body: PlacedBody) -> None:
    """Draw pelvis, shirt with its pattern, skirt and belt."""
    torso = Torso(body)
    outfit, unit = body.person.outfit, body.unit
    rim = _OUTLINE * unit
    if outfit.leg_wear == "skirt":
        _draw_skirt(layer, body, torso)
    else:
        layer.fill(
            smooth_closed(torso.band(-0.13, 0.16, grow=rim)), darker(outfit.leg_colour, 0.45)
        )
        layer.fill(smooth_closed(torso.band(-0.13, 0.16)), darker(outfit.leg_colour, 0.10))
    hem, shoulders = 0.03, 1.0
    outline = torso.band(hem, shoulders)
    layer.fill(torso.band(hem - 0.02, shoulders, grow=rim), darker(outfit.top_colour, 0.45))
    layer.fill(outline, darker(outfit.top_colour, 0.16))
    layer.fill(_lit(outline, unit), outfit.top_colour)
    _draw_pattern(layer, body, torso)
    if outfit.belt and outfit.leg_wear != "skirt":
        layer.fill(torso.band(0.03, 0.085, grow=rim * 0.5), (74, 52, 44))
    _draw_neckline(layer, body, torso)


def _lit(outline: Complex[np.ndarray, " n"], unit: float) -> Complex[np.ndarray, " n"]:
    middle = outline.mean()
    return middle + (outline - middle) * 0.90 + _LIGHT * 0.012 * unit


def _draw_skirt(layer: Layer, body: PlacedBody, torso: Torso) -> None:
    colour, unit = body.person.outfit.leg_colour, body.unit
    knees = [complex(body.points[9]), complex(body.points[12])]
    first, second = torso.rims(np.array([0.0, 0.14]), grow=0.004 * unit)
    ends = [complex(first[0]), complex(second[0])]
    if (ends[0] - ends[1]).real * (knees[0] - knees[1]).real < 0:
        knees.reverse()
    across = (ends[0] - ends[1]) / max(abs(ends[0] - ends[1]), 1e-6)
    flare = 0.055 * unit
    hem = [knees[0] + across * flare + 0.03j * unit, knees[1] - across * flare + 0.03j * unit]
    sag = 0.5 * (hem[0] + hem[1]) + 0.03j * unit
    outline = np.array(
        [first[1], 0.5 * (first[0] + hem[0]) + across * 0.012 * unit, hem[0], sag, hem[1],
         0.5 * (second[0] + hem[1]) - across * 0.012 * unit, second[1]]
    )  # fmt: skip
    layer.fill(outline.mean() + (outline - outline.mean()) * 1.035, darker(colour, 0.45))
    layer.fill(outline, darker(colour, 0.16))
    layer.fill(_lit(outline, unit), colour)
    for share in (0.3, 0.6):
        top = first[1] + share * (second[1] - first[1])
        low = hem[0] + share * (hem[1] - hem[0]) + 0.01j * unit
        fold = np.array([top + 0.4 * (low - top), low - 0.008 * unit, low + 0.008 * unit])
        layer.fill(fold, darker(colour, 0.16))


def _draw_pattern(layer: Layer, body: PlacedBody, torso: Torso) -> None:
    outfit, unit = body.person.outfit, body.unit
    accent = outfit.accent_colour
    if outfit.top_pattern == "stripes":
        bands = [torso.band(low, low + 0.065) for low in np.arange(0.12, 0.86, 0.145)]
        layer.fill_many(bands, darker(accent, 0.14))
        layer.fill_many([_lit(band, unit) for band in bands], accent)
    elif outfit.top_pattern == "block":
        band = torso.band(0.36, 0.66)
        layer.fill(band, darker(accent, 0.14))
        layer.fill(_lit(band, unit), accent)
    elif outfit.top_pattern == "dots":
        for row, height in enumerate(np.arange(0.12, 0.9, 0.13)):
            for azimuth in np.arange(-np.pi, np.pi, 0.6) + 0.3 * (row % 2):
                if torso.is_seen(float(azimuth)):
                    spread = azimuth + 0.13 * np.cos(_ANGLES)
                    spot = torso.surface(spread, height + 0.035 * np.sin(_ANGLES))
                    layer.fill(spot, accent)
    elif outfit.top_pattern == "logo" and torso.is_seen(0.0):
        sides = 3 + body.person.outfit_seed % 4
        angles = np.pi / 2 + np.arange(2 * sides) * np.pi / sides
        radius = np.where(np.arange(2 * sides) % 2 == 0, 1.0, 0.55 if sides > 3 else 0.9)
        layer.fill(torso.surface(0.62 * np.cos(_ANGLES), 0.6 + 0.17 * np.sin(_ANGLES)), accent)
        star = torso.surface(0.42 * radius * np.cos(angles), 0.6 + 0.125 * radius * np.sin(angles))
        layer.fill(star, lighter(outfit.top_colour, 0.5))


_ANGLES = np.linspace(0, 2 * np.pi, 12, endpoint=False)


def _draw_neckline(layer: Layer, body: PlacedBody, torso: Torso) -> None:
    outfit, skin = body.person.outfit, body.person.face.skin
    if not torso.is_seen(0.0):
        return
    azimuth = np.linspace(-1.2, 1.2, 9)
    across = np.abs(azimuth) / 1.2
    if outfit.neckline == "v":
        drop = 0.985 - 0.17 * (1.0 - across)
    else:
        drop = 0.985 - 0.07 * np.sqrt(1.0 - across**2)
    narrow = azimuth * 0.42
    edge = torso.surface(narrow, drop)
    top = torso.surface(narrow[::-1], np.full(9, 1.03))
    rim = torso.surface(narrow * 1.15, drop - 0.022)
    trim = outfit.accent_colour if outfit.top_pattern != "plain" else darker(outfit.top_colour, 0.3)
    layer.fill(np.concatenate([rim, top]), trim)
    layer.fill(np.concatenate([edge, top]), darker(skin, 0.10))
    if outfit.neckline == "collar":
        for sign in (-1.0, 1.0):
            flap = torso.surface(
                sign * np.array([0.04, 0.50, 0.62, 0.30]), np.array([0.90, 1.02, 0.95, 0.83])
            )
            layer.fill(flap, lighter(outfit.top_colour, 0.35))


def draw_neck(layer: Layer, body: PlacedBody, head_centre: complex) -> None:
    """Draw the neck from the shoulders into the head, darker under the chin."""
    unit, skin = body.unit, body.person.face.skin
    thick = 0.7 + 0.3 * body.person.body.limb_thickness
    base = complex(body.points[1]) + 0.004j * unit
    radius = 0.033 * unit * thick
    layer.fill(capsule(base, head_centre, radius + _OUTLINE * unit, radius), darker(skin, 0.42))
    layer.fill(capsule(base, head_centre, radius, radius), darker(skin, 0.10))
    chin = base + 0.34 * (head_centre - base)
    layer.fill(ellipse(chin, radius * 0.98, radius * 0.55), darker(skin, 0.28))
