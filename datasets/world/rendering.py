"""Put people on a picture: projection, order of the parts, ground shadow, truth."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from animaray.datasets.world.bodies import PlacedBody, draw_arm, draw_leg, draw_neck, draw_torso
from animaray.datasets.world.cameras import Similarity
from animaray.datasets.world.drawing import Layer
from animaray.datasets.world.faces import (
    draw_features,
    draw_glasses,
    draw_near_ears,
    draw_skin,
    face_landmarks,
    face_points,
)
from animaray.datasets.world.hair import covers_ears, draw_hair, draw_hair_behind
from animaray.datasets.world.heads import HeadPlacement, HeadShape
from animaray.datasets.world.people import Person
from animaray.datasets.world.postures import Pose
from animaray.datasets.world.truth import PersonTruth

_CAMERA_DISTANCE_M = 7.0
TILT = 0.16
"""How much lower a point lies on the picture for each metre towards the camera."""
_FACE_JOINTS = [0, 14, 15, 16, 17]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """How metres become pixels before the camera moves."""

    size: tuple[int, int]
    """Width and height of the frame, px."""
    metre_px: float
    """One metre at depth 0, px."""
    ground: complex
    """Where the point on the ground in the middle of the stage is seen, px."""

    @property
    def middle(self) -> complex:
        """Middle of the frame, px."""
        return complex((self.size[0] - 1) / 2, (self.size[1] - 1) / 2)


def draw_person(
    frame: UInt8[np.ndarray, "height width 3"],
    person: Person,
    pose: Pose,
    stage: Stage,
    camera: Similarity,
) -> PersonTruth:
    """Draw one person with a ground shadow into the frame, in place.

    Args:
        frame: RGB, as large as the stage.
        pose: Joints in metres.
        stage: Metres to pixels.
        camera: Move of the image plane.

    Returns:
        Where everything is, px.
    """
    body, head = place_person(person, pose, stage, camera)
    layer = _person_layer(body, head, pose, stage)
    if layer is not None:
        _draw_shadow(frame, body, pose, stage, camera)
        layer.paste_onto(frame)
    return _person_truth(body, head, stage)


def person_matte(
    person: Person, pose: Pose, stage: Stage, camera: Similarity
) -> UInt8[np.ndarray, "height width"]:
    """Return a person's opacity as `draw_person` draws them, without the shadow; 255 is opaque.

    Args:
        pose: Joints in metres.
        stage: Metres to pixels; gives the size.
        camera: Move of the image plane.
    """
    layer = _person_layer(*place_person(person, pose, stage, camera), pose, stage)
    if layer is None:
        return np.zeros(stage.size[::-1], np.uint8)
    return layer.opacity_over(stage.size)


def _person_layer(body: PlacedBody, head: HeadShape, pose: Pose, stage: Stage) -> Layer | None:
    """Return the drawn person, None outside of the frame."""
    layer = _layer_around(body, head, stage)
    if layer is None:
        return None
    back_view = head.rotation[2, 2] <= -0.2
    in_front = [_arm_is_in_front(body, side) for side in (0, 1)]
    if not back_view:
        draw_hair_behind(layer, head)
    for side in (0, 1):
        if not in_front[side]:
            draw_arm(layer, body, side)
    far_first = (
        (0, 1) if body.depths[9] + body.depths[10] < body.depths[12] + body.depths[13] else (1, 0)
    )
    for side in far_first:
        draw_leg(layer, body, side)
    draw_neck(layer, body, head.placement.centre)
    draw_torso(layer, body)
    if back_view:
        draw_hair_behind(layer, head)
    _draw_head(layer, head, pose)
    for side in sorted((0, 1), key=lambda index: body.depths[4 + 3 * index]):
        if in_front[side]:
            draw_arm(layer, body, side)
    return layer


def place_person(
    person: Person, pose: Pose, stage: Stage, camera: Similarity
) -> tuple[PlacedBody, HeadShape]:
    """Project joints and head to the picture."""
    joints = pose.joints
    zoom = 1.0 / (1.0 - joints[:, 2] / _CAMERA_DISTANCE_M)
    plane = stage.ground + stage.metre_px * (
        joints[:, 0] * zoom - 1j * joints[:, 1] * zoom + 1j * TILT * joints[:, 2]
    )
    points = camera.apply(plane, middle=stage.middle)
    turn = complex(np.cos(camera.roll_rad), np.sin(camera.roll_rad))
    unit = stage.metre_px * camera.scale * person.body.height_m * float(zoom[1])
    right = joints[5] - joints[2]
    right = right / np.linalg.norm(right)
    up = joints[1] - 0.5 * (joints[8] + joints[11])
    forward = np.cross(right, up)
    forward = forward / np.linalg.norm(forward)
    head = HeadShape(
        person.face,
        HeadPlacement(
            centre=complex(points[0]),
            unit_px=0.5 * person.body.head_height * unit,
            yaw_rad=pose.head_yaw_rad,
            pitch_rad=pose.head_pitch_rad,
            roll_rad=pose.head_roll_rad + camera.roll_rad,
        ),
    )
    placed = PlacedBody(
        person=person,
        points=points,
        depths=joints[:, 2] / person.body.height_m,
        unit=unit,
        right=complex(right[0], -right[1]) * turn,
        forward=complex(forward[0], -forward[1]) * turn,
        right_depth=float(right[2]),
        forward_depth=float(forward[2]),
        feet=(_foot(joints, 8, turn), _foot(joints, 11, turn)),
    )
    return placed, head


def _foot(joints: Float[np.ndarray, "18 3"], hip: int, turn: complex) -> complex:
    """Return a foot's direction on the picture: forward of the pelvis, tipped with the shin."""
    across = joints[11] - joints[8]
    ahead = np.array([-across[2], 0.0, across[0]])
    ahead = ahead / max(float(np.linalg.norm(ahead)), 1e-6)
    shin = joints[hip + 1] - joints[hip + 2]
    shin = shin / max(float(np.linalg.norm(shin)), 1e-6)
    tipped = ahead - 0.6 * float(ahead @ shin) * shin
    outwards = (0.18 if hip == 11 else -0.18) * across / max(float(np.linalg.norm(across)), 1e-6)
    tipped = tipped + outwards
    return complex(tipped[0], -tipped[1] + 0.42 * max(tipped[2], -0.15)) * turn


