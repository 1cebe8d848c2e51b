"""Move a picture whose people are known by 18 keypoints: drawn people, and warped references.

The counterpart of `PartsPipeline` where no network sees 33 body points and a face mesh: the same
layers, meshes and plate, posed by OpenPose keypoints, without expression.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

from animaray.models.parts.body_mode import BodyPuppet
from animaray.models.parts.keypoint_matte import matte_of_keypoints
from animaray.models.parts.landmarks import (
    ARMS,
    LEGS,
    PersonLandmarks,
    TargetPose,
    turn_and_scale,
)
from animaray.models.parts.plate import make_plate
from animaray.models.pose.body_pose import BodyPose

_BODY_OF_OPENPOSE = {
    0: 0, 2: 15, 5: 14, 7: 17, 8: 16, 11: 5, 12: 2, 13: 6, 14: 3, 15: 7, 16: 4, 23: 11, 24: 8,
    25: 12, 26: 9, 27: 13, 28: 10,
}  # fmt: skip
"""Which of the 18 OpenPose points a body point is."""
_BESIDE_THE_EYES = {1: 2, 3: 2, 4: 5, 6: 5}
_MOUTH = {9: (2, 5), 10: (5, 2)}
"""Left and right corner: below the eye on the same side, first, as far as the nose is again."""
_HAND, _HEEL, _TOE = 0.33, 0.1, 0.3
"""How far knuckles, heel and toe lie beyond wrist and ankle, in forearms and shins."""
_NEEDED = (0, 2, 5)
"""Nose and shoulders: a person who does not show them stands still."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MovedPicture:
    """A picture whose people took other poses, and what it is made of."""

    picture_uint8: UInt8[np.ndarray, "height width 3"]
    """Moved people over the filled background."""
    moved: UInt8[np.ndarray, "height width"]
    """255 where a person is now."""
    left: UInt8[np.ndarray, "height width"]
    """255 where a person was and nobody came: the content is a guess."""


class KeypointPuppet:
    """A picture whose people follow 18 keypoints each.

    Args:
        people: Their keypoints in it.
        mattes: Their opacities in [0, 1]; None cuts them out by their keypoints.
        least_side_px: Pictures whose long side is smaller are moved at this size and reduced
            again, which keeps rims sharp and costs time.
    """

    def __init__(
        self,
        picture_uint8: UInt8[np.ndarray, "height width 3"],
        people: Sequence[BodyPose],
        mattes: Sequence[Float32[np.ndarray, "height width"]] | None = None,
        *,
        least_side_px: int = 0,
    ) -> None:
        self._picture = picture_uint8
        self._people = people
        if mattes is None:
            mattes = [matte_of_keypoints(picture_uint8, pose) for pose in people]
        self._scale = max(1.0, least_side_px / max(picture_uint8.shape[:2]))
        picture = self._enlarged(picture_uint8)
        alphas = [np.clip(self._enlarged(matte), 0.0, 1.0) for matte in mattes]
        movable = [_can_move(pose, alpha) for pose, alpha in zip(people, alphas, strict=True)]
        cut = [alpha for alpha, moves in zip(alphas, movable, strict=True) if moves]
        self._plate = make_plate(picture, np.maximum.reduce(cut)) if cut else None
        self._puppets = [
            BodyPuppet(picture, self._landmarks(pose), alpha, plate=self._plate, moves_face=False)
            if moves
            else None
            for pose, alpha, moves in zip(people, alphas, movable, strict=True)
        ]

    def move(self, driven: Sequence[BodyPose]) -> MovedPicture:
        """Return the picture with its people in other poses.

        Args:
            driven: Pixels of the picture, in the order of the people. A point that is not seen
                goes where the seen ones take it all together; of two people the later one is in
                front.
        """
        if self._plate is None:
            nothing = np.zeros(self._picture.shape[:2], np.uint8)
            return MovedPicture(picture_uint8=self._picture, moved=nothing, left=nothing)
        frame = self._plate.picture.copy()
        cover = np.zeros(frame.shape[:2], np.float32)
        for puppet, own, pose in zip(self._puppets, self._people, driven, strict=True):
            if puppet is not None:
                target = self._landmarks(_completed(own, pose))
                puppet.draw_onto(frame, TargetPose(body=target.body, face=None), cover)
        picture = np.clip(np.rint(frame), 0, 255).astype(np.uint8)
        is_left = self._plate.invented.astype(np.float32)
        moved, hole = self._reduced(cover) > 0.5, self._reduced(is_left) > 0.5
        return MovedPicture(
            picture_uint8=self._reduced(picture), moved=_mask(moved), left=_mask(hole & ~moved)
        )

    def _landmarks(self, pose: BodyPose) -> PersonLandmarks:
        half_pixel = np.full(2, (self._scale - 1.0) / 2.0)
        return landmarks_of_keypoints(pose).mapped(self._scale, half_pixel)

    def _enlarged(self, picture: np.ndarray) -> np.ndarray:
        if self._scale == 1.0:
            return picture
        height, width = (round(side * self._scale) for side in picture.shape[:2])
        enlarged: np.ndarray = cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC)
        return enlarged

    def _reduced(self, picture: np.ndarray) -> np.ndarray:
        if self._scale == 1.0:
            return picture
        height, width = self._picture.shape[:2]
        reduced: np.ndarray = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        return reduced


