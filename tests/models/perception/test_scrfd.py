import numpy as np
import pytest

from animaray.models.perception.paper.scrfd import ScrfdFaceDetector
from animaray.models.perception.protocols import FaceDetector
from animaray.platform.errors import WeightsError
from benchmarks.rehearsal import scripted_detectors

LARGE = np.array([[300, 100], [360, 100], [330, 140], [305, 170], [355, 170]], float)
SMALL = LARGE / 4 + 400


def box_of(landmarks, room):
    low, high = landmarks.min(axis=0) - room, landmarks.max(axis=0) + room
    return [*low, *high]


@pytest.fixture
def detector(tmp_path):
    faces = [
        (0.8, 8, box_of(SMALL, 8), SMALL),
        (0.9, 32, box_of(LARGE, 30), LARGE),
        # The same face again, seen less well: suppressed.
        (0.7, 32, box_of(LARGE + 3, 30), LARGE + 3),
        # Too doubtful.
        (0.4, 16, [500, 500, 560, 560], SMALL + 100),
    ]
    scripted_detectors.write_scrfd(tmp_path / "scrfd.onnx", faces)
    return ScrfdFaceDetector(tmp_path / "scrfd.onnx")


@pytest.mark.parametrize(("height", "width"), [(640, 640), (320, 640), (1280, 640), (360, 480)])
def test_faces_are_found_in_pixels_of_the_picture(detector, height, width):
    assert isinstance(detector, FaceDetector)
    scale = 640 / max(height, width)
    faces = detector.detect(np.zeros((height, width, 3), np.uint8))
    assert [round(face.score, 2) for face in faces] == [0.9, 0.8]
    for face, landmarks, room in zip(faces, (LARGE, SMALL), (30, 8), strict=True):
        np.testing.assert_allclose(face.landmarks, landmarks / scale, atol=1e-3)
        np.testing.assert_allclose(face.box, np.array(box_of(landmarks, room)) / scale, atol=1e-3)


def test_picture_is_shown_as_insightface_shows_it(tmp_path, detector, monkeypatch):
    shown = []

    class Session:
        def get_inputs(self):
            return detector_inputs

        def run(self, _, feed):
            shown.append(feed["input.1"])
            return scripted_detectors.scrfd_answers([])

    detector_inputs = detector._session.get_inputs()
    monkeypatch.setattr(detector, "_session", Session())
    frame = np.full((320, 640, 3), (255, 127, 0), np.uint8)
    assert detector.detect(frame) == []
    pixels = shown[0]
    assert pixels.shape == (1, 3, 640, 640)
    # RGB, (value - 127.5) / 128; below the picture black.
    np.testing.assert_allclose(pixels[0, :, 0, 0], [127.5 / 128, -0.5 / 128, -127.5 / 128])
    np.testing.assert_allclose(pixels[0, :, 320:], -127.5 / 128)


def test_other_graphs_are_refused(tmp_path):
    scripted_detectors.write_answers(tmp_path / "net.onnx", [1, 3, 640, 640], [np.zeros((1, 512))])
    with pytest.raises(WeightsError, match=r"face detector with 9 outputs .*, got 1"):
        ScrfdFaceDetector(tmp_path / "net.onnx")