def _arm_is_in_front(body: PlacedBody, side: int) -> bool:
    reach = 0.5 * (body.depths[3 + 3 * side] + body.depths[4 + 3 * side]) - body.depths[1]
    return bool(reach > -0.012)


def _draw_head(layer: Layer, head: HeadShape, pose: Pose) -> None:
    draw_skin(layer, head)
    draw_features(layer, head, eye_open=pose.eye_open, mouth_open=pose.mouth_open)
    hidden_ears = covers_ears(head.face.hair_style)
    if hidden_ears:
        draw_near_ears(layer, head)
    draw_hair(layer, head)
    if not hidden_ears:
        draw_near_ears(layer, head)
    draw_glasses(layer, head)


def _layer_around(body: PlacedBody, head: HeadShape, stage: Stage) -> Layer | None:
    """Return a layer over the part of the frame the person can touch, None outside of it."""
    margin = 0.09 * body.unit
    reach = 2.6 * head.placement.unit_px
    xs, ys = body.points.real, body.points.imag
    centre = head.placement.centre
    left = max(0, int(min(xs.min() - margin, centre.real - reach)))
    top = max(0, int(min(ys.min() - margin, centre.imag - reach)))
    right = min(stage.size[0], int(max(xs.max() + margin, centre.real + reach)) + 1)
    bottom = min(stage.size[1], int(max(ys.max() + margin, centre.imag + reach)) + 1)
    if right - left < 2 or bottom - top < 2:
        return None
    return Layer(left, top, right - left, bottom - top)


@lru_cache(maxsize=1)
def _soft_disc() -> Float[np.ndarray, "64 64"]:
    axis = np.linspace(-1.0, 1.0, 64)
    radius = np.hypot(axis[:, None], axis[None, :])
    return (np.clip(1.0 - radius, 0.0, 1.0) ** 1.2).astype(np.float32)


def _draw_shadow(
    frame: UInt8[np.ndarray, "height width 3"],
    body: PlacedBody,
    pose: Pose,
    stage: Stage,
    camera: Similarity,
) -> None:
    """Darken the ground under the person, softly."""
    feet = pose.joints[[10, 13]]
    spread = float(np.abs(feet[0, 0] - feet[1, 0]))
    middle = feet.mean(axis=0)
    spot = stage.ground + stage.metre_px * complex(middle[0] + 0.06, TILT * middle[2] - 0.01)
    centre = complex(camera.apply(np.array([spot]), middle=stage.middle)[0])
    half_width = 0.17 * body.unit + 0.5 * spread * stage.metre_px * camera.scale
    half_height = 0.055 * body.unit
    left, right = round(centre.real - half_width), round(centre.real + half_width)
    top, bottom = round(centre.imag - half_height), round(centre.imag + half_height)
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(right, stage.size[0]), min(bottom, stage.size[1])
    if x1 - x0 < 1 or y1 - y0 < 1:
        return
    disc = cv2.resize(_soft_disc(), (right - left, bottom - top))
    gain = 1.0 - 0.62 * disc[y0 - top : y1 - top, x0 - left : x1 - left, None]
    part = frame[y0:y1, x0:x1]
    part[...] = (part * gain).astype(np.uint8)


def _person_truth(body: PlacedBody, head: HeadShape, stage: Stage) -> PersonTruth:
    width, height = stage.size
    keypoints = np.stack([body.points.real, body.points.imag], axis=1)
    on_face, seen = face_points(head)
    keypoints[_FACE_JOINTS] = on_face
    visible: Bool[np.ndarray, " 18"] = np.ones(18, bool)
    visible[_FACE_JOINTS] = seen
    visible &= (keypoints >= 0).all(axis=1)
    visible &= (keypoints[:, 0] <= width - 1) & (keypoints[:, 1] <= height - 1)
    box = head.face_region_box()
    inside = np.maximum(np.minimum(box[2:], [width, height]) - np.maximum(box[:2], 0.0), 0.0).prod()
    share = float(inside / max((box[2:] - box[:2]).prod(), 1e-6))
    placement = head.placement
    wrapped = float((placement.yaw_rad + np.pi) % (2 * np.pi) - np.pi)
    return PersonTruth(
        person_id=body.person.seed,
        keypoints=keypoints,
        keypoint_visible=visible,
        face_box=box,
        landmarks=face_landmarks(head),
        face_visible=bool(head.rotation[2, 2] > 0.3 and share > 0.75),
        head_yaw_rad=wrapped,
        head_pitch_rad=placement.pitch_rad,
        head_roll_rad=placement.roll_rad,
    )
