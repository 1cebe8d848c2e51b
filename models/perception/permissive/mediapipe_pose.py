"""Body keypoints by MediaPipe's two pose networks (Apache-2.0), several people a picture.

A detector on a 224 px letterbox finds people (two points set each one's size and turn); the
landmark network sees each person upright in a 256 px crop, twice: the second crop is placed by
the landmarks of the first. Every frame is judged on its own, unless somebody says that frames are
those of one clip: then the body of the last frame places the crop, which saves the detector and the
second look in most of them.

References:
    Bazarevsky et al. 2020, "BlazePose", arXiv 2006.10204.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from animaray.models.perception.permissive.anchor_detections import (
    AnchorDecoder,
    AnchorLayout,
    Detection,
    letterbox,
    tiles_of,
)
from animaray.models.perception.permissive.mediapipe_body import Body, BodyNetwork
from animaray.models.perception.permissive.picture_network import PictureNetwork
from animaray.models.perception.protocols import PersonPose
from animaray.platform.errors import ConfigError
from animaray.platform.weights.store import resolve_weights

NAME = "permissive/body"
CONVERSIONS_NAME = "permissive/mediapipe_pose"
PERSON_ANCHORS = AnchorLayout(side_px=224, num_points=2, strides=((8, 2), (16, 2), (32, 6)))
"""Point 0 of a person is the middle of the hips, point 1 sets size and turn."""
_LEAST_FOLLOWED = 0.5
"""Presence below which a followed person may be gone or another: the frame is looked at anew."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaPipePoseConfig:
    """Settings of the MediaPipe pose estimator."""

    min_detection_score: float = 0.5
    """Least detector score in [0, 1] of a person."""
    min_tile_score: float = 0.8
    """The same for tiles: there is more background to be wrong about (animals reach 0.7)."""
    min_presence: float = 0.3
    """Least presence score in [0, 1] of the landmark network; real close-ups fall to 0.4."""
    max_people: int = 8
    """Detections beyond this many (by score) are not looked at."""
    max_overlap: float = 0.5
    """Two poses whose keypoints agree more than this (0 to 1) are one person."""
    use_second_look: bool = True
    """Run the landmark network again in the crop that its first landmarks ask for (15 ms)."""
    use_tiles: bool = True
    """Look again at overlapping tiles when the whole picture shows nobody (far people)."""

    def __post_init__(self) -> None:
        """Refuse settings out of range.

        Raises:
            ConfigError: A share is outside [0, 1], or max_people is below 1.
        """
        for name in ("min_detection_score", "min_tile_score", "min_presence", "max_overlap"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ConfigError(f"Expected {name} in [0, 1], got {value}.")
        if self.max_people < 1:
            raise ConfigError(f"Expected max_people >= 1, got {self.max_people}.")


class MediaPipePoseEstimator:
    """Find people and their 18 OpenPose keypoints in one picture."""

    def __init__(
        self,
        detector_path: Path,
        landmarks_path: Path,
        *,
        config: MediaPipePoseConfig | None = None,
        num_threads: int = 1,
        device: str = "cpu",
    ) -> None:
        """Open the two files.

        Args:
            detector_path: Person detector, .tflite or converted to .onnx.
            landmarks_path: Landmark network, full or lite, .tflite or converted to .onnx.
            config: Settings; None takes the defaults.
            num_threads: CPU threads of each network.
            device: "cpu" or "cuda".
        """
        self.name = NAME
        self.config = config or MediaPipePoseConfig()
        self._decoder = AnchorDecoder(PERSON_ANCHORS)
        self._detector = PictureNetwork(
            detector_path,
            side_px=PERSON_ANCHORS.side_px,
            outputs=("Identity", "Identity_1"),
            is_signed=True,
            num_threads=num_threads,
            device=device,
        )
        self._body = BodyNetwork(landmarks_path, num_threads=num_threads, device=device)

    @classmethod
    def load(
        cls,
        *,
        config: MediaPipePoseConfig | None = None,
        num_threads: int = 1,
        device: str = "cpu",
    ) -> "MediaPipePoseEstimator":
        """Open the registered weights.

        Args:
            config: Settings; None takes the defaults.
            num_threads: CPU threads of each network.
            device: "cpu" or "cuda".
        """
        return cls(
            resolve_weights("permissive/pose_detection"),
            resolve_weights("permissive/pose_landmark_full"),
            config=config,
            num_threads=num_threads,
            device=device,
        )

    @classmethod
    def load_conversions(
        cls, *, num_threads: int = 1, device: str = "cpu"
    ) -> "MediaPipePoseEstimator":
        """Open the conversions to ONNX that earlier versions asked for; the landmarks are lite.

        Args:
            num_threads: CPU threads of each network.
            device: "cpu" or "cuda".
        """
        estimator = cls(
            resolve_weights("permissive/pose_detector"),
            resolve_weights("permissive/pose_landmarks"),
            num_threads=num_threads,
            device=device,
        )
        estimator.name = CONVERSIONS_NAME
        return estimator

    def estimate(self, frame: UInt8[np.ndarray, "height width 3"]) -> list[PersonPose]:
        """Return the people of one RGB picture, largest first; empty when there is nobody.

        Confidence is visibility times presence; at most 0.05 for points outside the picture.
        """
        return [body.pose() for body in self.find(frame)]

    def start_clip(self, *, fps: float, least_looks_fps: float) -> "BodyFollower":
        """Return what follows people through the frames of one clip.

        Args:
            fps: Rate of the frames that it will be given.
            least_looks_fps: The detector looks at least so often a second.
        """
        return BodyFollower(self, max(1, int(fps / least_looks_fps + 1e-6)))

    def find(
        self,
        frame: UInt8[np.ndarray, "height width 3"],
        *,
        known: Sequence[Body] = (),
        wants_masks: bool = False,
    ) -> list[Body]:
        """Return the people of one RGB picture with all that is known of them, largest first.

        Args:
            known: Bodies in this picture that were followed to it; one where the detector sees
                somebody, too, is not looked at again, and one where it does not is left out.
            wants_masks: Also return each person's mask.
        """
        people: list[Body] = []
        for detection in self.detect(frame)[: self.config.max_people]:
            body = next((each for each in known if _is_of(detection, each)), None)
            if body is None:
                body = self._look_at(frame, detection, wants_mask=wants_masks)
            if body is not None and not self.is_among(body, people):
                people.append(body)
        return sorted(people, key=Body.area, reverse=True)

    def follow(
        self,
        frame: UInt8[np.ndarray, "height width 3"],
        body: Body,
        *,
        wants_mask: bool = False,
    ) -> Body | None:
        """Return a person again in the next frame, or None where nobody is there any more.

        Args:
            body: The person in the frame before.
            wants_mask: Also return the person's mask.
        """
        return self._body.look(
            frame, body.auxiliary, min_score=self.config.min_presence, wants_mask=wants_mask
        )

    def detect(self, frame: UInt8[np.ndarray, "height width 3"]) -> list[Detection]:
        """Return what the person detector alone sees, best score first; tiles where it is asked."""
        found = self._detect(frame, self.config.min_detection_score)
        if found or not self.config.use_tiles:
            return found
        for x, y, side in tiles_of(frame.shape[1], frame.shape[0]):
            corner = np.array([x, y], dtype=np.float32)
            people = self._detect(frame[y : y + side, x : x + side], self.config.min_tile_score)
            found.extend(each.moved(corner, 1.0) for each in people)
        return sorted(found, key=lambda each: each.score, reverse=True)

    def _detect(
        self, picture: UInt8[np.ndarray, "height width 3"], min_score: float
    ) -> list[Detection]:
        """Run the detector on a picture, letterboxed; best score first."""
        square, corner, scale = letterbox(picture, PERSON_ANCHORS.side_px)
        answer = self._detector.look(square)
        rows, logits = answer["Identity"][0], answer["Identity_1"][0, :, 0]
        found = self._decoder.decode(rows, logits, min_score)
        return [each.moved(-corner, 1.0 / scale) for each in found]

    def _look_at(
        self,
        frame: UInt8[np.ndarray, "height width 3"],
        detection: Detection,
        *,
        wants_mask: bool,
    ) -> Body | None:
        """Find one person's landmarks, then again in the crop that those landmarks ask for."""
        first = self._body.look(
            frame,
            detection.points,
            min_score=self.config.min_presence,
            wants_mask=wants_mask,
        )
        if first is None or not self.config.use_second_look:
            return first
        return self.follow(frame, first, wants_mask=wants_mask) or first

    def is_among(self, body: Body, people: Sequence[Body]) -> bool:
        """Return whether a body is one of some people who were found already."""
        return any(body.likeness(other) > self.config.max_overlap for other in people)


def _is_of(detection: Detection, body: Body) -> bool:
    """Return whether the detector means a body that is known: the same hips, about as large."""
    radius, known = (float(np.hypot(*np.diff(pair, axis=0)[0])) for pair in
                     (detection.points, body.auxiliary))  # fmt: skip
    offset = float(np.hypot(*(detection.points[0] - body.auxiliary[0])))
    return offset < 0.5 * known and 0.6 * known < radius < known / 0.6


class BodyFollower:
    """Find the people in the frames of one clip, given in order, each from where it was before.

    The detector looks at every n-th frame, and where nobody was, or somebody is lost or doubtful.
    """

    def __init__(self, poses: MediaPipePoseEstimator, frames_per_look: int) -> None:
        """Start before the first frame.

        Args:
            poses: Looks at the frames.
            frames_per_look: From one look of the detector to the next.
        """
        self._poses = poses
        self._frames_per_look = frames_per_look
        self._people: list[Body] = []
        self._followed = 0

    def estimate(self, frame: UInt8[np.ndarray, "height width 3"]) -> list[PersonPose]:
        """Return the people of the next RGB frame, largest first; empty when there is nobody."""
        return [body.pose() for body in self.find(frame)]

    def find(self, frame: UInt8[np.ndarray, "height width 3"]) -> list[Body]:
        """Return the people of the next RGB frame with all that is known of them."""
        people = self._follow(frame) if self._frames_per_look > 1 else []
        if len(people) == len(self._people) > 0 and self._followed + 1 < self._frames_per_look:
            self._followed += 1
        else:
            self._followed = 0
            people = self._poses.find(frame, known=people)
        self._people = people
        return people

    def _follow(self, frame: UInt8[np.ndarray, "height width 3"]) -> list[Body]:
        """Return whoever is surely still there, largest first."""
        people: list[Body] = []
        for before in self._people:
            body = self._poses.follow(frame, before)
            if body and body.score >= _LEAST_FOLLOWED and not self._poses.is_among(body, people):
                people.append(body)
        return sorted(people, key=Body.area, reverse=True)
