"""Draw a face on a placed head: skin, ears, eyes, brows, nose, mouth, beard and glasses.

Every feature is a small outline on the head's surface, so it foreshortens with yaw and pitch and
vanishes where the surface turns away.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Complex, Float

from animaray.datasets.world.drawing import Colour, Layer, darker, ellipse, lighter, mix
from animaray.datasets.world.heads import HeadShape, mark_places

_CIRCLE_X = np.cos(np.linspace(0, 2 * np.pi, 16, endpoint=False))
_CIRCLE_Y = np.sin(np.linspace(0, 2 * np.pi, 16, endpoint=False))
_ACROSS = np.linspace(-1.0, 1.0, 9)
_INK: Colour = (52, 34, 44)
_WHITE: Colour = (252, 250, 246)


def skin_shade(head: HeadShape) -> Colour:
    """Return the colour of the person's skin in shadow."""
    skin = head.face.skin
    return mix(darker(skin, 0.22), (196, 84, 84), 0.14)


def draw_skin(layer: Layer, head: HeadShape) -> None:
    """Draw the ears on the far side and the bare head in two tones."""
    _draw_ears(layer, head, near=False)
    outline = head.outline()
    unit = head.placement.unit_px
    layer.fill(head.outline(swell=0.018), darker(head.face.skin, 0.42))
    layer.fill(outline, skin_shade(head))
    centre = outline.mean()
    layer.fill(centre + (outline - centre) * 0.935 + unit * (-0.050 - 0.035j), head.face.skin)


def draw_features(layer: Layer, head: HeadShape, *, eye_open: float, mouth_open: float) -> None:
    """Draw everything on the face but hair and glasses.

    Args:
        eye_open: 1 for open eyes, 0 for closed.
        mouth_open: 0 for a closed mouth, 1 for a wide open one.
    """
    face = head.face
    _draw_marks(layer, head)
    if head.faces_camera(0.0, face.mouth_height, threshold=-0.35):
        if face.beard != "none":
            _draw_beard(layer, head)
        if head.faces_camera(0.0, face.mouth_height):
            _draw_mouth(layer, head, mouth_open)
    for side in (-1.0, 1.0):
        if head.faces_camera(side * _eye_x(head), face.eye_height):
            _draw_eye(layer, head, side, eye_open)
    for side in (-1.0, 1.0):
        if head.faces_camera(side * _eye_x(head), face.eye_height, threshold=0.0):
            _draw_brow(layer, head, side)
    if head.rotation[2, 2] > 0.02:
        _draw_nose(layer, head)


def draw_near_ears(layer: Layer, head: HeadShape) -> None:
    """Draw the ear on the camera's side."""
    _draw_ears(layer, head, near=True)


def draw_glasses(layer: Layer, head: HeadShape) -> None:
    """Draw the frame of the glasses, if the person wears any and faces the camera."""
    face = head.face
    if face.glasses == "none" or head.rotation[2, 2] < 0.1:
        return
    rim_x, rim_y = face.half_width * 0.335, 0.225
    power = 0.55 if face.glasses == "square" else 1.0
    ring_x = np.sign(_CIRCLE_X) * np.abs(_CIRCLE_X) ** power
    ring_y = np.sign(_CIRCLE_Y) * np.abs(_CIRCLE_Y) ** power
    front = depth = float(head.on_face(np.array([0.3]), np.array([face.eye_height]))[0, 2]) + 0.10
    del depth
    thickness = 0.042
    for side in (-1.0, 1.0):
        x = side * _eye_x(head)
        if not head.faces_camera(x, face.eye_height, threshold=-0.05):
            continue
        rings = []
        for grow in (thickness, -thickness * 0.4):
            points = np.stack(
                [
                    x + (rim_x + grow) * ring_x,
                    face.eye_height - 0.02 + (rim_y + grow) * ring_y,
                    np.full(16, front),
                ],
                axis=1,
            )
            rings.append(head.project(points))
        layer.fill_ring(rings[0], rings[1], face.glasses_colour)
        width = float(head.half_width(np.array([face.eye_height]))[0])
        if head.rotation[2] @ np.array([side, 0.0, 0.15]) > 0:
            arm = np.array(
                [
                    [x + side * rim_x, face.eye_height, front],
                    [side * (width + 0.02), face.eye_height, 0.0],
                ]
            )
            layer.stroke(head.project(arm), 0.05 * head.placement.unit_px, face.glasses_colour)
    inner = _eye_x(head) - rim_x
    bridge = np.array([[-inner, face.eye_height, front], [inner, face.eye_height, front]])
    layer.stroke(head.project(bridge), 0.05 * head.placement.unit_px, face.glasses_colour)


