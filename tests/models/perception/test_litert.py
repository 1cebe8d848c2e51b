"""MediaPipe's networks as the package index has them, on small free pictures."""

import sys

import numpy as np
import pytest

from animaray.models.perception.permissive.blaze_face import BlazeFace
from animaray.models.perception.permissive.head_faces import HeadFaceDetector
from animaray.models.perception.permissive.litert_session import LiteRtSession
from animaray.models.perception.permissive.mediapipe_face import FaceMeshNetwork
from animaray.models.perception.permissive.mediapipe_hands import HandNetworks
from animaray.models.perception.permissive.mediapipe_pose import MediaPipePoseEstimator
from animaray.models.perception.permissive.mediapipe_whole_body import MediaPipeWholeBody
from animaray.models.perception.permissive.picture_network import PictureNetwork
from animaray.models.perception.permissive.selfie_segmentation import SelfieSegmenter
from animaray.models.perception.protocols import FaceDetector, PoseEstimator
from animaray.models.pose.layouts import (
    FACE,
    FACE_68_OF_MESH,
    FURTHER_MIRROR,
    LEFT_HAND,
    RIGHT_HAND,
)
from animaray.platform.errors import ConfigError, MachineError, WeightsError
from animaray.platform.media.picture import read_picture
from animaray.platform.media.video import decode_video
from animaray.platform.weights.store import resolve_weights


@pytest.fixture(scope="module")
def portrait(real_data):
    return read_picture(real_data / "images/p07_1.jpg")


@pytest.fixture(scope="module")
def squat(real_data):
    return decode_video(real_data / "videos/v04.mp4", max_frames=2).frames_uint8


def test_missing_and_damaged_files_are_weights_errors(tmp_path, permissive_weights):
    with pytest.raises(WeightsError, match="no such file") as missing:
        LiteRtSession(tmp_path / "none.tflite")
    assert missing.value.reason == "missing"
    whole = resolve_weights("permissive/face_landmark").read_bytes()
    for name, content in {"cut": whole[:300_000], "text": b"not a network", "empty": b""}.items():
        (tmp_path / f"{name}.tflite").write_bytes(content)
        with pytest.raises(WeightsError, match="LiteRT says") as damaged:
            LiteRtSession(tmp_path / f"{name}.tflite")
        assert damaged.value.reason == "damaged"


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch, permissive_weights):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(MachineError, match="ai-edge-litert") as error:
        LiteRtSession(resolve_weights("permissive/face_landmark"))
    assert error.value.fix == "pip install ai-edge-litert"


def test_unknown_devices_are_refused_and_cuda_is_answered_for(permissive_weights, caplog):
    path = resolve_weights("permissive/face_detection")
    with pytest.raises(ConfigError, match="cpu or cuda"):
        LiteRtSession(path, device="tpu")
    LiteRtSession(path, device="cuda")
    assert "stays on the CPU" in caplog.text


def test_another_network_s_file_is_refused(permissive_weights):
    with pytest.raises(WeightsError, match="1x256x256x3 pictures") as error:
        PictureNetwork(
            resolve_weights("permissive/face_landmark"), side_px=256, outputs=("Identity",)
        )
    assert error.value.reason == "other"


def test_a_portrait_s_body_mask_and_face_are_found(portrait, permissive_weights):
    estimator = MediaPipePoseEstimator.load()
    assert isinstance(estimator, PoseEstimator)
    height, width = portrait.shape[:2]
    (body,) = estimator.find(portrait, wants_masks=True)
    nose, left_eye, right_eye = body.points[[0, 2, 5], :2] / (width, height)
    np.testing.assert_allclose(nose, (0.49, 0.211), atol=0.02)
    assert left_eye[0] > nose[0] > right_eye[0]
    assert body.score > 0.9
    assert body.world[11, 0] > 0.05 > -0.05 > body.world[12, 0]
    assert body.mask is not None
    assert body.mask.shape == (height, width)
    assert body.mask[round(nose[1] * height), round(nose[0] * width)] > 0.95
    assert body.mask[5, 5] < 0.1


def test_squats_are_followed_from_frame_to_frame(squat, permissive_weights):
    estimator = MediaPipePoseEstimator.load()
    (first,) = estimator.find(squat[0])
    followed = estimator.follow(squat[1], first)
    (anew,) = estimator.find(squat[1])
    assert followed is not None
    distance = np.linalg.norm(followed.points[:, :2] - anew.points[:, :2], axis=1)
    assert np.median(distance) < 0.02 * np.ptp(anew.points[:, 1])
    assert first.pose().keypoint_confidence.min() > 0.3
    ankles_below_hips = first.points[[27, 28], 1] - first.points[[23, 24], 1]
    assert (ankles_below_hips > 0.2 * squat.shape[1]).all()


def test_face_points_lie_where_they_should_and_follow(portrait, permissive_weights):
    network = FaceMeshNetwork.load()
    face = network.find(portrait, np.array([280.0, 110.0, 520.0, 350.0]))
    assert face.score > 0.99
    # Nose tip, outer corners of the eyes, corners of the mouth, chin.
    points = face.points[[1, 33, 263, 61, 291, 152], :2]
    expected = [(408, 229), (344, 177), (467, 175), (356, 262), (456, 261), (407, 344)]
    np.testing.assert_allclose(points, expected, atol=4)
    again = network.follow(portrait, face)
    assert np.abs(again.points[:, :2] - face.points[:, :2]).mean() < 2
    wall = network.find(portrait, np.array([0.0, 0.0, 150.0, 150.0]))
    assert wall.score < 0.5


