"""Draw where people stand in a picture, generously, from their keypoints and faces.

A box around a dancer with spread arms hides half the background; thick limbs do not. Whatever is
not drawn here may be used to follow the camera.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float32

_MIN_CONFIDENCE = 0.3
_NECK, _SHOULDERS, _HIPS = 1, (2, 5), (8, 11)
_TORSO = ((1, 2), (1, 5), (1, 8), (1, 11), (2, 8), (5, 11), (8, 11))
ARMS = ((2, 3), (3, 4), (5, 6), (6, 7))
"""Upper arm and forearm of either side: first and last keypoint."""
_LEGS = ((8, 9), (9, 10), (11, 12), (12, 13))
_LAST_LIMBS = ((3, 4), (6, 7), (9, 10), (12, 13))
_HEAD = (0, 14, 15, 16, 17)
# Widths as shares of the torso's length (neck to hips, about 0.3 of a person's height).
_TORSO_WIDTH, _ARM_WIDTH, _LEG_WIDTH, _HEAD_RADIUS, _HAND_REACH = 0.35, 0.28, 0.40, 0.42, 0.5


def people_mask(
    people: Float32[np.ndarray, "persons 18 3"],
    faces: Float32[np.ndarray, "faces 4"],
    size: tuple[int, int],
) -> Bool[np.ndarray, "height width"]:
    """Return where people are.

    Args:
        people: Keypoints and confidences, pixels of this picture.
        faces: Face boxes: left, top, right, bottom; pixels.
        size: Width and height of the picture, pixels.
    """
    canvas = np.zeros((size[1], size[0]), dtype=np.uint8)
    for person in people:
        _draw_person(canvas, person)
    for face in faces:
        _draw_head(canvas, face, has_body=len(people) > 0)
    return canvas > 0


def torso_length_px(person: Float32[np.ndarray, "18 3"]) -> float:
    """Estimate the distance from neck to hips from what is seen, pixels."""
    points, seen = person[:, :2].astype(np.float64), person[:, 2] >= _MIN_CONFIDENCE
    estimates = [4.0]
    if seen[list(_SHOULDERS)].all():
        estimates.append(1.3 * float(np.linalg.norm(points[2] - points[5])))
    hips = [hip for hip in _HIPS if seen[hip]]
    if hips and seen[_NECK]:
        lengths = [float(np.linalg.norm(points[hip] - points[_NECK])) for hip in hips]
        estimates.append(float(np.mean(lengths)))
    if seen.any():
        # A person who is all in the picture is about 3.3 torsos long.
        estimates.append(float(np.ptp(points[seen], axis=0).max()) / 4.5)
    return max(estimates)


def _draw_person(canvas: np.ndarray, person: Float32[np.ndarray, "18 3"]) -> None:
    seen = person[:, 2] >= _MIN_CONFIDENCE
    torso = torso_length_px(person)
    # OpenCV cannot draw lines of which an end is very far away.
    limit = 4.0 * max(canvas.shape)
    points = person[:, :2].astype(np.float64).clip(-limit, limit)
    for limbs, share in ((_TORSO, _TORSO_WIDTH), (ARMS, _ARM_WIDTH), (_LEGS, _LEG_WIDTH)):
        for start, end in limbs:
            if seen[start] and seen[end]:
                # Hands and feet reach further than wrists and ankles.
                reach = _HAND_REACH if (start, end) in _LAST_LIMBS else 0.0
                tip = points[end] + (points[end] - points[start]) * reach
                _line(canvas, points[start], tip, share * torso)
    head = [index for index in _HEAD if seen[index]]
    if head:
        centre = tuple(int(v) for v in points[head].mean(axis=0).round())
        cv2.circle(canvas, centre, max(2, round(_HEAD_RADIUS * torso)), 1, -1)
    corners = [index for index in (*_SHOULDERS, *reversed(_HIPS)) if seen[index]]
    if len(corners) >= 3:
        cv2.fillPoly(canvas, [points[corners].round().astype(np.int32)], 1)
    if seen[list(_SHOULDERS)].all() and not seen[list(_HIPS)].any():
        # The body goes on below the picture.
        bottom = float(canvas.shape[0])
        for shoulder in _SHOULDERS:
            below = np.array([points[shoulder][0], bottom])
            _line(canvas, points[shoulder], below, _TORSO_WIDTH * torso)
        left, right = sorted(points[shoulder][0] for shoulder in _SHOULDERS)
        top = min(points[shoulder][1] for shoulder in _SHOULDERS)
        cv2.rectangle(canvas, (round(left), round(top)), (round(right), canvas.shape[0]), 1, -1)


def _draw_head(canvas: np.ndarray, face: Float32[np.ndarray, " 4"], *, has_body: bool) -> None:
    left, top, right, bottom = (float(side) for side in face)
    wide, tall = right - left, bottom - top
    centre = (round((left + right) / 2), round((top + bottom) / 2 - 0.1 * tall))
    axes = (max(1, round(0.8 * wide)), max(1, round(0.95 * tall)))
    cv2.ellipse(canvas, centre, axes, 0, 0, 360, 1, -1)
    if not has_body:
        low, high = (
            (round(left - wide), round(bottom)),
            (round(right + wide), round(bottom + 2.5 * tall)),
        )
        cv2.rectangle(canvas, low, high, 1, -1)


def _line(canvas: np.ndarray, start: np.ndarray, end: np.ndarray, width: float) -> None:
    one, two = (tuple(int(v) for v in point.round()) for point in (start, end))
    cv2.line(canvas, one, two, 1, min(max(3, round(width)), 255))