def face_points(head: HeadShape) -> tuple[Float[np.ndarray, "5 2"], Bool[np.ndarray, " 5"]]:
    """Return the five face keypoints (nose, both eyes, both ears, px) and which can be seen.

    The person's right side comes first, as in OpenPose.
    """
    face = head.face
    eye, ear = _eye_x(head), float(head.half_width(np.array([0.0]))[0]) + 0.03
    points = np.concatenate(
        [
            _nose_tip(head)[None],
            head.on_face(np.array([-eye, eye]), np.full(2, face.eye_height)),
            np.array([[-ear, -0.04, -0.05], [ear, -0.04, -0.05]]),
        ]
    )
    seen = [
        bool(head.rotation[2, 2] > 0.15),
        head.faces_camera(-eye, face.eye_height),
        head.faces_camera(eye, face.eye_height),
        bool(head.rotation[2] @ np.array([-1.0, 0.0, 0.0]) > -0.25),
        bool(head.rotation[2] @ np.array([1.0, 0.0, 0.0]) > -0.25),
    ]
    plane = head.project(points)
    return np.stack([plane.real, plane.imag], axis=1), np.array(seen)


def face_landmarks(head: HeadShape) -> Float[np.ndarray, "5 2"]:
    """Return eyes, nose tip and mouth corners in ArcFace order (picture's left first), px."""
    face = head.face
    eye, mouth = _eye_x(head), face.mouth_half_width
    points = np.concatenate(
        [
            head.on_face(np.array([-eye, eye]), np.full(2, face.eye_height)),
            _nose_tip(head)[None],
            head.on_face(np.array([-mouth, mouth]), np.full(2, face.mouth_height + face.smile)),
        ]
    )
    plane = head.project(points)
    return np.stack([plane.real, plane.imag], axis=1)


def _eye_x(head: HeadShape) -> float:
    return head.face.eye_spacing * head.face.half_width


def _on_face(
    head: HeadShape, x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]
) -> Complex[np.ndarray, " n"]:
    return head.project(head.on_face(x, y))


def _draw_ears(layer: Layer, head: HeadShape, *, near: bool) -> None:
    face = head.face
    width = float(head.half_width(np.array([0.0]))[0])
    for side in (-1.0, 1.0):
        depth = float(head.rotation[2] @ np.array([side, 0.0, 0.0]))
        if (depth > 0.12) != near:
            continue
        for scale, colour in ((1.0, face.skin), (0.58, skin_shade(head))):
            reach, height = 0.15 * scale, face.ear_half_height * scale
            points = np.stack(
                [
                    side * (width + 0.015 + 0.09 * scale * _CIRCLE_X),
                    -0.03 + height * _CIRCLE_Y + 0.04 * _CIRCLE_X,
                    -0.06 - reach * _CIRCLE_X,
                ],
                axis=1,
            )
            outline = head.project(points)
            if scale == 1.0:
                middle = outline.mean()
                layer.fill(middle + (outline - middle) * 1.1, darker(face.skin, 0.42))
            layer.fill(outline, colour)
        if face.earrings:
            spot = head.project(np.array([[side * (width + 0.04), -0.26, -0.04]]))[0]
            radius = 0.055 * head.placement.unit_px
            layer.fill(ellipse(complex(spot), radius, radius), (244, 206, 96))


def _draw_marks(layer: Layer, head: HeadShape) -> None:
    face, unit = head.face, head.placement.unit_px
    if face.cheek_blush > 0.04:
        blush = mix(face.skin, (236, 92, 92), face.cheek_blush)
        for side in (-1.0, 1.0):
            x = side * 0.56 * face.half_width
            if head.faces_camera(x, -0.28, threshold=0.15):
                layer.fill(_on_face(head, x + 0.15 * _CIRCLE_X, -0.28 + 0.10 * _CIRCLE_Y), blush)
    tone = darker(face.skin, 0.3)
    for x, y in mark_places(face.texture_seed, face.freckles):
        if head.faces_camera(x, y, threshold=0.15):
            spot = _on_face(head, np.array([x]), np.array([y]))[0]
            layer.fill(ellipse(complex(spot), 0.022 * unit, 0.022 * unit), tone)
    if face.mole is not None and head.faces_camera(*face.mole, threshold=0.15):
        spot = _on_face(head, np.array([face.mole[0]]), np.array([face.mole[1]]))[0]
        layer.fill(ellipse(complex(spot), 0.035 * unit, 0.035 * unit), _INK)


