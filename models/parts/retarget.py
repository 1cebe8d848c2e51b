"""Bring the driver's motion onto the photo's person: their own proportions, like for like.

The driver's frame whose pose is nearest to the photo's is the anchor. What the driver's bones, face
and place do relative to that frame, the photo's do relative to the photo. So a bone that points at
the camera in both stays as the photo shows it, and nobody gets another person's shoulders.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float64

from animaray.models.parts.landmarks import (
    ANKLES,
    ARMS,
    BODY_POINTS,
    EXPRESSION_POINTS,
    HEAD_POINTS,
    HIPS,
    KNEES,
    LEGS,
    SHOULDERS,
    SOLES,
    STEADY_FACE_POINTS,
    PersonLandmarks,
    TargetPose,
    angle_of,
    axes_of,
    face_middle,
    face_size_px,
    head_angles,
    head_axes,
    middle,
    turn_matrix,
    wrapped,
)

MAX_YAW_RAD, MAX_PITCH_RAD = 0.35, 0.3
"""Beyond, a face turned from one photo tears at the far cheek."""
CLOSE_MATCH = 0.3
"""Up to this mean distance of 14 points (units) the anchor frame shows the photo's pose."""
_BONES = ((11, 13), (13, 15), (12, 14), (14, 16), (23, 25), (25, 27), (24, 26), (26, 28))
_MIRRORED = {11: 12, 12: 11, 13: 14, 14: 13, 15: 16, 16: 15, 23: 24, 24: 23, 25: 26, 26: 25,
             27: 28, 28: 27}  # fmt: skip
_LONG_SHARE = 85
"""Percentile that stands for a bone that lies in the picture's plane."""
_ANCHOR_SHARE = 0.55
"""A length of the anchor frame below so much of that percentile is not trusted."""

Points = Float64[np.ndarray, "33 2"]
Face = Float64[np.ndarray, "468 3"]
Measure = Callable[[PersonLandmarks], float]


