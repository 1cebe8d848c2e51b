import json
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from animaray.models.perception.permissive.yunet import YuNetFaceDetector
from animaray.models.perception.protocols import FaceDetector
from animaray.platform.errors import WeightsError
from animaray.platform.media.picture import read_picture
from animaray.platform.media.video import decode_video


def test_damaged_file_is_refused(tmp_path):
    (tmp_path / "face.onnx").write_bytes(b"not a graph")
    with pytest.raises(WeightsError, match=r"Expected YuNet's ONNX file at .*face.onnx"):
        YuNetFaceDetector(tmp_path / "face.onnx")


def test_missing_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("ANIMARAY_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("ANIMARAY_WEIGHTS", raising=False)
    with pytest.raises(WeightsError, match=r"face_det\.onnx"):
        YuNetFaceDetector.load()


@pytest.mark.real
def test_finds_every_single_portrait_and_no_alpaca(real_data, face_detector_weights):
    detector: FaceDetector = YuNetFaceDetector.load()
    names = json.loads((real_data / "annotations/identities.json").read_text())
    for name in names:
        assert detector.detect(read_picture(real_data / f"images/{name}")), name
    for name in ("n14.jpg", "n16.jpg"):
        assert detector.detect(read_picture(real_data / f"images/{name}")) == [], name
    assert len(detector.detect(read_picture(real_data / "images/n04.jpg"))) == 2


@pytest.mark.real
def test_finds_the_one_face_of_a_video_and_none_in_hands(real_data, face_detector_weights):
    detector: FaceDetector = YuNetFaceDetector.load()
    frames = decode_video(real_data / "videos/v04.mp4", max_frames=3).frames_uint8
    assert [len(detector.detect(frame)) for frame in frames] == [1, 1, 1]
    assert detector.detect(read_picture(real_data / "images/n16.jpg")) == []


@pytest.mark.real
def test_landmarks_lie_in_the_box_in_the_promised_order(real_data, face_detector_weights):
    frame = read_picture(real_data / "images/p07_1.jpg")
    face = YuNetFaceDetector.load().detect(frame)[0]
    left, top, right, bottom = face.box
    assert ((face.landmarks > [left, top]) & (face.landmarks < [right, bottom])).all()
    left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert left_eye[1] < nose[1] < left_mouth[1]
    assert 0.7 <= face.score <= 1.0


@pytest.mark.real
def test_large_pictures_and_their_small_copies_agree(real_data, face_detector_weights):
    frame = read_picture(real_data / "images/p01_1.jpg")
    half = cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    detector = YuNetFaceDetector.load()
    large, small = detector.detect(frame)[0], detector.detect(half)[0]
    side = large.box[2] - large.box[0]
    assert np.abs(large.landmarks - 2 * small.landmarks).max() < 0.05 * side


@pytest.mark.real
def test_small_faces_of_a_crowd_are_found_largest_first(real_data, face_detector_weights):
    frame = decode_video(real_data / "videos/v11.mp4", max_frames=1).frames_uint8[0]
    faces = YuNetFaceDetector.load().detect(frame)
    areas = [(f.box[2] - f.box[0]) * (f.box[3] - f.box[1]) for f in faces]
    assert len(faces) >= 5
    assert areas == sorted(areas, reverse=True)


@pytest.mark.real
def test_one_detector_serves_threads_with_pictures_of_several_sizes(
    real_data, face_detector_weights
):
    frame = read_picture(real_data / "images/p07_1.jpg")
    sizes = [(320, 240), (500, 380), (640, 480)]
    pictures = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for size in sizes]
    detector = YuNetFaceDetector.load()
    expected = [detector.detect(picture)[0].box for picture in pictures]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(detector.detect, pictures * 4))
    for index, faces in enumerate(found):
        np.testing.assert_allclose(faces[0].box, expected[index % 3])
