import json
import math

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from animaray.models.perception.permissive.mediapipe_pose import (
    MediaPipePoseConfig,
    MediaPipePoseEstimator,
)
from animaray.models.perception.protocols import PoseEstimator
from animaray.platform.errors import ConfigError, WeightsError
from animaray.platform.media.picture import read_picture
from animaray.platform.media.video import decode_video

# Our 18 keypoints in COCO's order: nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles
# (left before right), and COCO's published per-keypoint constants.
COCO_ORDER = [0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10]
COCO_SIGMAS = np.array(
    [26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]
) / 1000  # fmt: skip
MEDIAPIPE_ORDER = [0, -1, 12, 14, 16, 11, 13, 15, 24, 26, 28, 23, 25, 27, 5, 2, 8, 7]


def constant_network(path, side: int, outputs: dict[str, np.ndarray]):
    """Write an ONNX graph that answers every picture with the same numbers."""
    nodes = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))
        for name, value in outputs.items()
    ]
    graph = helper.make_graph(
        nodes,
        "constant",
        [helper.make_tensor_value_info("input_1", TensorProto.FLOAT, [1, side, side, 3])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape)
            for name, value in outputs.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 10
    onnx.save(model, path)
    return path


def make_estimator(tmp_path, *, turn: float = 0.0, presence: float = 0.9, logit: float = 2.0):
    """Build an estimator that sees one person: hips at (112, 112), radius 50, leaning by turn."""
    rows = np.zeros((1, 2254, 12), dtype=np.float32)
    logits = np.full((1, 2254, 1), -9.0, dtype=np.float32)
    # The anchor of row 14, column 14 at stride 8 is centred at (116, 116).
    anchor = (14 * 28 + 14) * 2
    rim = (50 * math.sin(turn) - 4, -50 * math.cos(turn) - 4)
    rows[0, anchor, :8] = [0, 0, 60, 60, -4, -4, *rim]
    logits[0, anchor, 0] = logit
    detector = constant_network(
        tmp_path / "det.onnx", 224, {"Identity": rows, "Identity_1": logits}
    )
    points = np.zeros((39, 5), dtype=np.float32)
    points[:33, 0] = 64 + np.arange(33)
    points[:33, 1] = 100 + 4 * np.arange(33)
    points[:, 3] = 1.0
    points[:, 4] = 3.0
    points[12, 3] = -1.0
    # The auxiliary points ask for the same crop again: hips in the middle, radius 256 / 2.5.
    points[33, :2] = 128
    points[34, :2] = (128, 128 - 256 / 2.5)
    landmarks = constant_network(
        tmp_path / "lm.onnx",
        256,
        {
            "Identity": points.reshape(1, 195),
            "Identity_1": np.array([[presence]], dtype=np.float32),
            "Identity_2": np.zeros((1, 256, 256, 1), dtype=np.float32),
            "Identity_3": np.full((1, 64, 64, 39), -9, dtype=np.float32),
            "Identity_4": np.zeros((1, 117), dtype=np.float32),
        },
    )
    return MediaPipePoseEstimator(detector, landmarks), points


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_landmarks_are_brought_back_to_the_frame_and_reordered(tmp_path):
    estimator, points = make_estimator(tmp_path)
    # 448 px are twice the detector's 224: hips at 224, radius 100, crop of 250 px for 256.
    people = estimator.estimate(np.zeros((448, 448, 3), dtype=np.uint8))
    assert len(people) == 1
    in_frame = 224 + (points[:33, :2] - 128) * (250 / 256)
    for keypoint, landmark in enumerate(MEDIAPIPE_ORDER):
        expected = in_frame[[11, 12]].mean(0) if landmark < 0 else in_frame[landmark]
        np.testing.assert_allclose(people[0].keypoints[keypoint], expected, atol=0.01)


def test_confidence_is_visibility_times_presence_and_the_neck_takes_the_weaker_shoulder(tmp_path):
    estimator, _ = make_estimator(tmp_path)
    confidence = estimator.estimate(np.zeros((448, 448, 3), dtype=np.uint8))[0].keypoint_confidence
    usual, weak = sigmoid(1) * sigmoid(3), sigmoid(-1) * sigmoid(3)
    assert confidence[0] == pytest.approx(usual, abs=1e-5)
    assert confidence[5] == pytest.approx(usual, abs=1e-5)
    assert confidence[2] == pytest.approx(weak, abs=1e-5)
    assert confidence[1] == pytest.approx(weak, abs=1e-5)


def test_leaning_person_is_seen_upright(tmp_path):
    # A person leaning a quarter turn clockwise: the crop's up is the frame's right.
    estimator, points = make_estimator(tmp_path, turn=math.pi / 2)
    nose = estimator.estimate(np.zeros((448, 448, 3), dtype=np.uint8))[0].keypoints[0]
    dx, dy = (points[0, :2] - 128) * (250 / 256)
    np.testing.assert_allclose(nose, [224 - dy, 224 + dx], atol=0.01)


def test_points_outside_the_picture_keep_their_place_with_low_confidence(tmp_path):
    estimator, points = make_estimator(tmp_path)
    # A wide letterbox: 448 x 112 has bars of 84 detector px, so hips at 112 - 84 = 28 -> y 56.
    person = estimator.estimate(np.zeros((112, 448, 3), dtype=np.uint8))[0]
    expected = 56 + (points[28, 1] - 128) * (250 / 256)
    assert expected > 111
    assert person.keypoints[10, 1] == pytest.approx(expected, abs=0.01)
    assert person.keypoint_confidence[10] == pytest.approx(0.05)
    assert person.keypoint_confidence[0] > 0.5


def test_low_presence_and_low_scores_mean_nobody(tmp_path):
    frame = np.zeros((448, 448, 3), dtype=np.uint8)
    estimator, _ = make_estimator(tmp_path, presence=0.2)
    assert estimator.estimate(frame) == []
    estimator, _ = make_estimator(tmp_path, logit=-0.1)
    assert estimator.estimate(frame) == []


class Counted:
    """Count the calls of a method and pass them on."""

    def __init__(self, method):
        self.count, self._method = 0, method

    def __call__(self, *args, **options):
        self.count += 1
        return self._method(*args, **options)


@pytest.mark.parametrize(
    ("presence", "least_looks_fps", "looks", "bodies"),
    [
        (0.9, 2.0, 2, 2 + 9),  # frames 0 and 5 of 10; two looks at the first, then one a frame
        (0.9, 10.0, 10, 20),  # as if each were a picture of its own
        (0.4, 2.0, 10, 20 + 9),  # doubtful: followed, not believed, and looked for anew
    ],
)
def test_bodies_are_followed_and_looked_for_anew_twice_a_second(
    tmp_path, presence: float, least_looks_fps: float, looks: int, bodies: int
):
    estimator, _ = make_estimator(tmp_path, presence=presence)
    frame = np.zeros((448, 448, 3), dtype=np.uint8)
    (alone,) = estimator.estimate(frame)
    estimator.detect = detect = Counted(estimator.detect)
    estimator._body.look = look = Counted(estimator._body.look)
    clip = estimator.start_clip(fps=10.0, least_looks_fps=least_looks_fps)
    found = [clip.estimate(frame) for _ in range(10)]
    assert (detect.count, look.count) == (looks, bodies)
    for people in found:
        np.testing.assert_allclose(people[0].keypoints, alone.keypoints, atol=0.1)
    # Another clip begins with a look.
    estimator.start_clip(fps=10.0, least_looks_fps=2.0).estimate(frame)
    assert detect.count == looks + 1


def test_somebody_whom_the_detector_sees_no_more_is_given_up(tmp_path):
    estimator, _ = make_estimator(tmp_path)
    frame = np.zeros((448, 448, 3), dtype=np.uint8)
    clip = estimator.start_clip(fps=4.0, least_looks_fps=2.0)
    assert len(clip.estimate(frame)) == 1
    estimator.detect = lambda _: []
    assert [len(clip.estimate(frame)) for _ in range(3)] == [1, 0, 0]


@pytest.mark.real
def test_followed_bodies_are_those_of_single_pictures(real_data, permissive_weights):
    frames = decode_video(real_data / "videos/v02.mp4", fps=10.0, max_frames=12).frames_uint8
    estimator = MediaPipePoseEstimator.load()
    clip = estimator.start_clip(fps=10.0, least_looks_fps=2.0)
    distances = []
    for frame in frames:
        (alone,), (followed,) = estimator.estimate(frame), clip.estimate(frame)
        seen = alone.keypoint_confidence >= 0.3
        height = np.ptp(alone.keypoints[seen, 1])
        distances.append(
            np.linalg.norm(alone.keypoints - followed.keypoints, axis=1)[seen] / height
        )
    # Measured on the whole video: 0.45 % in the median.
    assert np.median(np.concatenate(distances)) < 0.01


def test_settings_and_files_out_of_order_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"min_presence in \[0, 1\], got 1.5"):
        MediaPipePoseConfig(min_presence=1.5)
    with pytest.raises(ConfigError, match="max_people >= 1, got 0"):
        MediaPipePoseConfig(max_people=0)
    (tmp_path / "bad.onnx").write_bytes(b"not a graph")
    with pytest.raises(WeightsError, match=r"Expected an ONNX graph at .*bad.onnx"):
        MediaPipePoseEstimator(tmp_path / "bad.onnx", tmp_path / "bad.onnx")


