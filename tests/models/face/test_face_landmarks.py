import numpy as np
import pytest

from animaray.models.face.landmarks import (
    detect_landmarks,
    landmarks_from_keypoints,
    nearest_face,
)
from animaray.models.perception.protocols import FaceDetection

TEMPLATE = np.array([[38, 52], [74, 52], [56, 72], [42, 92], [71, 92]], np.float32)


def body_with(right_eye, left_eye, nose):
    keypoints = np.zeros((1, 18, 2), np.float32)
    keypoints[0, [14, 15, 0]] = right_eye, left_eye, nose
    return keypoints, np.ones((1, 18), np.float32)


def test_a_face_like_the_template_gets_the_templates_mouth():
    # Half the template's size, shifted by (10, 20): so is the mouth.
    keypoints, confidence = body_with(*(TEMPLATE[:3] / 2 + [10, 20]))
    landmarks, valid = landmarks_from_keypoints(keypoints, confidence, TEMPLATE)
    assert valid.all()
    assert np.allclose(landmarks[0], TEMPLATE / 2 + [10, 20], atol=1e-3)


@pytest.mark.parametrize(
    "points",
    [
        (TEMPLATE[1], TEMPLATE[0], TEMPLATE[2]),  # from behind: the eyes are swapped
        (TEMPLATE[0] / 20, TEMPLATE[1] / 20, TEMPLATE[2] / 20),  # eyes 1.8 px apart
    ],
)
def test_unusable_faces_are_not_valid(points):
    landmarks, valid = landmarks_from_keypoints(*body_with(*points), TEMPLATE)
    assert not valid.any()
    assert np.isnan(landmarks).all()


def test_hidden_eyes_are_not_valid():
    keypoints, confidence = body_with(*TEMPLATE[:3])
    confidence[0, 14] = 0.1
    assert not landmarks_from_keypoints(keypoints, confidence, TEMPLATE)[1].any()


def face_at(x, size):
    box = np.array([x, 0, x + size, size], np.float32)
    landmarks = np.full((5, 2), [x + size / 2, size / 2], np.float32)
    return FaceDetection(box=box, score=0.9, landmarks=landmarks)


def test_the_nearest_of_several_faces_is_taken():
    faces = [face_at(0, 40), face_at(100, 20)]
    assert nearest_face(faces, np.array([110.0, 10.0])) is faces[1]
    assert nearest_face(faces, np.array([np.nan, np.nan])) is faces[0]
    assert nearest_face([], np.zeros(2)) is None


def test_frames_without_a_face_stay_unknown():
    class Detector:
        name = "second frame only"

        def detect(self, frame):
            return [face_at(4, 8)] if frame.max() else []

    frames = np.zeros((2, 16, 16, 3), np.uint8)
    frames[1] = 255
    expected = np.full((2, 5, 2), np.nan, np.float32)
    landmarks, valid = detect_landmarks(frames, Detector(), expected)
    assert valid.tolist() == [False, True]
    assert np.allclose(landmarks[1], [8, 4])
