"""Five face landmarks per frame: estimated from body keypoints, or detected in pictures."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from animaray.models.perception.face_alignment import similarity_from_landmarks
from animaray.models.perception.protocols import FaceDetection, FaceDetector
from animaray.models.pose.layouts import VISIBLE_CONFIDENCE

NOSE, RIGHT_EYE, LEFT_EYE = 0, 14, 15
SMALLEST_EYE_DISTANCE_PX = 3.0
"""Eyes closer together do not fix a rotation: a profile, or a very small face."""


def landmarks_from_keypoints(
    keypoints: Float[np.ndarray, "frames 18 2"],
    confidence: Float[np.ndarray, "frames 18"],
    template: Float[np.ndarray, "5 2"],
) -> tuple[Float32[np.ndarray, "frames 5 2"], Bool[np.ndarray, " frames"]]:
    """Estimate eyes, nose and mouth corners from the eyes and nose of a body pose.

    The mouth is where the template has it relative to eyes and nose. Frames that do not show both
    eyes and the nose of a face turned to the camera are not valid; their landmarks are NaN.

    Args:
        keypoints: Pixels, OpenPose order.
        confidence: In [0, 1].
        template: The recogniser's own five landmarks.
    """
    landmarks = np.full((len(keypoints), 5, 2), np.nan, np.float32)
    valid = np.zeros(len(keypoints), bool)
    for frame, (points, certain) in enumerate(zip(keypoints, confidence, strict=True)):
        if min(certain[[NOSE, RIGHT_EYE, LEFT_EYE]]) < VISIBLE_CONFIDENCE:
            continue
        seen = points[[RIGHT_EYE, LEFT_EYE, NOSE]].astype(np.float64)
        eyes, nose = seen[1] - seen[0], seen[2] - (seen[0] + seen[1]) / 2
        # The person's right eye lies on the picture's left, unless seen from behind.
        is_turned_away = eyes[0] * nose[1] - eyes[1] * nose[0] <= 0
        if np.hypot(*eyes) < SMALLEST_EYE_DISTANCE_PX or is_turned_away:
            continue
        matrix = similarity_from_landmarks(template[:3], seen)
        mouth = template[3:].astype(np.float64) @ matrix[:, :2].T + matrix[:, 2]
        landmarks[frame] = np.concatenate([seen, mouth])
        valid[frame] = True
    return landmarks, valid


def detect_landmarks(
    frames_uint8: UInt8[np.ndarray, "frames height width 3"],
    detector: FaceDetector,
    expected: Float32[np.ndarray, "frames 5 2"],
    *,
    largest_if_unknown: bool = True,
) -> tuple[Float32[np.ndarray, "frames 5 2"], Bool[np.ndarray, " frames"]]:
    """Detect one face per frame; of several, the one nearest to where it is expected.

    Args:
        frames_uint8: RGB pictures.
        detector: Finds faces with landmarks.
        expected: Landmarks expected in each frame, pixels; NaN where no face is expected.
        largest_if_unknown: NaN rows take the largest face; False leaves them NaN.
    """
    landmarks = np.full((len(frames_uint8), 5, 2), np.nan, np.float32)
    for frame, picture in enumerate(frames_uint8):
        if not largest_if_unknown and not np.isfinite(expected[frame]).all():
            continue
        face = nearest_face(detector.detect(picture), expected[frame].mean(axis=0))
        if face is not None:
            landmarks[frame] = face.landmarks
    return landmarks, np.isfinite(landmarks[:, 0, 0])


def move_alike(
    landmarks: Float32[np.ndarray, "frames 5 2"],
    before: Float32[np.ndarray, "5 2"],
    after: Float32[np.ndarray, "5 2"],
) -> Float32[np.ndarray, "frames 5 2"]:
    """Move every frame's landmarks as one frame's moved: the same shift, turn and scale.

    Args:
        landmarks: Pixels; NaN stays NaN.
        before: Of one frame, as they were.
        after: Of that frame, as they were found.
    """
    linear = similarity_from_landmarks(before, after)[:, :2]
    centres = landmarks.mean(axis=1, keepdims=True)
    shift = after.mean(axis=0) - before.mean(axis=0)
    return ((landmarks - centres) @ linear.T + centres + shift).astype(np.float32)


def nearest_face(
    faces: Sequence[FaceDetection], place: Float[np.ndarray, " 2"]
) -> FaceDetection | None:
    """Return the face whose landmarks are nearest to a place, the largest if it is NaN."""
    if not faces:
        return None
    if not np.isfinite(place).all():
        return faces[0]
    return min(faces, key=lambda face: float(np.hypot(*(face.landmarks.mean(axis=0) - place))))
