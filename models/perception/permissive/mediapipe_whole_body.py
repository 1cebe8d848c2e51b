"""Whole bodies by MediaPipe's networks: 18 body points, heels and toes, hands, 68 face points.

Every person costs the body (65 ms), a head (3 to 6 ms) and 11 to 33 ms for each hand. That is why
profile permissive looks at bodies alone unless somebody wants more (`load_perception`).
"""

import numpy as np
from jaxtyping import Float32, UInt8

from animaray.models.perception.permissive.head_faces import HeadFaceDetector
from animaray.models.perception.permissive.mediapipe_body import Body
from animaray.models.perception.permissive.mediapipe_hands import HandNetworks
from animaray.models.perception.permissive.mediapipe_pose import (
    BodyFollower,
    MediaPipePoseEstimator,
)
from animaray.models.perception.protocols import PersonPose
from animaray.models.pose.layouts import (
    FACE,
    FACE_68_OF_MESH,
    FEET,
    LEFT_HAND,
    NUM_FURTHER_POINTS,
    RIGHT_HAND,
)

NAME = "permissive/whole_body"


class MediaPipeWholeBody:
    """Find people with their feet, faces and hands; what is not seen has confidence 0."""

    def __init__(
        self, poses: MediaPipePoseEstimator, faces: HeadFaceDetector, hands: HandNetworks
    ) -> None:
        """Take the networks that it looks with.

        Args:
            faces: Looks at each head.
            hands: Looks at the end of each arm.
        """
        self.name = NAME
        self._poses = poses
        self._faces = faces
        self._hands = hands

    @classmethod
    def load(cls, *, num_threads: int = 1, device: str = "cpu") -> "MediaPipeWholeBody":
        """Open the registered weights."""
        return cls(
            MediaPipePoseEstimator.load(num_threads=num_threads, device=device),
            HeadFaceDetector.load(num_threads=num_threads, device=device),
            HandNetworks.load(num_threads=num_threads, device=device),
        )

    def estimate(self, frame: UInt8[np.ndarray, "height width 3"]) -> list[PersonPose]:
        """Return the people of one RGB picture, largest first; empty when there is nobody."""
        return [self.complete(frame, body) for body in self._poses.find(frame)]

    def start_clip(self, *, fps: float, least_looks_fps: float) -> "WholeBodyFollower":
        """Return what follows people through the frames of one clip.

        Args:
            fps: Rate of the frames that it will be given.
            least_looks_fps: The person detector looks at least so often a second.
        """
        bodies = self._poses.start_clip(fps=fps, least_looks_fps=least_looks_fps)
        return WholeBodyFollower(self, bodies)

    def complete(self, frame: UInt8[np.ndarray, "height width 3"], body: Body) -> PersonPose:
        """Return a person who was found already, with feet, face and hands.

        Args:
            body: The person in this picture.
        """
        further = np.zeros((NUM_FURTHER_POINTS, 3), np.float32)
        further[FEET] = body.feet()
        _, mesh = self._faces.find_of_body(frame, body)
        if mesh is not None:
            further[FACE] = _with_confidence(
                mesh.points[list(FACE_68_OF_MESH), :2], min(mesh.score, 1.0)
            )
        hands = self._hands.find_of_body(frame, body)
        for part, hand in zip((LEFT_HAND, RIGHT_HAND), hands, strict=True):
            if hand is not None:
                further[part] = _with_confidence(hand.points[:, :2], min(hand.score, 1.0))
        pose = body.pose()
        return PersonPose(
            keypoints=pose.keypoints,
            keypoint_confidence=pose.keypoint_confidence,
            further_points=further,
        )


class WholeBodyFollower:
    """Find the people in the frames of one clip, given in order; bodies are followed."""

    def __init__(self, whole: MediaPipeWholeBody, bodies: BodyFollower) -> None:
        self._whole = whole
        self._bodies = bodies

    def estimate(self, frame: UInt8[np.ndarray, "height width 3"]) -> list[PersonPose]:
        """Return the people of the next RGB frame, largest first; empty when there is nobody."""
        return [self._whole.complete(frame, body) for body in self._bodies.find(frame)]


def _with_confidence(
    points: Float32[np.ndarray, "points 2"], confidence: float
) -> Float32[np.ndarray, "points 3"]:
    """Return points with one confidence for all of them."""
    return np.pad(points, ((0, 0), (0, 1)), constant_values=confidence).astype(np.float32)
