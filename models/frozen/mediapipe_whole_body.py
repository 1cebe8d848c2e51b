"""Whole bodies by MediaPipe's networks: 18 body points, both hands, 68 points of the face mesh.

Every person costs the body (65 ms), a head (3 to 6 ms) and 11 to 33 ms for each hand.
"""

import numpy as np
from jaxtyping import Float32, UInt8

from animaray.models.frozen.head_faces import HeadFaceDetector
from animaray.models.frozen.mediapipe_body import Body
from animaray.models.frozen.mediapipe_face import FaceMesh
from animaray.models.frozen.mediapipe_hands import Hand, HandNetworks
from animaray.models.frozen.mediapipe_pose import MediaPipePoseEstimator
from animaray.models.pose.drawing import WholeBody
from animaray.models.pose.layouts import FACE_68_OF_MESH, NUM_FACE_POINTS, NUM_HAND_POINTS


class MediaPipeWholeBody:
    """Find people with their hands and faces; what is not seen has confidence 0."""

    def __init__(
        self, poses: MediaPipePoseEstimator, faces: HeadFaceDetector, hands: HandNetworks
    ) -> None:
        """Take the networks that it looks with.

        Args:
            poses: Finds people.
            faces: Looks at each head.
            hands: Looks at the end of each arm.
        """
        self.name = "permissive/whole_body"
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

    def estimate_whole_body(self, frame: UInt8[np.ndarray, "height width 3"]) -> list[WholeBody]:
        """Return the people of one RGB picture, largest first; empty when there is nobody."""
        return [self._complete(frame, body) for body in self._poses.find(frame)]

    def _complete(self, frame: UInt8[np.ndarray, "height width 3"], body: Body) -> WholeBody:
        pose = body.pose()
        hands = [_hand_points(hand) for hand in self._hands.find_of_body(frame, body)]
        _, mesh = self._faces.find_of_body(frame, body)
        face, face_confidence = _face_points(mesh)
        return WholeBody(
            body=pose.keypoints,
            body_confidence=pose.keypoint_confidence,
            hands=np.stack([points for points, _ in hands]),
            hands_confidence=np.stack([confidence for _, confidence in hands]),
            face=face,
            face_confidence=face_confidence,
        )


def _hand_points(
    hand: Hand | None,
) -> tuple[Float32[np.ndarray, "21 2"], Float32[np.ndarray, " 21"]]:
    """Return the points of a hand and one confidence for all of them."""
    if hand is None:
        return np.zeros((NUM_HAND_POINTS, 2), np.float32), np.zeros(NUM_HAND_POINTS, np.float32)
    return hand.points[:, :2], np.full(NUM_HAND_POINTS, hand.score, np.float32)


def _face_points(
    mesh: FaceMesh | None,
) -> tuple[Float32[np.ndarray, "68 2"], Float32[np.ndarray, " 68"]]:
    """Return the 68 points of a face and one confidence for all of them."""
    if mesh is None:
        return np.zeros((NUM_FACE_POINTS, 2), np.float32), np.zeros(NUM_FACE_POINTS, np.float32)
    points = mesh.points[list(FACE_68_OF_MESH), :2]
    return points, np.full(NUM_FACE_POINTS, mesh.score, np.float32)