class Retargeter:
    """Turns the driver's landmarks into target poses of the photo's person.

    Args:
        clip: The driver's, frame by frame (smoothed); at least one person.
        uses_hips: Whether the body below the chest moves; False for heads and shoulders. It never
            does where photo or driver do not show the hips.
    """

    def __init__(
        self,
        reference: PersonLandmarks,
        clip: Sequence[PersonLandmarks | None],
        *,
        uses_hips: bool = True,
    ) -> None:
        self._ref = reference
        seen = [person for person in clip if person is not None]
        hips_seen = float(np.median([person.visibility[list(HIPS)].min() for person in seen]))
        self.uses_hips = uses_hips and reference.sees(*HIPS) and hips_seen > 0.5
        distances = [pose_distance(reference, person) for person in seen]
        self.match = float(min(distances))
        """Distance of the anchor's pose to the photo's, in units."""
        self._anchor = seen[int(np.argmin(distances))]
        self._head_anchor = self._anchor
        """Heads have an anchor of their own: a nod or a tilt does not wait for a pose."""
        if reference.face is not None:
            self._head_anchor = _nearest_face_frame(reference.face, seen) or self._anchor
        if not self.uses_hips:
            self._anchor = self._head_anchor
        is_close = self.match < CLOSE_MATCH or not self.uses_hips
        self._measure = _Measures(self._anchor, seen, is_close=is_close)
        self.scale = self._body_scale()
        """Pixels of the photo for one of the driving video."""
        self._bone_scales = {bone: self._bone_scale(bone) for bone in _BONES}
        self._face = _FaceRetargeter.of(reference, self._head_anchor, seen)

    def target(self, driver: PersonLandmarks) -> TargetPose:
        """Return where the photo's person shall be when the driver is so.

        Args:
            driver: One frame's landmarks, smoothed.
        """
        points, source = driver.points.copy(), driver.points
        root = self._root(self._ref) + (self._root(driver) - self._root(self._anchor)) * self.scale
        neck = root
        if self.uses_hips:
            self._place_pair(points, source, HIPS, root)
            neck = root + self._spine(driver)
        self._place_pair(points, source, SHOULDERS, neck)
        for start, end in _BONES:
            step = (source[end] - source[start]) * self._bone_scales[start, end]
            points[end] = points[start] + step
        for hub, parts in _ENDS:
            points[list(parts)] = points[hub] + (source[list(parts)] - source[hub]) * self.scale
        lift = self._ground_shift(driver, points)
        points[:, 1] += lift
        neck = neck + np.array([0.0, lift])
        head = neck + self._head_vector(driver)
        middle_of_head = source[HEAD_POINTS].mean(axis=0)
        points[HEAD_POINTS] = head + (source[HEAD_POINTS] - middle_of_head) * self.scale
        body = np.c_[points, driver.body[:, 2] * self.scale]
        face = None
        if self._face is not None and driver.face is not None:
            place = None
            if self.uses_hips:
                place = head + self._face.offset_from_head
            face = self._face.target(driver.face, place)
        return TargetPose(body=body, face=face)

    def _root(self, person: PersonLandmarks) -> Float64[np.ndarray, " 2"]:
        return middle(person.points, HIPS if self.uses_hips else SHOULDERS)

    def _body_scale(self) -> float:
        """Return the ratio of bone lengths that both show, or of the shoulders."""
        reference, measure = self._ref, self._measure
        lengths: list[Measure] = []
        if self.uses_hips:
            lengths.append(lambda person: person.torso_px)
            if reference.sees(*KNEES, *ANKLES):
                lengths += [_longer_of_pair((23, 25)), _longer_of_pair((25, 27))]
        if not lengths:
            return max(_length(reference, SHOULDERS), 1.0) / measure(
                lambda person: _length(person, SHOULDERS)
            )
        ours = sum(length(reference) for length in lengths)
        return ours / max(sum(measure(length) for length in lengths), 1e-6)

    def _bone_scale(self, bone: tuple[int, int]) -> float:
        """Return the scale of one bone: its own proportion, a little nearer to the average."""
        length = _longer_of_pair(bone)
        share = length(self._ref) / max(self._measure(length) * self.scale, 1e-6)
        return float(np.clip(share**0.8, 0.8, 1.25)) * self.scale

    def _place_pair(
        self, points: Points, source: Points, pair: tuple[int, int], centre: np.ndarray
    ) -> None:
        """Place shoulders or hips: the photo's own width and slope, changed as the driver's."""
        now = source[pair[0]] - source[pair[1]]
        anchor = self._anchor.points[pair[0]] - self._anchor.points[pair[1]]
        own = self._ref.points[pair[0]] - self._ref.points[pair[1]]
        ratio = np.linalg.norm(now) / max(float(np.linalg.norm(anchor)), 1e-6)
        width = float(np.clip(ratio, 0.6, 1.2))
        turn = 0.0
        if width > 0.6:
            turn = float(np.clip(wrapped(angle_of(now) - angle_of(anchor)), -0.7, 0.7))
        half = turn_matrix(turn) @ own * width / 2
        points[pair[0]], points[pair[1]] = centre + half, centre - half

    def _spine(self, driver: PersonLandmarks) -> Float64[np.ndarray, " 2"]:
        """Return the way from the hips to the neck."""
        now, anchor, own = (
            middle(person.points, SHOULDERS) - middle(person.points, HIPS)
            for person in (driver, self._anchor, self._ref)
        )
        return _like_for_like(now, anchor, own, max_turn=np.pi, limits=(0.55, 1.12))

    def _head_vector(self, driver: PersonLandmarks) -> Float64[np.ndarray, " 2"]:
        """Return the way from the neck to the middle of the head's points."""
        now, anchor, own = (
            person.points[HEAD_POINTS].mean(axis=0) - middle(person.points, SHOULDERS)
            for person in (driver, self._head_anchor, self._ref)
        )
        return _like_for_like(now, anchor, own, max_turn=0.6, limits=(0.8, 1.08))

    def _ground_shift(self, driver: PersonLandmarks, points: Points) -> float:
        """Return how far down everything moves so that the lowest foot stays on its ground."""
        if not (self.uses_hips and driver.sees(*ANKLES) and self._ref.sees(*ANKLES)):
            return 0.0
        lowest = [
            float(there[list(SOLES), 1].max())
            for there in (self._ref.points, driver.points, self._anchor.points, points)
        ]
        return lowest[0] + (lowest[1] - lowest[2]) * self.scale - lowest[3]


_ENDS = (
    *((arm.wrist, arm.hand) for arm in ARMS.values()),
    *((leg.ankle, (leg.heel, leg.toe)) for leg in LEGS.values()),
)
"""Hands and feet: they follow the driver's as they are."""


class _Measures:
    """Lengths of the driver: of the anchor frame where it can be trusted, else of the clip."""

    def __init__(
        self, anchor: PersonLandmarks, seen: Sequence[PersonLandmarks], *, is_close: bool
    ) -> None:
        self._anchor, self._seen, self._is_close = anchor, seen, is_close

    def __call__(self, length: Measure) -> float:
        """Return a length of the driver, pixels of the video."""
        typical = float(np.percentile([length(person) for person in self._seen], _LONG_SHARE))
        own = length(self._anchor)
        trusted = self._is_close and own > _ANCHOR_SHARE * typical
        return max(own if trusted else typical, 1e-6)


