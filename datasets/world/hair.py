"""Draw hair on a placed head: a cap with a hairline by style, and what hangs or stands off it.

The hairline is a height for every azimuth; the cap is the visible part of the hair shell above it,
so that a turned head shows its side and its back.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Complex, Float

from animaray.datasets.world.drawing import Colour, Layer, darker, ellipse, lighter, mix
from animaray.datasets.world.heads import DEPTH_RATIO, HeadShape

# Height of the hairline (head units) at azimuths 0, +-0.5, +-1.0, +-1.35, +-1.7, +-2.4, +-pi.
_AZIMUTHS = np.array([0.0, 0.5, 1.0, 1.35, 1.7, 2.4, np.pi])
_HAIRLINES: dict[str, tuple[float, ...]] = {
    "buzz": (0.62, 0.58, 0.42, -0.02, 0.05, -0.40, -0.52),
    "short": (0.52, 0.48, 0.40, -0.10, 0.08, -0.45, -0.58),
    "side_part": (0.55, 0.52, 0.40, -0.12, 0.06, -0.48, -0.60),
    "quiff": (0.60, 0.55, 0.42, -0.08, 0.10, -0.42, -0.55),
    "fringe": (0.30, 0.31, 0.26, -0.75, -0.95, -1.00, -1.00),
    "bob": (0.58, 0.46, 0.15, -0.72, -0.88, -0.95, -0.95),
    "long": (0.62, 0.48, 0.12, -1.25, -1.60, -1.75, -1.80),
    "bun": (0.60, 0.54, 0.38, 0.02, 0.12, -0.35, -0.48),
    "ponytail": (0.58, 0.50, 0.34, -0.05, 0.12, -0.35, -0.48),
    "curly": (0.46, 0.42, 0.26, -0.30, -0.45, -0.65, -0.70),
    "afro": (0.52, 0.46, 0.30, -0.05, -0.15, -0.50, -0.60),
}
_SWELL = {"buzz": 0.025, "afro": 0.36, "curly": 0.16, "bun": 0.05, "ponytail": 0.05}
_COVERS_EARS = {"fringe", "bob", "long", "curly", "afro"}
_HANGING = {"fringe", "bob", "long"}


def covers_ears(style: str) -> bool:
    """Return whether a hair style hides the ears."""
    return style in _COVERS_EARS


def draw_hair_behind(layer: Layer, head: HeadShape) -> None:
    """Draw the hair that lies behind neck and shoulders for a head that faces the camera."""
    face = head.face
    style = face.hair_style
    shade = darker(face.hair_colour, 0.35)
    if style in _HANGING:
        low = _HAIRLINES[style][-1] - (0.0 if style == "long" else 0.05)
        heights = np.concatenate([np.linspace(0.6, low, 8), [low - 0.06]])
        swell = face.hair_volume * 0.9 + 0.05
        right = _shell(head, np.full(9, head.right_rim), heights, swell)
        left = _shell(head, np.full(9, head.right_rim - np.pi), heights, swell)
        layer.fill(head.project(np.concatenate([right, left[::-1]])), shade)
    if style == "ponytail":
        _draw_ponytail(layer, head, shade)
    if style == "bun" and head.rotation[2, 2] > -0.2:
        _draw_bun(layer, head)


def draw_hair(layer: Layer, head: HeadShape) -> None:
    """Draw the cap of hair over the head, its shine and its curls."""
    face = head.face
    style = face.hair_style
    if style == "bald":
        _draw_bald_shine(layer, head)
        return
    colour = face.hair_colour
    swell = _SWELL.get(style, face.hair_volume)
    if style == "buzz":
        colour = mix(face.skin, face.hair_colour, 0.72)
    dark = darker(colour, 0.40)
    cap, lit_cap = _cap(head, swell), _cap(head, swell, inset=0.07)
    if style in {"curly", "afro"}:
        _draw_curls(layer, head, swell, dark, 1.16)
        _draw_curls(layer, head, swell, colour, 1.0)
        layer.fill(cap, colour)
        _draw_locks(layer, head, swell)
    else:
        middle = complex(head.placement.centre)
        layer.fill(middle + (cap - middle) * 1.022, dark)
        layer.fill(cap, darker(colour, 0.16))
        unit = head.placement.unit_px
        layer.fill(lit_cap + unit * (-0.035 - 0.01j), colour)
        _draw_shine(layer, head, swell, lighter(colour, 0.22))
    if style == "quiff":
        _draw_quiff(layer, head, swell, colour)
    if head.rotation[2, 2] <= -0.2:
        if style == "bun":
            _draw_bun(layer, head)
        if style == "ponytail":
            _draw_ponytail(layer, head, darker(colour, 0.1))


def _hairline(head: HeadShape, azimuth: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    face = head.face
    wrapped = (azimuth + np.pi) % (2 * np.pi) - np.pi
    line = np.interp(np.abs(wrapped), _AZIMUTHS, np.array(_HAIRLINES[face.hair_style]))
    sign = -1.0 if face.hair_mirrored else 1.0
    if face.hair_style in {"side_part", "bob", "long", "short"}:
        # The parting: high on one side, sweeping down across the forehead to the other.
        front = np.exp(-((wrapped / 0.95) ** 2))
        line = line + 0.17 * front * np.tanh(3.0 * sign * (wrapped - sign * 0.25))
    if face.hair_style == "fringe":
        line = line + 0.025 * np.sin(wrapped * 17.0) * (np.abs(wrapped) < 0.9)
    if face.hair_style == "short":
        line = line + 0.035 * np.sin(wrapped * 21.0 + 1.0) * (np.abs(wrapped) < 0.9)
    return line


def _shell(
    head: HeadShape, azimuth: Float[np.ndarray, " n"], height: Float[np.ndarray, " n"], swell: float
) -> Float[np.ndarray, "n 3"]:
    """Return points of the hair shell: the skull above the temples, straight down below."""
    top = 1.0 + 0.75 * swell
    on_skull = np.clip(height / top, 0.08, 1.0)
    width = head.half_width(on_skull) + swell * np.sqrt(np.clip(1.02 - on_skull, 0, 1))
    width = width * (1.0 + 0.05 * np.clip(-height, 0.0, 1.0))
    depth = DEPTH_RATIO * width * np.cos(azimuth) - 0.08
    return np.stack([width * np.sin(azimuth), height, depth], axis=1)


def _cap(head: HeadShape, swell: float, *, inset: float = 0.0) -> Complex[np.ndarray, " points"]:
    """Return the outline of the visible hair above the hairline."""
    low, high = head.right_rim - np.pi, head.right_rim
    azimuth = np.linspace(low, high, 41)
    line = _hairline(head, azimuth) + 0.4 * inset
    # At the rim the hair stands off the head; inside the face it lies on the skin.
    wrapped = np.abs((azimuth + np.pi) % (2 * np.pi) - np.pi)
    near_face = np.clip(1.25 - wrapped, 0.0, 1.0)
    lower = _shell(head, azimuth, line, swell)
    skin = head.surface(azimuth, np.clip(line, -1.0, 1.0), swell=0.02)
    lower = lower + (skin - lower) * near_face[:, None]
    top = (1.0 + 0.75 * swell) * (1.0 - 0.6 * inset)
    rise = np.sin(np.linspace(0.0, 0.5 * np.pi, 10))
    right = _shell(head, np.full(10, high), line[-1] + (top - line[-1]) * rise, swell)
    left = _shell(head, np.full(10, low), line[0] + (top - line[0]) * rise, swell)
    outline = head.project(np.concatenate([lower, right, left[::-1]]))
    if inset:
        centre = complex(head.placement.centre)
        outline = centre + (outline - centre) * (1.0 - 0.5 * inset)
    return outline


def _draw_shine(layer: Layer, head: HeadShape, swell: float, colour: Colour) -> None:
    low, high = head.right_rim - np.pi, head.right_rim
    azimuth = low + (high - low) * np.linspace(0.16, 0.62, 12)
    band = 0.05 * np.sin(np.linspace(0, np.pi, 12))
    middle = 0.80 - 0.02 * np.cos(azimuth * 3)
    ring = np.concatenate([middle + band, (middle - band)[::-1]])
    points = _shell(head, np.concatenate([azimuth, azimuth[::-1]]), ring, swell)
    layer.fill(head.project(points), colour)


def _draw_bald_shine(layer: Layer, head: HeadShape) -> None:
    unit = head.placement.unit_px
    spot = head.placement.centre + unit * (-0.30 - 0.70j)
    layer.fill(
        ellipse(spot, 0.17 * unit, 0.08 * unit, angle_rad=-0.5), lighter(head.face.skin, 0.4)
    )


@lru_cache(maxsize=256)
def _curl_places(seed: int) -> Float[np.ndarray, "curls 3"]:
    """Return azimuth, share of the height and size of the curls of one person."""
    rng = np.random.default_rng([14, seed])
    count = 46
    share = np.sqrt(rng.uniform(0.0, 1.0, count))
    azimuth = np.linspace(-np.pi, np.pi, count, endpoint=False) * 7 % (2 * np.pi) - np.pi
    return np.stack([azimuth + rng.normal(0, 0.1, count), share, rng.uniform(0.8, 1.2, count)], 1)


def _draw_curls(layer: Layer, head: HeadShape, swell: float, colour: Colour, grow: float) -> None:
    places = _curl_places(head.face.texture_seed)
    azimuth, share = places[:, 0], places[:, 1]
    line = _hairline(head, azimuth)
    top = 0.92 + 0.7 * swell
    points = _shell(head, azimuth, line + (top - line) * share, swell * 0.92)
    shown = head.towards_camera(points) > -0.25
    # Curls over the forehead stay on the hairline.
    radius = (0.13 + 0.25 * swell) * grow * head.placement.unit_px
    for spot, size in zip(head.project(points[shown]), places[shown, 2], strict=True):
        layer.fill(ellipse(complex(spot), radius * size, radius * size), colour)


def _draw_locks(layer: Layer, head: HeadShape, swell: float) -> None:
    places = _curl_places(head.face.texture_seed)[::2]
    line = _hairline(head, places[:, 0])
    height = line + 0.06 + (0.85 + 0.6 * swell - line) * places[:, 1] * 0.95
    points = _shell(head, places[:, 0], height, swell)
    shown = head.towards_camera(points) > 0.1
    unit = head.placement.unit_px
    for index, spot in enumerate(head.project(points[shown])):
        tone = (
            lighter(head.face.hair_colour, 0.13)
            if index % 2
            else darker(head.face.hair_colour, 0.18)
        )
        layer.fill(ellipse(complex(spot), 0.07 * unit, 0.055 * unit, angle_rad=float(index)), tone)


def _draw_quiff(layer: Layer, head: HeadShape, swell: float, colour: Colour) -> None:
    if head.rotation[2, 2] < -0.3:
        return
    sign = -1.0 if head.face.hair_mirrored else 1.0
    x = sign * np.array([-0.52, -0.45, -0.15, 0.25, 0.55, 0.50, 0.0])
    y = np.array([0.62, 0.98, 1.22, 1.26, 1.02, 0.66, 0.60])
    depth = 0.55 * head.face.half_width
    points = np.stack([x * head.face.half_width * 1.2, y + 0.4 * swell, np.full(7, depth)], axis=1)
    outline = _closed(head.project(points))
    layer.fill(outline, darker(colour, 0.16))
    middle = outline.mean()
    layer.fill(
        middle + (outline - middle) * 0.86 + head.placement.unit_px * (-0.03 - 0.03j), colour
    )


def _closed(points: Complex[np.ndarray, " n"]) -> Complex[np.ndarray, " m"]:
    from animaray.datasets.world.drawing import smooth_closed

    return smooth_closed(points)


def _draw_bun(layer: Layer, head: HeadShape) -> None:
    colour = head.face.hair_colour
    unit = head.placement.unit_px
    spot = complex(head.project(np.array([[0.0, 1.02, -0.45]]))[0])
    radius = (0.34 + 0.5 * head.face.hair_volume) * unit
    layer.fill(ellipse(spot, radius * 1.06, radius * 0.98), darker(colour, 0.4))
    layer.fill(ellipse(spot, radius, radius * 0.92), darker(colour, 0.16))
    lit = spot + radius * (-0.12 - 0.12j)
    layer.fill(ellipse(lit, radius * 0.78, radius * 0.7), colour)


def _draw_ponytail(layer: Layer, head: HeadShape, colour: Colour) -> None:
    sign = -1.0 if head.face.hair_mirrored else 1.0
    y = np.array([0.62, 0.75, 0.4, -0.2, -0.8, -1.35])
    z = np.array([-0.75, -1.1, -1.32, -1.30, -1.15, -0.95])
    x = sign * np.array([0.0, 0.12, 0.30, 0.42, 0.46, 0.36])
    half = np.array([0.12, 0.20, 0.26, 0.25, 0.18, 0.02]) * head.placement.unit_px
    spine = head.project(np.stack([x, y, z], axis=1))
    along = np.gradient(spine)
    normal = 1j * along / np.maximum(np.abs(along), 1e-6)
    outline = np.concatenate([spine + half * normal, (spine - half * normal)[::-1]])
    layer.fill(_closed(outline), darker(colour, 0.2))
    inner = np.concatenate([spine + half * 0.55 * normal, (spine - half * 0.75 * normal)[::-1]])
    layer.fill(_closed(inner), colour)
    band = complex(spine[0])
    unit = head.placement.unit_px
    layer.fill(ellipse(band, 0.14 * unit, 0.14 * unit), (206, 84, 92))