def test_large_faces_are_found_in_whole_pictures(portrait, permissive_weights):
    (face,) = BlazeFace.load().find(portrait)
    assert face.score > 0.85
    np.testing.assert_allclose(face.points[0], (359, 183), atol=6)
    np.testing.assert_allclose(face.points[3], (408, 283), atol=6)


def test_faces_are_found_on_heads_large_and_small(portrait, squat, permissive_weights):
    detector = HeadFaceDetector.load()
    assert isinstance(detector, FaceDetector)
    (face,) = detector.detect(portrait)
    expected = [(362, 177), (449, 177), (408, 229), (355, 261), (457, 260)]
    np.testing.assert_allclose(face.landmarks, expected, atol=4)
    np.testing.assert_allclose(face.box, (304, 72, 502, 343), atol=8)
    (small,) = detector.detect(squat[0])
    assert 50 < small.box[2] - small.box[0] < 90
    np.testing.assert_allclose(small.landmarks.mean(axis=0), (358, 236), atol=6)
    assert detector.detect(np.full((200, 300, 3), 90, dtype=np.uint8)) == []


def test_both_hands_of_a_picture_are_found(real_data, permissive_weights):
    hands = HandNetworks.load().find(read_picture(real_data / "images/n16.jpg"))
    wrists = sorted(tuple(hand.points[0, :2]) for hand in hands)
    np.testing.assert_allclose(wrists, [(144, 345), (577, 37)], atol=13)
    tips = sorted(tuple(hand.points[12, :2]) for hand in hands)
    assert all(hand.score > 0.9 for hand in hands)
    assert abs(tips[0][1] - wrists[0][1]) > 150


def test_the_hands_of_a_body_are_its_left_and_right(squat, permissive_weights):
    (body,) = MediaPipePoseEstimator.load().find(squat[0])
    networks = HandNetworks.load()
    left, right = networks.find_of_body(squat[0], body)
    assert left is not None
    assert right is not None
    assert left.points[:, 0].mean() > right.points[:, 0].mean()
    assert left.right_score < 0.5 < right.right_score
    for hand, wrist in ((left, 15), (right, 16)):
        np.testing.assert_allclose(hand.points[0, :2], body.points[wrist, :2], atol=40)
        followed = networks.follow(squat[0], hand)
        assert followed is not None
        assert np.abs(followed.points[:, :2] - hand.points[:, :2]).mean() < 6


def test_a_person_is_told_from_the_background(portrait, permissive_weights):
    segmenter = SelfieSegmenter.load()
    height, width = portrait.shape[:2]
    mask = segmenter.mask(portrait)
    assert mask.shape == (height, width)
    assert mask[height // 2 :, width // 3 : 2 * width // 3].mean() > 0.9
    assert mask[: height // 8, : width // 8].mean() < 0.1
    part, seen = segmenter.mask_of_part(portrait, width / 2, 300.0, 500.0)
    assert part[229, 408] > 0.9
    assert seen[300, width // 2] == 1
    assert not seen[900:].any()
    assert not part[900:].any()


def test_the_68_face_points_are_symmetric_and_in_order(portrait, permissive_weights):
    assert len(set(FACE_68_OF_MESH)) == 68
    face = FaceMeshNetwork.load().find(portrait, np.array([280.0, 110.0, 520.0, 350.0]))
    points = face.points[list(FACE_68_OF_MESH), :2]
    middle = points[[27, 28, 29, 30, 33, 51, 57, 8]].mean(axis=0)
    mirror = np.array(FURTHER_MIRROR[FACE]) - FACE.start
    mirrored = points[mirror] * (-1, 1) + (2 * middle[0], 0)
    assert np.abs(points - mirrored).max() < 0.08 * np.ptp(points[:, 0])
    assert (np.diff(points[:9, 1]) > 0).all()  # down the jaw to the chin
    assert (np.diff(points[17:27, 0]) > 0).all()  # along both brows
    assert (np.diff(points[27:31, 1]) > 0).all()  # down the nose
    assert points[36:48, 1].mean() > points[17:27, 1].mean()  # eyes below brows


def test_whole_bodies_have_hands_and_faces_where_they_are_seen(squat, portrait, permissive_weights):
    estimator = MediaPipeWholeBody.load()
    (person,) = estimator.estimate(squat[0])
    further = person.further_points
    assert further is not None
    # Wrists of the hands lie at those of the body (left 7, right 4), toes below ankles (13, 10).
    wrists = further[[LEFT_HAND.start, RIGHT_HAND.start], :2]
    np.testing.assert_allclose(wrists, person.keypoints[[7, 4]], atol=40)
    assert (further[LEFT_HAND, 2] > 0.5).all()
    assert (further[RIGHT_HAND, 2] > 0.5).all()
    np.testing.assert_allclose(further[FACE][27:36, :2].mean(axis=0), person.keypoints[0], atol=25)
    assert (further[[0, 3], 1] > person.keypoints[[13, 10], 1]).all()
    assert further[[1, 4], 2].tolist() == [0, 0]  # it shows no small toes
    (sitter,) = estimator.estimate(portrait)
    assert sitter.further_points is not None
    assert sitter.further_points[FACE, 2].min() > 0.9
    is_unseen = sitter.further_points[:, 2] == 0
    assert is_unseen.any()
    assert (sitter.further_points[is_unseen] == 0).all()
