"""See the person of a photo and follow the person of a video, with all that the parts engine needs.

One person is followed through a video by the place in the frame before; the detector looks again
where that one is lost. Several people are told apart in the first frames, as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from animaray.models.parts.landmarks import PersonLandmarks, Side
from animaray.models.perception.permissive.mediapipe_body import Body
from animaray.models.perception.permissive.mediapipe_face import FaceMesh, FaceMeshNetwork
from animaray.models.perception.permissive.mediapipe_hands import HandNetworks
from animaray.models.perception.permissive.mediapipe_pose import MediaPipePoseEstimator
from animaray.models.perception.permissive.rapid_ocr import RapidOcrTextDetector
from animaray.models.perception.permissive.selfie_segmentation import SelfieSegmenter
from animaray.models.perception.protocols import TextDetector, TextLine
from animaray.models.subjects.choice import PersonChoice, choose_people, prominent_people
from animaray.models.subjects.tracks import seen_person
from animaray.platform.errors import PoseError

PROFILE = "permissive"
"""The profile whose networks these are."""
MIN_FACE_SCORE = 0.5
_MIN_BODY_SCORE = 0.5
_MAX_MISSING_SHARE = 0.5
"""A video that shows the person in fewer frames is refused."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenReference:
    """The chosen person of a photo."""

    person: PersonLandmarks
    mask: Float32[np.ndarray, "height width"]
    """Of the pose network, in [0, 1]."""
    num_people: int
    """People who could have been chosen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenClip:
    """The chosen person of a driving video."""

    people: tuple[PersonLandmarks | None, ...]
    """Frame by frame; None where nobody is found."""
    width_px: int
    height_px: int
    num_people: int
    """People of the first frame who could have been chosen."""

    @property
    def num_missing(self) -> int:
        """Frames without the person."""
        return sum(person is None for person in self.people)


class PartsPerception:
    """The networks of profile permissive, as the parts engine uses them."""

    def __init__(
        self,
        bodies: MediaPipePoseEstimator,
        faces: FaceMeshNetwork,
        segmenter: SelfieSegmenter,
        hands: HandNetworks,
        *,
        num_threads: int = 1,
    ) -> None:
        self._bodies, self._faces = bodies, faces
        self._segmenter, self._hands = segmenter, hands
        self._num_threads = num_threads
        self._writing: TextDetector | None = None

    @classmethod
    def load(cls, *, num_threads: int = 1) -> PartsPerception:
        """Open the registered weights; WeightsError names what is missing and the way to it."""
        return cls(
            MediaPipePoseEstimator.load(num_threads=num_threads),
            FaceMeshNetwork.load(num_threads=num_threads),
            SelfieSegmenter.load(num_threads=num_threads),
            HandNetworks.load(num_threads=num_threads),
            num_threads=num_threads,
        )

    def mask_person(
        self, picture: UInt8[np.ndarray, "height width 3"], square: tuple[float, float, float]
    ) -> tuple[Float32[np.ndarray, "height width"], Float32[np.ndarray, "height width"]]:
        """Return the person's mask in a square part of a picture, and where it is valid."""
        return self._segmenter.mask_of_part(picture, *square)

    def read(self, picture: UInt8[np.ndarray, "height width 3"]) -> list[TextLine]:
        """Return the writing in a picture; the networks for it are opened at the first call."""
        if self._writing is None:
            self._writing = RapidOcrTextDetector(num_threads=self._num_threads)
        return self._writing.detect(picture)

    def see_reference(
        self,
        picture: UInt8[np.ndarray, "height width 3"],
        choices: Sequence[PersonChoice] = (),
        *,
        option: str | None = None,
    ) -> SeenReference:
        """Return one person of a photo.

        Args:
            picture: RGB at the working size.
            choices: Whom to take, at most one; points in pixels of `picture`.
            option: Option to ask for where several are seen; None takes the largest.

        Raises:
            PoseError: Nobody is found.
        """
        bodies = self._bodies.find(picture, wants_masks=True)
        if not bodies or bodies[0].score < _MIN_BODY_SCORE:
            raise PoseError(
                "The reference picture shows no person whose body keypoints can be found.",
                fix="Use a picture that shows one person clearly, at least head and shoulders.",
                reason="no_person",
            )
        body, count = _choose(bodies, choices, "the reference picture", option)
        mask = body.mask
        if mask is None:
            mask = np.zeros(picture.shape[:2], np.float32)
        person = landmarks_of(body, self._find_face(picture, body))
        left, right = self._hands.find_of_body(picture, body)
        hands: dict[Side, Float64[np.ndarray, "21 2"]] = {}
        if left is not None:
            hands["left"] = left.points[:, :2].astype(np.float64)
        if right is not None:
            hands["right"] = right.points[:, :2].astype(np.float64)
        return SeenReference(person=replace(person, hands=hands), mask=mask, num_people=count)

    def follow(
        self,
        frames: Iterable[UInt8[np.ndarray, "height width 3"]],
        choices: Sequence[PersonChoice] = (),
        *,
        option: str | None = None,
        on_frame: Callable[[int], None] | None = None,
    ) -> SeenClip:
        """Follow one person through a video, which is read once, frame by frame.

        Args:
            choices: Whom to follow, at most one; points in pixels of the frames.
            option: Option to ask for where several are seen; None takes the largest.
            on_frame: Told how many frames are done; raising ends it.

        Raises:
            PoseError: Fewer than half of the frames show the person.
        """
        people: list[PersonLandmarks | None] = []
        body: Body | None = None
        face: FaceMesh | None = None
        is_chosen, count, height, width = False, 0, 0, 0
        for frame in frames:
            height, width = frame.shape[:2]
            body = None if body is None else self._bodies.follow(frame, body)
            if body is None or body.score < _MIN_BODY_SCORE:
                face = None
                body, found = self._find_again(frame, choices, option, is_chosen=is_chosen)
                count = count if is_chosen else found
            is_chosen = is_chosen or body is not None
            if body is not None:
                face = self._follow_face(frame, body, face)
            people.append(None if body is None else landmarks_of(body, face))
            if on_frame is not None:
                on_frame(len(people))
        clip = SeenClip(people=tuple(people), width_px=width, height_px=height, num_people=count)
        if clip.num_missing > _MAX_MISSING_SHARE * max(len(people), 1) or not people:
            raise PoseError(
                f"{clip.num_missing} of {len(people)} frames of the driving video show nobody who"
                " could be followed.",
                fix="Use a video in which one person is visible throughout.",
                reason="no_person",
            )
        return clip

    def _find_again(
        self,
        frame: UInt8[np.ndarray, "height width 3"],
        choices: Sequence[PersonChoice],
        option: str | None,
        *,
        is_chosen: bool,
    ) -> tuple[Body | None, int]:
        """Look for the person in the whole frame; who it is was settled when first seen."""
        bodies = [body for body in self._bodies.find(frame) if body.score >= _MIN_BODY_SCORE]
        if not bodies:
            return None, 0
        if is_chosen:
            return bodies[0], len(bodies)
        return _choose(bodies, choices, "the driving video", option)

    def _find_face(
        self, picture: UInt8[np.ndarray, "height width 3"], body: Body
    ) -> FaceMesh | None:
        face = self._faces.find(picture, body.head_box())
        return face if face.score > MIN_FACE_SCORE else None

    def _follow_face(
        self, frame: UInt8[np.ndarray, "height width 3"], body: Body, face: FaceMesh | None
    ) -> FaceMesh | None:
        if face is not None:
            followed = self._faces.follow(frame, face)
            if followed.score > MIN_FACE_SCORE:
                return followed
        return self._find_face(frame, body)


def landmarks_of(body: Body, face: FaceMesh | None) -> PersonLandmarks:
    """Return what the networks saw as the engine's landmarks."""
    return PersonLandmarks(
        body=body.points.astype(np.float64),
        visibility=body.visibility.astype(np.float64),
        face=None if face is None else face.points.astype(np.float64),
    )


def _choose(
    bodies: Sequence[Body], choices: Sequence[PersonChoice], where: str, option: str | None
) -> tuple[Body, int]:
    """Return the chosen body, and how many could have been chosen."""
    seen = [seen_person(body.pose()) for body in bodies]
    height = bodies[0].frame_size[1]
    index = choose_people(seen, choices, height_px=height, where=where, option=option)[0]
    return bodies[index], len(prominent_people(seen))
