"""Stand-in detectors of the published signatures that give one answer, whatever they are shown."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

COCO_STANDING = {
    0: (0.50, 0.08), 1: (0.53, 0.06), 2: (0.47, 0.06), 3: (0.56, 0.07), 4: (0.44, 0.07),
    5: (0.62, 0.20), 6: (0.38, 0.20), 7: (0.70, 0.35), 8: (0.30, 0.35), 9: (0.72, 0.48),
    10: (0.28, 0.48), 11: (0.58, 0.50), 12: (0.42, 0.50), 13: (0.58, 0.74), 14: (0.42, 0.74),
    15: (0.58, 0.97), 16: (0.42, 0.97),
}  # fmt: skip
"""A standing person in fractions of its box, by COCO index (x right, y down)."""

Face = tuple[float, int, Sequence[float], np.ndarray]
"""Score, stride, box, five landmarks."""


def write_answers(file: Path, input_shape: list[int], answers: list[np.ndarray]) -> None:
    """Write a graph with constant outputs."""
    names = [f"answer{index}" for index in range(len(answers))]
    nodes = [helper.make_node("Identity", [f"stored_{name}"], [name]) for name in names]
    graph = helper.make_graph(
        nodes,
        "scripted",
        [helper.make_tensor_value_info("input.1", TensorProto.FLOAT, input_shape)],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, list(answer.shape))
            for name, answer in zip(names, answers, strict=True)
        ],
        [
            numpy_helper.from_array(answer.astype(np.float32), f"stored_{name}")
            for name, answer in zip(names, answers, strict=True)
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(file))


def scrfd_answers(faces: Sequence[Face]) -> list[np.ndarray]:
    """Return SCRFD's nine outputs for these faces, in pixels of its square."""
    outputs = [
        np.zeros(((640 // stride) ** 2 * 2, columns), np.float32)
        for columns in (1, 4, 10)
        for stride in (8, 16, 32)
    ]
    for score, stride, box, landmarks in faces:
        level = (8, 16, 32).index(stride)
        left, top, right, bottom = box
        column, row = int((left + right) / 2 / stride), int((top + bottom) / 2 / stride)
        place = (row * (640 // stride) + column) * 2
        while outputs[level][place, 0]:
            place += 1
        x, y = column * stride, row * stride
        outputs[level][place] = score
        outputs[3 + level][place] = np.array([x - left, y - top, right - x, bottom - y]) / stride
        outputs[6 + level][place] = (np.asarray(landmarks) - [x, y]).ravel() / stride
    return outputs


def write_scrfd(file: Path, faces: Sequence[Face]) -> None:
    """Write a face detector that always sees these faces, in pixels of its 640 px square."""
    write_answers(file, [1, 3, 640, 640], scrfd_answers(faces))


def write_dwpose(folder: Path, box: Sequence[float]) -> None:
    """Write both DWPose files: one standing person in `box`, pixels of the 640 px square."""
    left, top, right, bottom = box
    rows = np.zeros((1, 8400, 85), np.float32)
    column, row = int((left + right) / 2 / 32), int((top + bottom) / 2 / 32)
    rows[0, 8000 + row * 20 + column, :4] = [
        (left + right) / 64 - column,
        (top + bottom) / 64 - row,
        np.log((right - left) / 32),
        np.log((bottom - top) / 32),
    ]
    rows[0, 8000 + row * 20 + column, 4:6] = 1
    write_answers(folder / "yolox_l.onnx", [1, 3, 640, 640], [rows])
    # The crop is the box with 25 % more, widened or heightened to 3 : 4; 288 x 384 pixels.
    width, height = 1.25 * (right - left), 1.25 * (bottom - top)
    width, height = max(width, height * 0.75), max(height, width / 0.75)
    simcc_x, simcc_y = np.zeros((1, 133, 576)), np.zeros((1, 133, 768))
    for index, (x, y) in COCO_STANDING.items():
        place_x = (left + x * (right - left) - (left + right) / 2) / width + 0.5
        place_y = (top + y * (bottom - top) - (top + bottom) / 2) / height + 0.5
        simcc_x[0, index, round(place_x * 576)] = 1
        simcc_y[0, index, round(place_y * 768)] = 1
    write_answers(folder / "dw-ll_ucoco_384.onnx", [1, 3, 384, 288], [simcc_x, simcc_y])