def _draw_eye(layer: Layer, head: HeadShape, side: float, eye_open: float) -> None:
    face = head.face
    x0, y0 = side * _eye_x(head), face.eye_height
    width = face.eye_half_width
    height = width * face.eye_roundness * max(eye_open, 0.06)
    tilt = side * np.tan(face.eye_tilt_rad)
    lid_x = x0 + width * 1.12 * _ACROSS
    lid_y = y0 + tilt * (lid_x - x0) + height * np.sqrt(np.clip(1.0 - (_ACROSS * 0.96) ** 2, 0, 1))
    if eye_open > 0.25:
        eye_x, eye_y = x0 + width * _CIRCLE_X, height * _CIRCLE_Y
        layer.fill(_on_face(head, eye_x, y0 + tilt * (eye_x - x0) + eye_y), _WHITE)
        radius = min(width * 0.66, max(height * 0.98, width * 0.45))
        clip = min(1.0, height / radius)
        rounds = (
            (1.0, darker(face.eye_colour, 0.25)),
            (0.84, face.eye_colour),
            (0.50, (24, 20, 26)),
        )
        for scale, colour in rounds:
            shift = np.clip(radius * scale * _CIRCLE_Y, -height * clip, height * clip)
            layer.fill(_on_face(head, x0 + radius * scale * _CIRCLE_X, y0 + shift), colour)
        spot = _on_face(head, np.array([x0 - 0.35 * radius]), np.array([y0 + 0.35 * radius]))[0]
        glint = 0.26 * radius * head.placement.unit_px
        layer.fill(ellipse(complex(spot), glint, glint), _WHITE)
    thickness = face.lashes * width * (0.5 + 0.5 * np.clip(side * _ACROSS + 0.6, 0.0, 1.0))
    upper = np.concatenate([lid_y + thickness * 0.7, (lid_y - thickness * 0.5)[::-1]])
    layer.fill(_on_face(head, np.concatenate([lid_x, lid_x[::-1]]), upper), _INK)


def _draw_brow(layer: Layer, head: HeadShape, side: float) -> None:
    face = head.face
    x0, width = side * _eye_x(head), face.eye_half_width * 1.25
    y0 = face.eye_height + face.eye_half_width * face.eye_roundness * 0.6 + face.brow_gap
    x = x0 + width * _ACROSS
    arch = y0 + 0.05 * (1.0 - _ACROSS**2) + side * np.tan(face.brow_tilt_rad) * (x - x0)
    # Thick at the nose, thin at the temple.
    half = 0.5 * face.brow_thickness * (1.15 - 0.55 * np.clip(side * _ACROSS, -1.0, 1.0))
    outline_x = np.concatenate([x, x[::-1]])
    outline_y = np.concatenate([arch + half, (arch - half)[::-1]])
    is_bald = face.hair_style == "bald"
    colour = darker(face.skin, 0.6) if is_bald else darker(face.hair_colour, 0.25)
    layer.fill(_on_face(head, outline_x, outline_y), colour)


def _nose_tip(head: HeadShape) -> Float[np.ndarray, " 3"]:
    face = head.face
    y = face.eye_height - face.nose_length
    front = head.on_face(np.zeros(1), np.array([y]))[0]
    return front + np.array([0.0, 0.02, face.nose_depth])


def _draw_nose(layer: Layer, head: HeadShape) -> None:
    face = head.face
    tip = _nose_tip(head)
    base = head.on_face(np.zeros(1), np.array([tip[1] - 0.05]))[0]
    bridge = head.on_face(np.zeros(1), np.array([face.eye_height - 0.04]))[0]
    wide, ball = face.nose_half_width, 0.62 * face.nose_half_width + 0.02
    bridge_x = 0.22 * wide
    points = np.concatenate(
        [
            np.array([[-bridge_x, bridge[1], bridge[2]], [bridge_x, bridge[1], bridge[2]]]),
            tip - np.array([0, 0, ball * 0.6])
            + ball * np.stack([_CIRCLE_X, _CIRCLE_Y, np.zeros(16)], axis=1),
            np.array([-wide * 0.66, tip[1] - 0.03, base[2] + 0.02])
            + 0.42 * wide * np.stack([_CIRCLE_X, _CIRCLE_Y, np.zeros(16)], axis=1),
            np.array([wide * 0.66, tip[1] - 0.03, base[2] + 0.02])
            + 0.42 * wide * np.stack([_CIRCLE_X, _CIRCLE_Y, np.zeros(16)], axis=1),
        ]
    )  # fmt: skip
    plane = head.project(points)
    unit = head.placement.unit_px
    layer.fill_hull(plane + unit * (0.035 + 0.045j), skin_shade(head))
    layer.fill_hull(plane, lighter(face.skin, 0.08))
    spot = complex(head.project(tip[None])[0]) + unit * (-0.02 - 0.02j)
    layer.fill(ellipse(spot, 0.035 * unit, 0.03 * unit), lighter(face.skin, 0.5))


