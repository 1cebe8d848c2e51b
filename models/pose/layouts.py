"""Keypoint layouts: the 18 OpenPose body points, and 116 further points of feet, face and hands.

openpose_18       the body alone; every profile has it
whole_body_134    the body and, in an array of their own, the further points as the published pose
                  estimator orders them: feet, face, left hand, right hand
"""

from typing import Final, Literal

PoseLayout = Literal["openpose_18", "whole_body_134"]
"""Which points a pose has, or a model is told."""

OPENPOSE_18: Final = (
    "nose",
    "neck",
    "right_shoulder",
    "right_elbow",
    "right_wrist",
    "left_shoulder",
    "left_elbow",
    "left_wrist",
    "right_hip",
    "right_knee",
    "right_ankle",
    "left_hip",
    "left_knee",
    "left_ankle",
    "right_eye",
    "left_eye",
    "right_ear",
    "left_ear",
)
"""Left and right are the person's own."""

NUM_KEYPOINTS: Final = len(OPENPOSE_18)

LIMBS: Final = (
    (1, 2),
    (1, 5),
    (2, 3),
    (3, 4),
    (5, 6),
    (6, 7),
    (1, 8),
    (8, 9),
    (9, 10),
    (1, 11),
    (11, 12),
    (12, 13),
    (1, 0),
    (0, 14),
    (14, 16),
    (0, 15),
    (15, 17),
)
"""The 17 limbs in drawing order."""

MIRROR: Final = (0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16)
"""Index of each keypoint's mirror image."""

FACE_POINTS: Final = (0, 14, 15, 16, 17)
"""Nose, right eye, left eye, right ear, left ear."""

VISIBLE_CONFIDENCE: Final = 0.3
"""From this confidence on a keypoint counts as seen (the pose detector's own limit)."""

PALETTE: Final = (
    (255, 0, 0),
    (255, 85, 0),
    (255, 170, 0),
    (255, 255, 0),
    (170, 255, 0),
    (85, 255, 0),
    (0, 255, 0),
    (0, 255, 85),
    (0, 255, 170),
    (0, 255, 255),
    (0, 170, 255),
    (0, 85, 255),
    (0, 0, 255),
    (85, 0, 255),
    (170, 0, 255),
    (255, 0, 255),
    (255, 0, 170),
    (255, 0, 85),
)
"""RGB colour of each limb and keypoint."""

NUM_FURTHER_POINTS: Final = 116
"""Points beside the body's 18."""

FEET: Final = slice(0, 6)
"""Of the further points: big toe, small toe and heel, left then right."""

FACE: Final = slice(6, 74)
"""Of the further points: jaw 0 to 16, brows to 26, nose to 35, eyes to 47, lips to 67."""

LEFT_HAND: Final = slice(74, 95)
"""Of the further points: the person's own left hand."""

RIGHT_HAND: Final = slice(95, 116)
"""Of the further points: the person's own right hand."""

NUM_HAND_POINTS: Final = 21
"""Wrist, then four points of each finger from the thumb on, base to tip."""

HAND_EDGES: Final = tuple(
    (finger + joint - 1 if joint else 0, finger + joint)
    for finger in (1, 5, 9, 13, 17)
    for joint in range(4)
)
"""The 20 bones of a hand, finger by finger from the wrist (point 0)."""

FACE_68_OF_MESH: Final = (
    127, 93, 132, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 361, 323, 356,
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,
    168, 197, 5, 1, 98, 97, 2, 326, 327,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181,
    78, 82, 13, 312, 308, 317, 14, 87,
)  # fmt: skip
"""Which of MediaPipe's 468 mesh points stands for each of the 68 face points; each part runs from
the picture's left to its right along the jaw, the brows, the nostrils, and around eyes and lips."""

_FACE_MIRROR: Final = (
    *range(16, -1, -1),
    *range(26, 16, -1),
    27, 28, 29, 30, 35, 34, 33, 32, 31,
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55,
    64, 63, 62, 61, 60, 67, 66, 65,
)  # fmt: skip

FURTHER_MIRROR: Final = (
    3, 4, 5, 0, 1, 2,
    *(FACE.start + index for index in _FACE_MIRROR),
    *range(RIGHT_HAND.start, RIGHT_HAND.stop),
    *range(LEFT_HAND.start, LEFT_HAND.stop),
)  # fmt: skip
"""Index of each further point's mirror image."""
