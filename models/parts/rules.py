"""When a photo can be moved by parts, in which mode, and what to say where it cannot.

The thresholds were read off 43 pictures and 12 videos (lab log, 2026-11-30); u is the shoulder
width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from animaray.models.parts.body_mode import MIN_FACE_PX
from animaray.models.parts.landmarks import (
    ANKLES,
    ELBOWS,
    HIPS,
    KNEES,
    LEFT_HIP,
    LEFT_SHOULDER,
    RIGHT_HIP,
    RIGHT_SHOULDER,
    WRISTS,
    PersonLandmarks,
    face_size_px,
    head_angles,
    lip_gap,
)
from animaray.models.parts.options import Mode
from animaray.models.parts.retarget import CLOSE_MATCH, Retargeter
from animaray.models.parts.smoothing import MIN_FPS
from animaray.platform.errors import FaceError, PoseError

MIN_FRONTALITY = 0.4
"""Least width of the shoulders, left minus right, in torso lengths."""
MIN_HEAD_FACE_PX = 64.0
"""Least face of head mode, pixels of the working size."""
MAX_REFERENCE_TURN_DEG = 20.0
"""A face turned further in the photo keeps its expression."""
HAND_INSIDE = 0.04
"""A wrist further inside the torso than this (u) is before the body."""
HANDS_TOGETHER = 0.5
"""Hands nearer to each other than this (u) are crossed or held."""
WIDE_OPEN = 0.14
"""A mouth open wider than this in the photo (face sizes) cannot close."""
STEPPING = 0.15
"""Ankles that move further than this (u of the driver) need feet in the photo."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferenceVerdict:
    """What can be done with a photo."""

    mode: Mode
    """`body`: the whole person in layers; `head`: head and shoulders, arms stand still."""
    moves_face: bool
    """Whether the expression follows the driver."""
    why_head: str | None
    """Why only the head moves, or None."""
    warnings: tuple[str, ...]
    """What may look odd."""


def judge_reference(
    person: PersonLandmarks, width_px: int, height_px: int, *, wants: Mode | None = None
) -> ReferenceVerdict:
    """Choose the mode for a photo.

    Args:
        person: Landmarks, pixels of the working size.
        wants: A mode that the user asks for; None chooses. `body` is granted only where it works.

    Raises:
        PoseError: The person is seen from the back or the side, or too little of them is seen.
        FaceError: No face is seen, or it is too small for the mode that is left.
    """
    person = person.within(width_px, height_px)
    if frontality(person) < MIN_FRONTALITY:
        raise PoseError(
            "The person in the picture is seen from the back or the side; parts can be moved only"
            " where chest and face look at the camera.",
            fix="Use a picture from the front.",
            reason="not_frontal",
        )
    if person.face is None:
        raise FaceError(
            "The picture shows no face that can be followed.",
            fix="Use a picture where the face is visible, turned to the camera and not covered.",
            reason="no_face",
        )
    why_head = "it was asked for" if wants == "head" else _why_not_body(person)
    if wants == "body" and why_head is not None:
        raise PoseError(
            f"This picture cannot be moved as a whole body: {why_head}.",
            fix="Leave the mode out, or use a picture that shows the whole person with free arms.",
            reason="no_whole_body",
        )
    size = face_size_px(person.face)
    if why_head is not None and size < MIN_HEAD_FACE_PX:
        raise FaceError(
            f"Only the head can be moved here ({why_head}), and its face is {size:.0f} pixels"
            f" high; {MIN_HEAD_FACE_PX:.0f} are needed.",
            fix="Use a closer picture, or one that shows the whole person with free arms.",
            reason="face_too_small",
        )
    moves_face, warnings = _judge_face(person, size)
    return ReferenceVerdict(
        mode="body" if why_head is None else "head",
        moves_face=moves_face,
        why_head=why_head,
        warnings=tuple(warnings),
    )


def frontality(person: PersonLandmarks) -> float:
    """Return the shoulders' width in torso lengths; negative for a person seen from the back."""
    points = person.points
    width = points[LEFT_SHOULDER, 0] - points[RIGHT_SHOULDER, 0]
    return float(width) / max(person.torso_px, 1.0)


