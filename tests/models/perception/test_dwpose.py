"""DWPose around two small ONNX graphs that have the published inputs and outputs."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from animaray.models.perception.paper.dwpose import DwposeConfig, DwposeEstimator
from animaray.models.perception.paper.dwpose_decoding import (
    crop_of_box,
    cut_crop,
    decode_people,
    letterbox,
)
from animaray.models.perception.protocols import PoseEstimator
from animaray.models.pose.layouts import NUM_FURTHER_POINTS
from animaray.platform.errors import ConfigError, WeightsError

PEOPLE = ((40, 30, 120, 150), (150, 20, 190, 80))
"""Boxes that the detector graph knows, in pixels of a 200 x 160 picture."""


def save(path, nodes, initializers, inputs, outputs):
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs],
        [numpy_helper.from_array(value, name) for name, value in initializers.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def detector_graph(path):
    """YOLOX's signature; finds PEOPLE in pictures with a pixel above 200, else nobody.

    Row values undo the decoding: cell 0 of stride 8 lies at the left top corner.
    """
    rows = np.zeros((1, 8400, 85), np.float32)
    scale = 640 / 200
    for index, (left, top, right, bottom) in enumerate(PEOPLE):
        centre = np.array([left + right, top + bottom]) / 2 * scale / 8
        size = np.log(np.array([right - left, bottom - top]) * scale / 8)
        rows[0, index] = 0
        rows[0, index, :6] = [*(centre - [index, 0]), *size, 0.9, 0.8]
    constants = {
        "rows": rows,
        "limit": np.float32(200),
        "low": np.float32(0),
        "high": np.float32(1),
    }
    nodes = [
        helper.make_node("ReduceMax", ["input"], ["brightest"], keepdims=0),
        helper.make_node("Sub", ["brightest", "limit"], ["above"]),
        helper.make_node("Clip", ["above", "low", "high"], ["gate"]),
        helper.make_node("Mul", ["rows", "gate"], ["output"]),
    ]
    inputs, outputs = [("input", [1, 3, 640, 640])], [("output", [1, 8400, 85])]
    return save(path, nodes, constants, inputs, outputs)


def pose_graph(path, bins=(576, 768)):
    """RTMPose's signature; all 133 points lie at the crop's brightest column and row."""
    nodes, constants = [], {"last": np.array([2], np.int64)}
    for name, axes, count in (("simcc_x", [1, 2], bins[0]), ("simcc_y", [1, 3], bins[1])):
        constants |= {
            f"{name}_axes": np.array(axes, np.int64),
            f"{name}_bins": np.array([1, 1, count], np.int64),
            f"{name}_shape": np.array([1, 133, count], np.int64),
        }
        nodes += [
            helper.make_node("ReduceMax", ["input", f"{name}_axes"], [f"{name}_line"], keepdims=0),
            helper.make_node("Unsqueeze", [f"{name}_line", "last"], [f"{name}_column"]),
            helper.make_node("Concat", [f"{name}_column"] * 2, [f"{name}_twice"], axis=2),
            helper.make_node("Reshape", [f"{name}_twice", f"{name}_bins"], [f"{name}_flat"]),
            helper.make_node("Expand", [f"{name}_flat", f"{name}_shape"], [name]),
        ]
    outputs = [("simcc_x", [1, 133, bins[0]]), ("simcc_y", [1, 133, bins[1]])]
    return save(path, nodes, constants, [("input", [1, 3, 384, 288])], outputs)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dwpose")
    return detector_graph(folder / "yolox.onnx"), pose_graph(folder / "pose.onnx")


def picture_with(*dots):
    picture = np.zeros((160, 200, 3), np.uint8)
    for x, y in dots:
        picture[y - 1 : y + 2, x - 1 : x + 2] = 255
    return picture


def test_people_are_found_largest_first_with_points_in_picture_pixels(graphs):
    estimator = DwposeEstimator(*graphs)
    assert isinstance(estimator, PoseEstimator)
    people = estimator.estimate(picture_with((70, 90), (170, 50)))
    assert len(people) == 2
    for person, dot, box in zip(people, ((70, 90), (170, 50)), PEOPLE, strict=True):
        # The first of the brightest: on the rim of the 3 x 3 dot.
        assert np.abs(person.keypoints - dot).max() <= 1.5
        assert (person.keypoints > box[:2]).all()
        assert (person.keypoints < box[2:]).all()
        assert person.keypoint_confidence.tolist() == [1.0] * 18


def test_hands_and_face_come_with_the_body(graphs):
    (person, *_) = DwposeEstimator(*graphs).estimate(picture_with((70, 90), (170, 50)))
    assert person.further_points.shape == (NUM_FURTHER_POINTS, 3)
    assert np.abs(person.further_points[:, :2] - (70, 90)).max() <= 1.5
    assert (person.further_points[:, 2] == 1.0).all()
    # The neck is made between the shoulders and sure when both are.
    assert person.keypoint_confidence[1] == 1.0


def test_nobody_is_nobody_or_the_whole_picture_as_published(graphs):
    dark = picture_with() + 100
    assert DwposeEstimator(*graphs).estimate(dark) == []
    whole = DwposeEstimator(*graphs, DwposeConfig(use_whole_picture=True))
    assert whole.find_people(dark).tolist() == [[0, 0, 200, 160]]
    assert len(whole.estimate(dark)) == 1


def test_limits_are_kept(graphs):
    picture = picture_with((70, 90), (170, 50))
    one = DwposeEstimator(*graphs, DwposeConfig(max_people=1))
    assert np.allclose(one.find_people(picture), [PEOPLE[0]], atol=1e-3)
    # The graph's score is 0.9 * 0.8.
    assert DwposeEstimator(*graphs, DwposeConfig(min_person_score=0.73)).estimate(picture) == []


def test_colours_are_swapped_only_on_request(graphs):
    red = picture_with()
    red[89:92, 69:72, 0] = 160
    # Red is normalised by another mean and deviation than blue.
    scores = [
        DwposeEstimator(*graphs, DwposeConfig(swap_red_and_blue=swap, use_whole_picture=True))
        .estimate(red)[0]
        .keypoint_confidence[0]
        for swap in (False, True)
    ]
    assert scores[0] == pytest.approx((160 - 123.675) / 58.395, rel=1e-4)
    assert scores[1] == pytest.approx((160 - 103.53) / 57.375, rel=1e-4)


def test_graphs_of_another_signature_are_refused(graphs, tmp_path):
    detector, pose = graphs
    with pytest.raises(WeightsError, match="two outputs of 576 and 768 bins"):
        DwposeEstimator(detector, pose_graph(tmp_path / "coarse.onnx", (288, 384)))
    with pytest.raises(WeightsError, match="a square input"):
        DwposeEstimator(pose, pose)
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    with pytest.raises(WeightsError, match="Expected an ONNX graph"):
        DwposeEstimator(tmp_path / "broken.onnx", pose)


def test_missing_registered_weights_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("ANIMARAY_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("ANIMARAY_WEIGHTS", raising=False)
    with pytest.raises(WeightsError, match="paper/person_detector"):
        DwposeEstimator.load()


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match="min_person_score"):
        DwposeConfig(min_person_score=1.5)
    with pytest.raises(ConfigError, match="max_people"):
        DwposeConfig(max_people=0)


def test_letterbox_keeps_the_aspect_and_pads_with_grey():
    pixels, scale = letterbox(np.full((100, 320, 3), 7, np.uint8))
    assert scale == 2
    assert pixels.shape == (3, 640, 640)
    assert (pixels[:, :200] == 7).all()
    assert (pixels[:, 200:] == 114).all()


def test_the_better_of_two_overlapping_boxes_stays():
    rows = np.zeros((8400, 85), np.float32)
    # Two boxes of 80 px, shifted by 8 px, and one of another class.
    for cell, score, kind in ((0, 0.6, 5), (1, 0.9, 5), (2, 1.0, 9)):
        rows[cell, 2:4] = np.log(10)
        rows[cell, 4] = score
        rows[cell, kind] = 1.0
    (box,) = decode_people(rows, 1.0)
    assert box.tolist() == pytest.approx([8 - 40, -40, 8 + 40, 40])


def test_crop_has_the_networks_aspect_and_samples_between_pixels():
    crop = crop_of_box(np.array([10.0, 10.0, 50.0, 30.0]), (60, 80))
    assert crop.size.tolist() == pytest.approx([50.0, 50.0 * 80 / 60])
    assert crop.centre.tolist() == [30.0, 20.0]
    ramp = np.repeat(np.arange(100, dtype=np.uint8)[None, :, None] * 2, 100, axis=0)
    pixels = cut_crop(
        np.repeat(ramp, 3, axis=2),
        crop_of_box(np.array([38.0, 34.0, 62.0, 66.0]), (60, 80)),
        (60, 80),
    )
    # Half the crop's size in picture pixels: neighbours differ by one grey level.
    grey = pixels[0, 40] * 58.395 + 123.675
    assert np.abs(np.diff(grey) - 1.0).max() <= 0.01
    assert grey[30] == pytest.approx(100.0, abs=0.01)