def _draw_mouth(layer: Layer, head: HeadShape, mouth_open: float) -> None:
    face = head.face
    x = face.mouth_half_width * _ACROSS
    bow = 1.0 - _ACROSS**2
    middle = face.mouth_height + face.smile * _ACROSS**2
    gap = 0.5 * 0.20 * mouth_open * bow
    full = face.mouth_fullness
    upper = middle + gap + full * bow * (1.0 - 0.25 * np.exp(-((_ACROSS / 0.2) ** 2)))
    lower = middle - gap - 1.15 * full * bow
    outline_x = np.concatenate([x, x[::-1]])
    layer.fill(_on_face(head, outline_x, np.concatenate([upper, lower[::-1]])), face.lip_colour)
    line = np.maximum(gap, 0.016)
    inner_y = np.concatenate([middle + line, (middle - line)[::-1]])
    layer.fill(_on_face(head, outline_x, inner_y), mix(darker(face.lip_colour, 0.6), _INK, 0.5))
    if mouth_open > 0.2:
        teeth = np.concatenate([middle + gap, (middle + gap - 0.5 * gap)[::-1]])
        layer.fill(_on_face(head, 0.8 * outline_x, teeth), _WHITE)


def _draw_beard(layer: Layer, head: HeadShape) -> None:
    face = head.face
    hair = darker(face.hair_colour, 0.12)
    if face.hair_style == "bald":
        hair = mix(hair, darker(face.skin, 0.6), 0.4)
    if face.beard in {"full", "stubble"}:
        colour = mix(face.skin, hair, 0.42) if face.beard == "stubble" else hair
        span = head.visible_span(-1.45, 1.45)
        if span is not None:
            layer.fill(_beard_outline(head, span), colour)
    elif face.beard == "goatee" and head.faces_camera(0.0, face.mouth_height):
        wide, high = 0.27, 0.5 * (face.mouth_height + 0.12 + 1.02)
        y = face.mouth_height + 0.12 - high + high * _CIRCLE_Y
        layer.fill(_on_face(head, wide * _CIRCLE_X, np.maximum(y, -1.0)), hair)
    if face.beard in {"moustache", "full", "goatee"} and head.faces_camera(0.0, face.mouth_height):
        x = (face.mouth_half_width + 0.07) * _ACROSS
        arch = face.mouth_height + face.mouth_fullness + 0.07 - 0.11 * _ACROSS**2
        thick = 0.085 * (1.0 - 0.75 * np.abs(_ACROSS))
        y = np.concatenate([arch + thick, (arch - thick)[::-1]])
        layer.fill(_on_face(head, np.concatenate([x, x[::-1]]), y), hair)


def _beard_outline(head: HeadShape, span: tuple[float, float]) -> Complex[np.ndarray, " points"]:
    """Return the beard's outline: cheek line on top, the rim of the jaw below."""
    azimuth = np.linspace(span[0], span[1], 15)
    wrapped = np.abs((azimuth + np.pi) % (2 * np.pi) - np.pi)
    cheek = np.interp(wrapped, [0.0, 0.35, 0.6, 1.0, 1.45], [-0.36, -0.38, -0.48, -0.42, -0.02])
    rim = np.linspace(0.0, 1.0, 8)
    swell = 0.03
    top = head.surface(azimuth, cheek, swell=swell)
    right = head.surface(np.full(8, span[1]), cheek[-1] + (-1.0 - cheek[-1]) * rim, swell=swell)
    left = head.surface(np.full(8, span[0]), cheek[0] + (-1.0 - cheek[0]) * rim, swell=swell)
    return head.project(np.concatenate([top, right, left[::-1]]))
