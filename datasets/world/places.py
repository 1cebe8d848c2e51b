"""The places of the generated world: each function paints one kind of background."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from animaray.datasets.world.drawing import Colour, darker, lighter, mix
from animaray.datasets.world.painter import Painter


def _floor_boards(paint: Painter, colour: Colour) -> None:
    paint.gradient(paint.bottom, 0.0, darker(colour, 0.06), colour)
    y, step = 0.0, 0.045
    while y > paint.bottom:
        x = paint.left + paint.uniform(-1.2, 0.0)
        while x < paint.right:
            length = paint.uniform(0.5, 1.3) * (1 - 0.5 * y)
            tone = mix(colour, paint.pick((90, 60, 40), (230, 200, 160)), paint.uniform(0.0, 0.12))
            paint.box(x, y - step + 0.006, length - 0.012, step - 0.006, tone)
            x += length
        y -= step
        step *= 1.28


def _floor_tiles(paint: Painter, first: Colour, second: Colour) -> None:
    paint.gradient(paint.bottom, 0.0, first, first)
    edges = [0.0]
    while edges[-1] > paint.bottom:
        edges.append(edges[-1] - 0.055 * 1.35 ** (len(edges) - 1))
    for row, (high, low) in enumerate(itertools.pairwise(edges)):
        for column in range(-16, 17):
            if (row + column) % 2 == 0:
                continue
            near, far = 0.42 * (1 - 0.75 * low), 0.42 * (1 - 0.75 * high)
            paint.polygon(
                [
                    (column * far, high),
                    ((column + 1) * far, high),
                    ((column + 1) * near, low),
                    (column * near, low),
                ],
                second,
            )


def _picture_frame(paint: Painter, x: float, y: float, width: float, height: float) -> None:
    wood = paint.pick((92, 62, 46), (40, 40, 46), (214, 180, 120), (240, 236, 228))
    paint.box(x + 0.02, y - 0.03, width, height, darker(paint.pick((170, 160, 160)), 0.35))
    paint.box(x, y, width, height, wood)
    paint.box(x + 0.03, y + 0.03, width - 0.06, height - 0.06, (246, 242, 234))
    inner_x, inner_y, inner_w, inner_h = x + 0.07, y + 0.07, width - 0.14, height - 0.14
    sky = paint.pick((168, 210, 220), (246, 206, 160), (224, 160, 150), (140, 170, 200))
    paint.box(inner_x, inner_y, inner_w, inner_h, sky)
    paint.disc(inner_x + 0.7 * inner_w, inner_y + 0.72 * inner_h, 0.12 * inner_w, (252, 236, 190))
    for level in (0.5, 0.3):
        hill = paint.pick((74, 120, 110), (96, 84, 120), (180, 100, 84), (60, 88, 104))
        peak = paint.uniform(0.25, 0.7)
        paint.polygon(
            [
                (inner_x, inner_y),
                (inner_x + inner_w, inner_y),
                (inner_x + inner_w, inner_y + level * 0.5 * inner_h),
                (inner_x + peak * inner_w, inner_y + (level + 0.25) * inner_h),
                (inner_x, inner_y + level * 0.6 * inner_h),
            ],
            hill,
        )


def _plant(paint: Painter, x: float, y: float, height: float) -> None:
    pot = paint.pick((196, 110, 80), (236, 232, 222), (80, 92, 110))
    green = paint.pick((70, 130, 84), (52, 108, 92), (112, 146, 76))
    for leaf in range(11):
        angle = np.pi * (0.08 + 0.84 * leaf / 10) + paint.uniform(-0.1, 0.1)
        length = height * paint.uniform(0.45, 0.75)
        tip = (x + length * 0.7 * np.cos(angle), y + 0.3 * height + length * np.sin(angle))
        root = (x, y + 0.28 * height)
        middle = ((root[0] + tip[0]) / 2, (root[1] + tip[1]) / 2)
        wide = 0.09 * height
        tone = mix(green, lighter(green, 0.3), paint.uniform(0.0, 1.0))
        paint.polygon(
            [
                root,
                (middle[0] - wide * np.sin(angle), middle[1] + wide * np.cos(angle)),
                tip,
                (middle[0] + wide * np.sin(angle), middle[1] - wide * np.cos(angle)),
            ],
            tone,
        )
    wide = 0.16 * height
    paint.polygon(
        [
            (x - wide, y + 0.3 * height),
            (x + wide, y + 0.3 * height),
            (x + 0.7 * wide, y),
            (x - 0.7 * wide, y),
        ],
        pot,
    )
    paint.box(x - wide * 1.1, y + 0.26 * height, 2.2 * wide, 0.06 * height, darker(pot, 0.2))


def _room(paint: Painter) -> None:
    wall = paint.pick(
        (226, 214, 196), (186, 206, 206), (214, 190, 180), (196, 204, 178), (176, 186, 210)
    )
    paint.gradient(0.0, paint.top, wall, lighter(wall, 0.18))
    if paint.rng.random() < 0.5:
        panel = darker(wall, 0.12)
        x = paint.left
        while x < paint.right:
            paint.box(x, 0.0, 0.015, 0.95, panel)
            x += 0.22
        paint.box(paint.left, 0.93, paint.right - paint.left, 0.05, lighter(wall, 0.4))
    _floor_boards(paint, paint.pick((176, 128, 88), (150, 106, 78), (206, 170, 128)))
    paint.box(paint.left, 0.0, paint.right - paint.left, 0.09, lighter(wall, 0.5))
    x = paint.left + paint.uniform(0.05, 0.3)
    while x < paint.right:
        choice = paint.rng.random()
        if choice < 0.45:
            width = paint.uniform(0.32, 0.62)
            _picture_frame(paint, x, paint.uniform(1.25, 1.65), width, paint.uniform(0.36, 0.6))
        elif choice < 0.65:
            width = 0.9
            _window(paint, x, 1.0, width, 1.1)
        else:
            width = 0.7
            _shelf(paint, x, 1.45, width)
        x += width + paint.uniform(0.12, 0.4)
    for side in (paint.left + 0.35, paint.right - 0.4, paint.uniform(-0.9, 0.9)):
        if paint.rng.random() < 0.75:
            _plant(paint, side, -0.04, paint.uniform(0.7, 1.1))
    sofa = paint.pick((92, 120, 140), (190, 110, 90), (110, 134, 104), (210, 170, 90))
    _sofa(paint, paint.uniform(-1.4, 0.5), sofa)


def _window(paint: Painter, x: float, y: float, width: float, height: float) -> None:
    paint.box(x, y, width, height, (248, 246, 240))
    pane_w, pane_h = (width - 0.15) / 2, (height - 0.15) / 2
    for column in range(2):
        for row in range(2):
            left, low = x + 0.05 + column * (pane_w + 0.05), y + 0.05 + row * (pane_h + 0.05)
            paint.box(left, low, pane_w, pane_h, (176, 214, 232))
            paint.polygon(
                [(left, low), (left + 0.5 * pane_w, low), (left, low + 0.8 * pane_h)],
                (202, 230, 240),
            )
    paint.box(x - 0.05, y - 0.06, width + 0.1, 0.06, (226, 222, 212))


def _shelf(paint: Painter, x: float, y: float, width: float) -> None:
    wood = paint.pick((150, 104, 72), (206, 172, 132), (90, 66, 56))
    for level in range(2):
        base = y + 0.42 * level
        left = x + 0.03
        while left < x + width - 0.08:
            thick, tall = paint.uniform(0.03, 0.07), paint.uniform(0.18, 0.30)
            tone = paint.pick(
                (206, 90, 74), (70, 110, 150), (236, 196, 110), (84, 138, 110), (120, 86, 130)
            )
            paint.box(left, base, thick, tall, tone)
            paint.box(left, base + 0.7 * tall, thick, 0.02, lighter(tone, 0.5))
            left += thick + 0.006
        paint.box(x, base - 0.04, width, 0.04, wood)


def _sofa(paint: Painter, x: float, colour: Colour) -> None:
    shade, light = darker(colour, 0.22), lighter(colour, 0.12)
    paint.box(x, -0.06, 1.7, 0.42, shade)
    paint.box(x + 0.08, 0.2, 1.54, 0.62, colour)
    paint.box(x + 0.14, 0.30, 0.70, 0.46, light)
    paint.box(x + 0.87, 0.30, 0.70, 0.46, light)
    paint.box(x - 0.06, -0.04, 0.22, 0.58, lighter(colour, 0.05))
    paint.box(x + 1.54, -0.04, 0.22, 0.58, lighter(colour, 0.05))
    cushion = paint.pick((240, 200, 110), (230, 226, 214), (200, 90, 80))
    cx = x + paint.uniform(0.3, 1.1)
    paint.polygon([(cx, 0.32), (cx + 0.3, 0.36), (cx + 0.27, 0.66), (cx - 0.03, 0.62)], cushion)


def _tree(paint: Painter, x: float, y: float, height: float) -> None:
    bark = paint.pick((112, 82, 62), (92, 72, 66), (150, 130, 110))
    green = paint.pick((86, 142, 84), (60, 118, 88), (132, 158, 82), (206, 150, 74), (72, 128, 116))
    paint.polygon(
        [
            (x - 0.05 * height, y),
            (x + 0.05 * height, y),
            (x + 0.025 * height, y + 0.6 * height),
            (x - 0.025 * height, y + 0.6 * height),
        ],
        bark,
    )
    for layer, tone in enumerate((darker(green, 0.22), green, lighter(green, 0.14))):
        for _ in range(16):
            angle, radius = paint.uniform(0.0, 2 * np.pi), paint.uniform(0.0, 0.24) * height
            paint.disc(
                x + radius * np.cos(angle) - 0.03 * layer * height,
                y + 0.72 * height + 0.85 * radius * np.sin(angle) + 0.03 * layer * height,
                paint.uniform(0.05, 0.13 - 0.02 * layer) * height,
                tone,
            )


def _park(paint: Painter) -> None:
    sky = paint.pick((150, 200, 226), (236, 202, 172), (176, 210, 214))
    paint.gradient(0.0, paint.top, lighter(sky, 0.55), sky)
    for _ in range(4):
        x, y = paint.uniform(paint.left, paint.right), paint.uniform(1.9, max(2.0, paint.top))
        for _ in range(6):
            paint.disc(
                x + paint.uniform(-0.4, 0.4),
                y + paint.uniform(-0.05, 0.09),
                paint.uniform(0.1, 0.22),
                (250, 248, 242),
                flat=0.6,
            )
    for level, tone in ((0.9, (140, 178, 170)), (0.5, (118, 164, 128))):
        xs = np.linspace(paint.left, paint.right, 12)
        ridge = [(float(x), level + paint.uniform(-0.15, 0.2)) for x in xs]
        paint.polygon([(paint.left, 0.0), *ridge, (paint.right, 0.0)], tone)
    grass = paint.pick((134, 178, 96), (112, 164, 104), (170, 182, 96))
    paint.gradient(paint.bottom, 0.12, lighter(grass, 0.1), darker(grass, 0.06))
    for _ in range(7):
        _tree(
            paint,
            paint.uniform(paint.left, paint.right),
            paint.uniform(0.02, 0.1),
            paint.uniform(1.6, 2.6),
        )
    path = paint.pick((222, 204, 168), (206, 196, 184))
    paint.polygon([(-0.3, 0.1), (0.1, 0.1), (1.5, paint.bottom), (-1.1, paint.bottom)], path)
    for _ in range(170):
        x, y = paint.uniform(paint.left, paint.right), paint.uniform(paint.bottom, 0.08)
        size = 0.02 + 0.03 * max(0.0, -y)
        if paint.rng.random() < 0.75:
            tone = darker(grass, paint.uniform(0.1, 0.35))
            paint.polygon([(x - size, y), (x, y + 2.4 * size), (x + size, y)], tone)
        else:
            paint.disc(
                x, y, 0.6 * size, paint.pick((250, 240, 220), (240, 130, 120), (246, 206, 90))
            )


def _street(paint: Painter) -> None:
    paint.gradient(0.0, paint.top, (216, 226, 228), (164, 198, 222))
    x = paint.left - 0.2
    while x < paint.right:
        width = paint.uniform(1.2, 2.0)
        front = paint.pick(
            (206, 130, 104), (226, 190, 140), (140, 160, 172), (186, 110, 104), (170, 176, 150)
        )
        paint.box(x, 0.0, width, paint.top, front)
        _bricks(paint, x, width, front)
        y = 0.95
        while y < paint.top:
            count = max(1, int(width / 0.55))
            for column in range(count):
                left = x + (column + 0.5) * width / count - 0.15
                paint.box(left - 0.03, y - 0.03, 0.36, 0.56, lighter(front, 0.55))
                paint.box(
                    left, y, 0.30, 0.50, paint.pick((72, 92, 116), (246, 214, 140), (110, 140, 160))
                )
                paint.line([(left + 0.15, y), (left + 0.15, y + 0.5)], 0.02, lighter(front, 0.55))
            y += 0.78
        awning = paint.pick((206, 76, 70), (70, 130, 120), (232, 176, 76))
        for stripe in range(int(width / 0.16)):
            tone = awning if stripe % 2 else (246, 242, 232)
            left = x + 0.06 + 0.16 * stripe
            paint.polygon(
                [(left, 0.62), (left + 0.16, 0.62), (left + 0.16, 0.80), (left, 0.80)], tone
            )
        paint.box(x + 0.15, 0.0, 0.36, 0.6, darker(front, 0.45))
        paint.box(x + 0.62, 0.16, max(width - 0.8, 0.2), 0.42, (120, 156, 168))
        x += width
    stone = paint.pick((178, 172, 168), (198, 186, 172))
    _floor_tiles(paint, stone, darker(stone, 0.10))
    for x in np.arange(paint.left, paint.right, 1.5):
        paint.box(float(x) + 0.4, -0.08, 0.05, 2.0, (58, 62, 70))
        paint.disc(float(x) + 0.425, 1.98, 0.12, (250, 232, 176))


def _bricks(paint: Painter, x: float, width: float, front: Colour) -> None:
    for _ in range(round(26 * width)):
        left, y = x + paint.uniform(0.02, width - 0.2), paint.uniform(0.85, max(paint.top, 0.9))
        paint.box(left, y, 0.13, 0.05, darker(front, paint.uniform(0.05, 0.25)))


def _studio(paint: Painter) -> None:
    colour = paint.pick(
        (214, 196, 184), (150, 176, 190), (196, 180, 206), (232, 206, 160), (160, 190, 170)
    )
    paint.gradient(0.0, paint.top, lighter(colour, 0.25), darker(colour, 0.10))
    paint.gradient(paint.bottom, 0.0, lighter(colour, 0.10), lighter(colour, 0.25))
    for _ in range(60):
        x, y = paint.uniform(paint.left, paint.right), paint.uniform(paint.bottom, paint.top)
        size = paint.uniform(0.05, 0.22)
        tone = mix(
            colour,
            paint.pick((255, 250, 240), (90, 80, 120), (240, 140, 110)),
            paint.uniform(0.08, 0.3),
        )
        kind = paint.rng.integers(3)
        if kind == 0:
            paint.disc(x, y, size * 0.6, tone)
        elif kind == 1:
            paint.polygon([(x, y), (x + size, y + 0.3 * size), (x + 0.3 * size, y + size)], tone)
        else:
            paint.line([(x, y), (x + size, y + size), (x + 2 * size, y + 0.4 * size)], 0.03, tone)


def _pattern(paint: Painter) -> None:
    wall = paint.pick(
        (60, 92, 104), (222, 190, 170), (146, 160, 132), (186, 146, 160), (96, 96, 130)
    )
    accent = lighter(wall, 0.4) if sum(wall) < 420 else darker(wall, 0.3)
    second = paint.pick((236, 180, 100), (220, 110, 96), (240, 232, 214))
    paint.gradient(0.0, paint.top, wall, darker(wall, 0.08))
    step = paint.uniform(0.24, 0.36)
    style = paint.rng.integers(3)
    for row, y in enumerate(np.arange(0.12, paint.top + step, step)):
        for x in np.arange(paint.left - step, paint.right + step, step):
            cx, cy = float(x) + 0.5 * step * (row % 2), float(y)
            if style == 0:
                paint.polygon(
                    [
                        (cx - 0.4 * step, cy),
                        (cx, cy + 0.45 * step),
                        (cx + 0.4 * step, cy),
                        (cx, cy - 0.45 * step),
                    ],
                    accent,
                )
                paint.disc(cx, cy, 0.12 * step, second)
            elif style == 1:
                paint.disc(cx, cy, 0.34 * step, accent)
                paint.disc(cx, cy, 0.22 * step, wall)
                paint.disc(cx, cy, 0.10 * step, second)
            else:
                for angle in np.arange(0, 2 * np.pi, np.pi / 3) + 0.2 * row:
                    tip = (cx + 0.36 * step * np.cos(angle), cy + 0.36 * step * np.sin(angle))
                    paint.line([(cx, cy), tip], 0.03, accent)
                paint.disc(cx, cy, 0.09 * step, second)
    _floor_tiles(
        paint, (222, 214, 202), paint.pick((150, 140, 146), (186, 150, 130), (120, 134, 140))
    )
    paint.box(paint.left, 0.0, paint.right - paint.left, 0.11, lighter(wall, 0.6))


def _library(paint: Painter) -> None:
    wood = paint.pick((112, 76, 56), (150, 110, 78), (84, 70, 70))
    paint.gradient(0.0, paint.top, darker(wood, 0.45), darker(wood, 0.35))
    y = 0.12
    while y < paint.top:
        x = paint.left
        while x < paint.right:
            thick, tall = paint.uniform(0.04, 0.10), paint.uniform(0.24, 0.34)
            tone = paint.pick(
                (176, 78, 68),
                (66, 98, 128),
                (214, 176, 104),
                (84, 122, 96),
                (112, 84, 118),
                (206, 196, 180),
            )
            if paint.rng.random() < 0.92:
                paint.box(x, y, thick, tall, tone)
                paint.box(x, y + 0.72 * tall, thick, 0.03, lighter(tone, 0.45))
                paint.box(x + 0.8 * thick, y, 0.2 * thick, tall, darker(tone, 0.25))
            x += thick + 0.008
        paint.box(paint.left, y - 0.05, paint.right - paint.left, 0.05, lighter(wood, 0.1))
        y += 0.44
    for x in np.arange(paint.left, paint.right, 1.1):
        paint.box(float(x), 0.0, 0.06, paint.top, wood)
    _floor_boards(paint, paint.pick((166, 120, 90), (120, 92, 80)))
    paint.box(paint.left, 0.0, paint.right - paint.left, 0.07, darker(wood, 0.2))


PLACES: dict[str, Callable[[Painter], None]] = {
    "room": _room,
    "park": _park,
    "street": _street,
    "studio": _studio,
    "pattern": _pattern,
    "library": _library,
}
"""Painter of each kind of background."""