@pytest.mark.real
def test_squats_agree_with_the_reference_implementation(real_data, real_weights):
    frames = decode_video(real_data / "videos/v04.mp4").frames_uint8
    reference = np.array(json.loads((real_data / "annotations/v04_pose33.json").read_text()))
    estimator: PoseEstimator = MediaPipePoseEstimator.load_conversions()
    hits = []
    for frame, points in zip(frames[::3], reference[::3, :, :2], strict=True):
        people = estimator.estimate(frame)
        assert len(people) == 1
        expected = points[[max(index, 0) for index in MEDIAPIPE_ORDER]]
        expected[1] = points[[11, 12]].mean(axis=0)
        distance = np.linalg.norm(people[0].keypoints - expected, axis=-1)
        hits.append(distance < 0.05 * np.ptp(points[:, 1]))
    # Measured on all 65 frames: 0.988.
    assert np.mean(hits) >= 0.95


@pytest.mark.real
def test_skier_agrees_with_hand_drawn_points(real_data, real_weights):
    table = json.loads((real_data / "annotations/coco_wholebody.json").read_text())
    skier = next(row for row in table["annotations"] if row["image_id"] == 785)
    people = MediaPipePoseEstimator.load_conversions().estimate(
        read_picture(real_data / "images/c01.jpg")
    )
    assert len(people) == 1
    drawn = np.array(skier["keypoints"]).reshape(17, 3)
    distance = np.linalg.norm(people[0].keypoints[COCO_ORDER] - drawn[:, :2], axis=-1)
    likeness = np.exp(-(distance**2) / (2 * skier["area"] * (2 * COCO_SIGMAS) ** 2))
    # COCO's object keypoint similarity; measured 0.878.
    assert likeness[drawn[:, 2] > 0].mean() >= 0.8