def landmarks_of_keypoints(pose: BodyPose) -> PersonLandmarks:
    """Return the 33 body points as far as 18 keypoints tell them, flat, without a face.

    Hands and feet go on from forearms and shins; the feet count as unseen.
    """
    body, visibility = np.zeros((33, 3)), np.zeros(33)
    for point, source in _BODY_OF_OPENPOSE.items():
        body[point, :2] = pose.keypoints[source]
        visibility[point] = pose.confidence[source]
    for point, eye in _BESIDE_THE_EYES.items():
        body[point], visibility[point] = body[eye], visibility[eye]
    for point, (own, other) in _MOUTH.items():
        middle = (body[own] + body[other]) / 2.0
        body[point] = body[0] + 0.8 * (body[0] - middle) + 0.4 * (body[own] - middle)
        visibility[point] = min(visibility[own], visibility[0])
    for arm in ARMS.values():
        tips = body[arm.wrist] + _HAND * (body[arm.wrist] - body[arm.elbow])
        for point in arm.hand:
            body[point], visibility[point] = tips, visibility[arm.wrist]
    for leg in LEGS.values():
        shin = body[leg.ankle] - body[leg.knee]
        body[leg.heel] = body[leg.ankle] + _HEEL * shin
        body[leg.toe] = body[leg.ankle] + _TOE * shin
    return PersonLandmarks(body=body, visibility=visibility)


def _can_move(pose: BodyPose, alpha: Float32[np.ndarray, "height width"]) -> bool:
    return bool(pose.visible[list(_NEEDED)].all()) and bool((alpha > 0.5).any())


def _completed(reference: BodyPose, driven: BodyPose) -> BodyPose:
    """Place what the driven pose does not show by the motion of what both show."""
    seen = reference.visible & driven.visible
    if not seen.any():
        return reference
    before, after = reference.keypoints, driven.keypoints
    centre, goal = before[seen].mean(axis=0), after[seen].mean(axis=0)
    turn = turn_and_scale(before[seen] - centre, after[seen] - goal)
    matrix = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    points: Float64[np.ndarray, "18 2"] = goal + (before - centre) @ matrix.T
    points[driven.visible] = driven.keypoints[driven.visible]
    return BodyPose(keypoints=points, confidence=driven.confidence)


def _mask(where: Bool[np.ndarray, "height width"]) -> UInt8[np.ndarray, "height width"]:
    return where.astype(np.uint8) * 255
