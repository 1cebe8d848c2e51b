"""Cut a person out of a picture where only 18 keypoints are known: body shapes, then GrabCut."""

from collections.abc import Iterator

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from animaray.models.parts.matte import cut_along_colours, soften
from animaray.models.pose.body_pose import BodyPose

NOSE, NECK = 0, 1
_FACE = (0, 14, 15, 16, 17)
_TORSO = (2, 5, 11, 8)
_TORSO_RADIUS = 0.14
_LIMBS = (
    (8, 9, 0.22, 0.0), (11, 12, 0.22, 0.0), (9, 10, 0.17, 0.35), (12, 13, 0.17, 0.35),
    (2, 3, 0.21, 0.0), (5, 6, 0.21, 0.0), (3, 4, 0.16, 0.45), (6, 7, 0.16, 0.45),
)  # fmt: skip
"""From, to, half width in units, and how far it goes on behind its end: hands and feet."""
_SURELY, _PERHAPS = -0.16, 0.15
"""The shapes drawn in by so much (units) are the person, widened by so much they may be."""
_ROUNDS = 1
_FILTER_RADIUS_PX, _FILTER_EPSILON = 2, 1e-3

Stroke = tuple[Float[np.ndarray, "points 2"], float]
"""A line or convex outline, and the half width it is drawn with, pixels."""


def matte_of_keypoints(
    picture: UInt8[np.ndarray, "height width 3"], pose: BodyPose
) -> Float32[np.ndarray, "height width"]:
    """Return a person's opacity in [0, 1]; zeros where the pose shows no part of them.

    Args:
        pose: Keypoints in its pixels.
    """
    shape = picture.shape[:2]
    likely = _drawn(pose, shape, 0.0)
    if not likely.any():
        return np.zeros(shape, np.float32)
    labels = np.full(shape, cv2.GC_BGD, np.uint8)
    labels[_drawn(pose, shape, _PERHAPS)] = cv2.GC_PR_BGD
    labels[likely] = cv2.GC_PR_FGD
    labels[_drawn(pose, shape, _SURELY)] = cv2.GC_FGD
    inside = likely
    if (labels == cv2.GC_BGD).any():  # else there is no ground to tell the person from
        inside = cut_along_colours(picture, labels, num_rounds=_ROUNDS)
    return soften(picture, inside.astype(np.float32), _FILTER_RADIUS_PX, _FILTER_EPSILON)


def _drawn(
    pose: BodyPose, shape: tuple[int, ...], margin: float
) -> Bool[np.ndarray, "height width"]:
    """Return the body's shapes, widened by a margin in units."""
    mask = np.zeros(shape, np.uint8)
    wider = margin * pose.unit()
    for outline, radius in _strokes(pose):
        points = np.clip(np.round(outline), -4096, 4096).astype(np.int32)
        is_area = len(points) > 2
        if is_area:
            cv2.fillConvexPoly(mask, cv2.convexHull(points), 1)
        cv2.polylines(mask, [points], is_area, 1, max(1, round(2 * (radius + wider))))
    return mask > 0


def _strokes(pose: BodyPose) -> Iterator[Stroke]:
    """Yield the parts that the pose shows."""
    unit, points, seen = pose.unit(), pose.keypoints.astype(np.float64), pose.visible
    for first, last, half_width, beyond in _LIMBS:
        if seen[first] and seen[last]:
            along = points[last] - points[first]
            away = along / max(float(np.linalg.norm(along)), 1e-6) * beyond * unit
            yield np.stack([points[first], points[last] + away]), half_width * unit
    shoulders, below = points[list(_TORSO[:2])], np.array([0.0, 1.6 * unit])
    if seen[list(_TORSO)].all():
        yield points[list(_TORSO)], _TORSO_RADIUS * unit
    elif seen[list(_TORSO[:2])].all():  # the hips lie below, as far as the picture goes
        yield np.concatenate([shoulders, shoulders[::-1] + below]), _TORSO_RADIUS * unit
    face = [point for point in _FACE if seen[point]]
    if NOSE in face and (len(face) > 1 or seen[NECK]):
        centre = points[face].mean(axis=0)
        up, size = np.array([0.0, -1.0]), 0.5 * unit
        neck_to_face = centre - points[NECK]
        length = float(np.linalg.norm(neck_to_face))
        if seen[NECK] and length > 0.12 * unit:
            up, size = neck_to_face / length, 0.75 * length
        yield np.stack([centre - 0.15 * size * up, centre + 0.45 * size * up]), size