@pytest.mark.real
def test_far_person_is_found_in_tiles(real_data, real_weights):
    dancer = decode_video(real_data / "videos/v27.mp4", max_frames=1).frames_uint8[0]
    # The dancer shrunk into a wide empty picture: a quarter of its height.
    small = cv2.resize(dancer, (160, 240), interpolation=cv2.INTER_AREA)
    picture = np.full((960, 1700, 3), 235, dtype=np.uint8)
    picture[600 : 600 + small.shape[0], 300 : 300 + small.shape[1]] = small
    files = [real_weights / "pose_det.onnx", real_weights / "pose_lm.onnx"]
    blind = MediaPipePoseEstimator(*files, config=MediaPipePoseConfig(use_tiles=False))
    people = MediaPipePoseEstimator(*files).estimate(picture)
    assert blind.estimate(picture) == []
    assert len(people) == 1
    x, y = people[0].keypoints.mean(axis=0)
    assert 300 < x < 300 + small.shape[1]
    assert 600 < y < 600 + small.shape[0]


@pytest.mark.real
def test_nature_shows_nobody(real_data, real_weights):
    frames = decode_video(real_data / "videos/v13.mp4").frames_uint8
    estimator = MediaPipePoseEstimator.load_conversions()
    assert [len(estimator.estimate(frame)) for frame in frames[::20]] == [0] * len(frames[::20])