def _why_not_body(person: PersonLandmarks) -> str | None:
    """Return why the whole body cannot be moved, or None."""
    for name, pair in (
        ("hips", HIPS), ("knees", KNEES), ("elbows", ELBOWS), ("wrists", WRISTS),
    ):  # fmt: skip
        if not person.sees(*pair):
            return f"the {name} are not both seen"
    points, unit = person.points, person.unit_px
    corners = points[[LEFT_SHOULDER, RIGHT_SHOULDER, RIGHT_HIP, LEFT_HIP]].astype(np.float32)
    torso = cv2.convexHull(corners)
    for wrist in WRISTS:
        place = float(points[wrist, 0]), float(points[wrist, 1])
        if cv2.pointPolygonTest(torso, place, measureDist=True) > HAND_INSIDE * unit:
            return "a hand is held before the body"
    if np.linalg.norm(points[WRISTS[0]] - points[WRISTS[1]]) < HANDS_TOGETHER * unit:
        return "the arms are crossed or the hands held together"
    return None


def _judge_face(person: PersonLandmarks, size_px: float) -> tuple[bool, list[str]]:
    """Return whether the expression can move, and what is odd about the face."""
    face, warnings = person.face, []
    if face is None:
        return False, []
    turn = float(np.abs(np.degrees(head_angles(face)[:2])).max())
    moves = True
    if size_px < MIN_FACE_PX:
        moves = False
        warnings.append(
            f"The face is {size_px:.0f} pixels high: it moves with the head, without expression."
        )
    elif turn > MAX_REFERENCE_TURN_DEG:
        moves = False
        warnings.append(
            f"The face is turned by {turn:.0f} degrees in the picture: it keeps its expression."
        )
    if lip_gap(face) > WIDE_OPEN:
        warnings.append("The mouth is open in the picture: it cannot close.")
    return moves, warnings


@dataclass(frozen=True, kw_only=True, slots=True)
class DrivingVerdict:
    """What the driving video allows."""

    mode: Mode
    """`head` where the video does not show what a whole body needs."""
    why_head: str | None
    """Why, or None."""


def judge_driving(
    reference: PersonLandmarks,
    verdict: ReferenceVerdict,
    clip: Sequence[PersonLandmarks | None],
) -> DrivingVerdict:
    """Say in which mode this video moves this photo.

    Args:
        reference: The photo's landmarks, pixels of the working size.
        verdict: What can be done with the photo.
        clip: The driver's landmarks, frame by frame; somebody is in one of them.

    Raises:
        FaceError: Only the head could be moved, and its face is too small, or the driver shows
            none.
    """
    if verdict.mode == "head":
        _need_face_of(clip)
        return DrivingVerdict(mode="head", why_head=verdict.why_head)
    seen = [person for person in clip if person is not None]
    why = None
    if float(np.median([person.visibility[list(HIPS)].min() for person in seen])) <= 0.5:
        why = "the driving video does not show the hips"
    elif _steps(seen) and not reference.sees(*ANKLES):
        why = "the driver steps and the picture does not show the feet"
    if why is None:
        return DrivingVerdict(mode="body", why_head=None)
    size = 0.0 if reference.face is None else face_size_px(reference.face)
    if size < MIN_HEAD_FACE_PX:
        raise FaceError(
            f"Only the head can be moved here ({why}), and the picture's face is {size:.0f} pixels"
            f" high; {MIN_HEAD_FACE_PX:.0f} are needed.",
            fix="Use a closer picture, or a driving video that shows the whole body.",
            reason="face_too_small",
        )
    _need_face_of(clip)
    return DrivingVerdict(mode="head", why_head=why)


def _need_face_of(clip: Sequence[PersonLandmarks | None]) -> None:
    """Refuse a driver without a face where only the head moves.

    Raises:
        FaceError: No frame shows one.
    """
    if all(person is None or person.face is None for person in clip):
        raise FaceError(
            "Only the head can be moved here, and no frame of the driving video shows a face.",
            fix="Use a driving video in which the face is seen.",
            reason="no_face",
        )


def _steps(seen: Sequence[PersonLandmarks]) -> bool:
    """Tell whether the driver's feet are seen and leave their place."""
    with_feet = [person for person in seen if person.sees(*ANKLES)]
    if len(with_feet) < 2:
        return False
    feet = np.stack([person.points[list(ANKLES)] / person.unit_px for person in with_feet])
    return bool(np.ptp(feet, axis=0).max() > STEPPING)


def motion_warnings(retargeter: Retargeter, fps: float) -> list[str]:
    """Return what may look odd about this motion on this photo.

    Args:
        retargeter: Knows how near the driver comes to the photo's pose.
        fps: Of the driving video.
    """
    warnings = []
    if retargeter.uses_hips and retargeter.match > CLOSE_MATCH:
        warnings.append(
            "No frame of the driving video shows a pose like the picture's: proportions are taken"
            " from the clip's longest bones."
        )
    if fps < MIN_FPS:
        warnings.append(
            f"At {fps:g} frames per second the motion is not smoothed ({MIN_FPS:g} or more are)."
        )
    return warnings