def pose_distance(a: PersonLandmarks, b: PersonLandmarks) -> float:
    """Return the mean distance of arms, hands and hips of two poses, in units."""

    def normal(person: PersonLandmarks) -> Float64[np.ndarray, "points 2"]:
        points = person.points[BODY_POINTS]
        offsets: Float64[np.ndarray, "points 2"] = (
            points - points[:2].mean(axis=0)
        ) / person.unit_px
        return offsets

    return float(np.abs(normal(a) - normal(b)).sum()) / 14.0


def _like_for_like(
    now: np.ndarray,
    anchor: np.ndarray,
    own: np.ndarray,
    *,
    max_turn: float,
    limits: tuple[float, float],
) -> Float64[np.ndarray, " 2"]:
    """Turn and stretch the photo's vector as the driver's was turned and stretched."""
    turn = float(np.clip(wrapped(angle_of(now) - angle_of(anchor)), -max_turn, max_turn))
    stretch = np.linalg.norm(now) / max(float(np.linalg.norm(anchor)), 1e-6)
    changed: Float64[np.ndarray, " 2"] = turn_matrix(turn) @ own * np.clip(stretch, *limits)
    return changed


def _length(person: PersonLandmarks, bone: tuple[int, int]) -> float:
    return float(np.linalg.norm(person.points[bone[0]] - person.points[bone[1]]))


def _longer_of_pair(bone: tuple[int, int]) -> Measure:
    """Return what measures a bone by the longer one of both sides."""
    mirrored = _MIRRORED[bone[0]], _MIRRORED[bone[1]]
    return lambda person: max(_length(person, bone), _length(person, mirrored))


def _nearest_face_frame(face: Face, seen: Sequence[PersonLandmarks]) -> PersonLandmarks | None:
    """Return the frame whose face looks most like the photo's, in expression and turn."""

    def traits(of: Face) -> Float64[np.ndarray, " traits"]:
        return np.concatenate([3 * upright_face(of).ravel(), 8 * head_axes(of).ravel()])

    own = traits(face)
    with_face = [(person, person.face) for person in seen if person.face is not None]
    if not with_face:
        return None
    return min(with_face, key=lambda pair: float(np.abs(traits(pair[1]) - own).sum()))[0]


def upright_face(face: Face) -> Face:
    """Return a face turned to the camera, of size 1, around its steady points."""
    centred = face - face[list(STEADY_FACE_POINTS)].mean(axis=0)
    upright: Face = centred @ head_axes(face) / face_size_px(face)
    return upright


class _FaceRetargeter:
    """The photo's face with the driver's change of expression, turn, place and size."""

    def __init__(
        self,
        reference: PersonLandmarks,
        face: Face,
        anchor: Face,
        calm: Face,
    ) -> None:
        self._face, self._calm = face, calm
        self._own = upright_face(face)
        self._angles, self._anchor_angles = head_angles(face), head_angles(anchor)
        self._size = face_size_px(face)
        self._size_scale = self._size / face_size_px(anchor)
        self._anchor_place = face_middle(anchor)
        self.offset_from_head: Float64[np.ndarray, " 2"] = face_middle(face) - reference.points[
            HEAD_POINTS
        ].mean(axis=0)

    @classmethod
    def of(
        cls,
        reference: PersonLandmarks,
        anchor: PersonLandmarks,
        seen: Sequence[PersonLandmarks],
    ) -> _FaceRetargeter | None:
        """Prepare; None where the photo or the driver shows no face."""
        faces = [person.face for person in seen if person.face is not None]
        if reference.face is None or not faces:
            return None
        own = upright_face(reference.face)
        lively = list(EXPRESSION_POINTS)

        def unlike(face: Face) -> float:
            other = upright_face(face)
            return float(np.abs(other[lively] - own[lively]).sum())

        calm = upright_face(min(faces, key=unlike))
        anchor_face = anchor.face if anchor.face is not None else faces[0]
        return cls(reference, reference.face, anchor_face, calm)

    def target(self, driver: Face, place: Float64[np.ndarray, " 2"] | None) -> Face:
        """Return the photo's face for one frame.

        Args:
            place: Where its middle goes; None moves it as the driver's face moves.
        """
        shape = self._own + upright_face(driver) - self._calm
        size = face_size_px(driver) * self._size_scale
        if place is None:
            place = (
                face_middle(self._face)
                + (face_middle(driver) - self._anchor_place) * self._size_scale
            )
        else:
            size = self._size * float(np.clip(size / self._size, 0.9, 1.1))
        points = shape @ axes_of(self._turned(head_angles(driver))).T * size
        points[:, :2] += place - face_middle(points)
        return np.asarray(points, np.float64)

    def _turned(self, driver: Float64[np.ndarray, " 3"]) -> Float64[np.ndarray, " 3"]:
        """Return the head's angles, near enough to the photo's own."""
        limits = np.array([MAX_YAW_RAD, MAX_PITCH_RAD, np.inf])
        return self._angles + np.clip(driver - self._anchor_angles, -limits, limits)
