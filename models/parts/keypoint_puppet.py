"""Move a picture whose person is known by 18 keypoints and a matte, as drawn people are.

The counterpart of `PartsPipeline` where no network sees 33 body points and a face mesh: the same
layers, meshes and plate, posed by OpenPose keypoints, without expression.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, Float32, Float64, UInt8

from animaray.models.engine_choice import MIN_LONG_SIDE_PX
from animaray.models.parts.body_mode import BodyPuppet
from animaray.models.parts.landmarks import ARMS, LEGS, PersonLandmarks, TargetPose
from animaray.models.pose.limb_warp import BodyPose

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


class KeypointPuppet:
    """A picture whose person follows 18 keypoints.

    Args:
        picture_uint8: RGB, any size; small ones are moved at 512 pixels and reduced again.
        pose: The person's keypoints in it.
        alpha: Their opacity in [0, 1].
    """

    def __init__(
        self,
        picture_uint8: UInt8[np.ndarray, "height width 3"],
        pose: BodyPose,
        alpha: Float32[np.ndarray, "height width"],
    ) -> None:
        self._height, self._width = alpha.shape
        self._scale = max(1.0, MIN_LONG_SIDE_PX / max(alpha.shape))
        self._pose = pose
        self._puppet = BodyPuppet(
            _enlarged(picture_uint8, self._scale),
            self._scaled(pose),
            np.clip(_enlarged(alpha, self._scale), 0.0, 1.0),
            moves_face=False,
        )

    def move(self, driven: BodyPose) -> UInt8[np.ndarray, "height width 3"]:
        """Return the picture with its person in another pose.

        Args:
            driven: Pixels of the picture. A point that is not seen goes where the seen ones take
                it all together.
        """
        target = self._scaled(_completed(self._pose, driven))
        moved = self._puppet.render(TargetPose(body=target.body, face=None))
        if self._scale == 1.0:
            return moved
        size = self._width, self._height
        reduced: UInt8[np.ndarray, "_ _ 3"] = cv2.resize(moved, size, interpolation=cv2.INTER_AREA)
        return reduced

    def _scaled(self, pose: BodyPose) -> PersonLandmarks:
        half_pixel = np.full(2, (self._scale - 1.0) / 2.0)
        return landmarks_of_keypoints(pose).mapped(self._scale, half_pixel)


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
        body[leg.heel], body[leg.toe] = (
            body[leg.ankle] + _HEEL * shin,
            body[leg.ankle] + _TOE * shin,
        )
    return PersonLandmarks(body=body, visibility=visibility)


def _completed(reference: BodyPose, driven: BodyPose) -> BodyPose:
    """Place what the driven pose does not show by the motion of what both show."""
    seen = reference.visible & driven.visible
    if driven.visible.all() or not seen.any():
        return driven
    plane = np.array([1.0, 1.0j])
    before, after = reference.keypoints @ plane, driven.keypoints @ plane
    centre, goal = before[seen].mean(), after[seen].mean()
    size = float((np.abs(before[seen] - centre) ** 2).sum())
    turn = 1.0 + 0.0j
    if size > 0.0:
        turn = complex(((before[seen] - centre).conj() * (after[seen] - goal)).sum() / size)
    placed = goal + turn * (before - centre)
    points: Float64[np.ndarray, "18 2"] = np.stack([placed.real, placed.imag], axis=1)
    points[driven.visible] = driven.keypoints[driven.visible]
    return BodyPose(keypoints=points, confidence=driven.confidence)


def _enlarged(
    picture: Float[np.ndarray, "height width *channels"] | UInt8[np.ndarray, "_ _ 3"], scale: float
) -> np.ndarray:
    if scale == 1.0:
        return picture
    height, width = (round(side * scale) for side in picture.shape[:2])
    enlarged: np.ndarray = cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC)
    return enlarged
