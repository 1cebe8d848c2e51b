"""Stand-in detectors of the published signatures that really look, at generated people.

Each is the bundled network of the generated world between layers that turn a published input into
its own, and its answer into the published one. On photographs they find what that network finds
there: nothing to rely on. Hands and face points hang as templates on wrists and nose.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from animaray.platform.weights.store import bundled_folder

_HEAT_STRIDE = 4
"""Pixels of the small network's input for each cell of its heat maps."""
_FACE_POWER = float(np.log(0.6) / np.log(0.5))
"""From the small network's scores, which part at 0.5, to the detectors' 0.6."""
_MEAN = np.array([123.675, 116.28, 103.53], np.float32).reshape(1, 3, 1, 1)
_STD = np.array([58.395, 57.12, 57.375], np.float32).reshape(1, 3, 1, 1)
_OPENPOSE_OF_COCO = (0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10)
"""Where the small network has each of COCO's seventeen points."""
_NUM_FEET, _NUM_FACE, _NUM_HAND = 6, 68, 21
_CROP_WIDTH, _CROP_HEIGHT = 288, 384


class _Graph:
    """A graph under construction around a bundled network."""

    def __init__(self, bundled: str) -> None:
        model = onnx.load(str(bundled_folder() / f"{bundled}.onnx"))
        self._inner = list(model.graph.node)
        self._weights = list(model.graph.initializer)
        self._before: list[Any] = []
        self._after: list[Any] = []
        self._count = 0

    def constant(self, values: object, kind: type = np.float32) -> str:
        """Store a tensor."""
        name = self._name()
        self._weights.append(numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    def before(self, kind: str, *inputs: str, output: str | None = None, **settings: object) -> str:
        """Add a layer in front of the network, whose input is called `frames`."""
        return self._add(self._before, kind, inputs, output, settings)

    def after(self, kind: str, *inputs: str, output: str | None = None, **settings: object) -> str:
        """Add a layer behind the network."""
        return self._add(self._after, kind, inputs, output, settings)

    def write(
        self, file: Path, shape: Sequence[int], outputs: Sequence[tuple[str, Sequence[int]]]
    ) -> None:
        """Write the graph; its input is called `input.1`."""
        graph = helper.make_graph(
            [*self._before, *self._inner, *self._after],
            "stand-in for the generated world",
            [helper.make_tensor_value_info("input.1", TensorProto.FLOAT, list(shape))],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, list(each))
                for name, each in outputs
            ],
            self._weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        file.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, str(file))

    def slice(self, x: str, start: int, end: int, *, axis: int = 1) -> str:
        """Take some channels of an answer."""
        bounds = (self.constant([each], np.int64) for each in (start, end, axis))
        return self.after("Slice", x, *bounds)

    def peaks(self, heat: str) -> str:
        """Keep a heat map where no neighbour is hotter, zero elsewhere."""
        ridge = self.after("MaxPool", heat, kernel_shape=[3, 3], pads=[1] * 4, strides=[1, 1])
        is_peak = self.after("GreaterOrEqual", heat, ridge)
        return self.after("Mul", heat, self.after("Cast", is_peak, to=TensorProto.FLOAT))

    def scaled(self, x: str, factor: object, shift: object) -> str:
        """Return x * factor + shift."""
        product = self.after("Mul", x, self.constant(factor))
        return self.after("Add", product, self.constant(shift))

    def rows(self, x: str, columns: int) -> str:
        """Bring an answer (1, channels, height, width) into rows of one cell each."""
        last = self.after("Transpose", x, perm=[0, 2, 3, 1])
        return self.after("Reshape", last, self.constant([-1, columns], np.int64))

    def _name(self) -> str:
        self._count += 1
        return f"stand_in_{self._count}"

    def _add(
        self,
        to: list[Any],
        kind: str,
        inputs: Sequence[str],
        output: str | None,
        settings: dict[str, object],
    ) -> str:
        name = output or self._name()
        to.append(helper.make_node(kind, list(inputs), [name], **settings))
        return name


def write_looking_scrfd(file: Path) -> None:
    """Write SCRFD's stand-in: scores, boxes and landmarks for three strides, faces at the first.

    Args:
        file: As scrfd_10g_bnkps.onnx.
    """
    graph = _Graph("face_detector")
    half = graph.before("AveragePool", "input.1", kernel_shape=[2, 2], strides=[2, 2])
    # (pixel - 127.5) / 128 becomes (pixel - 127.5) / 127.5.
    graph.before("Mul", half, graph.constant(128 / 127.5), output="frames")
    power = graph.constant(_FACE_POWER)
    score = graph.rows(graph.after("Pow", graph.peaks("heat"), power), 1)
    # A cell stands for the middle of its 8 pixels, SCRFD counts from their first: 3.5 pixels.
    off = 3.5 / 8
    reach = graph.scaled(graph.rows(graph.slice("shape", 0, 4), 4), 4.0, [-off, -off, off, off])
    points = graph.scaled(graph.rows(graph.slice("shape", 4, 14), 10), 4.0, off)
    outputs = []
    for columns, found in ((1, score), (4, reach), (10, points)):
        # Two candidates for each place, of which the second sees nothing.
        pair = graph.after("Concat", found, graph.constant(np.zeros((6400, columns))), axis=1)
        first = graph.after("Reshape", pair, graph.constant([-1, columns], np.int64))
        outputs.append((first, (12800, columns)))
        for stride in (16, 32):
            count = (640 // stride) ** 2 * 2
            empty = graph.after("Identity", graph.constant(np.zeros((count, columns))))
            outputs.append((empty, (count, columns)))
    graph.write(file, (1, 3, 640, 640), outputs)


def write_looking_dwpose(folder: Path) -> None:
    """Write both stand-ins of DWPose: `yolox_l.onnx` and `dw-ll_ucoco_384.onnx`."""
    _write_yolox(folder / "yolox_l.onnx")
    _write_pose(folder / "dw-ll_ucoco_384.onnx")


def _write_yolox(file: Path) -> None:
    """Write the person detector: people at the middle one of its three strides, 16 pixels."""
    graph = _Graph("pose")
    half = graph.before("AveragePool", "input.1", kernel_shape=[2, 2], strides=[2, 2])
    unit = graph.before("Mul", half, graph.constant(1 / 127.5))
    graph.before("Sub", unit, graph.constant(1.0), output="frames")
    heat = graph.slice("heat", 0, 1)
    coarse = graph.after("MaxPool", heat, kernel_shape=[2, 2], strides=[2, 2])
    score = graph.after("Transpose", graph.peaks(coarse), perm=[0, 2, 3, 1])
    score = graph.after("Reshape", score, graph.constant([1, 1600, 1], np.int64))
    # Offsets of 18 points in units of 64 pixels of the halved picture: 8 cells of 16 pixels.
    by_axis = graph.after("Reshape", "offsets", graph.constant([1, 18, 2, 1600], np.int64))
    cells = graph.scaled(by_axis, 8.0, 0.5)
    low = graph.after("ReduceMin", cells, axes=[1], keepdims=0)
    high = graph.after("ReduceMax", cells, axes=[1], keepdims=0)
    extent = graph.after("Sub", high, low)
    # Heads reach above the eyes and feet below the ankles.
    extent = graph.after("Max", graph.after("Mul", extent, graph.constant(1.15)), graph.constant(1))
    middle = graph.after("Mul", graph.after("Add", low, high), graph.constant(0.5))
    parts = [
        graph.after("Transpose", part, perm=[0, 2, 1])
        for part in (middle, graph.after("Log", extent))
    ]
    certain = graph.constant(np.ones((1, 1600, 1)))  # what is found is a person
    others = graph.constant(np.zeros((1, 1600, 79)))
    found = graph.after("Concat", *parts, score, certain, others, axis=2)
    fine, coarsest = (graph.constant(np.zeros((1, count, 85))) for count in (6400, 400))
    rows = graph.after("Concat", fine, found, coarsest, axis=1)
    graph.write(file, (1, 3, 640, 640), [(rows, (1, 8400, 85))])


def _write_pose(file: Path) -> None:
    """Write the pose network: 133 points as scores of half pixels on both axes."""
    graph = _Graph("pose")
    pixels = graph.before("Mul", "input.1", graph.constant(_STD / 127.5))
    unit = graph.before("Add", pixels, graph.constant(_MEAN / 127.5 - 1))
    half = graph.before("AveragePool", unit, kernel_shape=[2, 2], strides=[2, 2])
    # 144 columns are no multiple of 32.
    pads = graph.constant([0, 0, 0, 0, 0, 0, 0, 16], np.int64)
    graph.before("Pad", half, pads, output="frames")
    heat = graph.slice(graph.slice("heat", 1, 19), 0, 36, axis=3)
    scores = graph.after("Sqrt", graph.after("Mul", heat, graph.constant(1 / 0.7)))
    outputs = []
    for axis, length in ((2, _CROP_WIDTH), (3, _CROP_HEIGHT)):
        cells = graph.after("ReduceMax", scores, axes=[axis], keepdims=0)
        count = length // (2 * _HEAT_STRIDE)
        # Each row of the matrix is one cell's share in the finer bins.
        finer = cv2.resize(np.eye(count), (2 * length, count), interpolation=cv2.INTER_CUBIC)
        bins = graph.after("MatMul", cells, graph.constant(finer))
        outputs.append((_whole_body(graph, bins, axis), (1, 133, 2 * length)))
    graph.write(file, (1, 3, _CROP_HEIGHT, _CROP_WIDTH), outputs)


def _whole_body(graph: _Graph, bins: str, axis: int) -> str:
    """Return the scores of 133 points on one axis: body, feet unseen, face and hands moved."""
    length = 2 * (_CROP_WIDTH if axis == 2 else _CROP_HEIGHT)
    order = graph.constant(_OPENPOSE_OF_COCO, np.int64)
    body = graph.after("Gather", bins, order, axis=1)
    feet = graph.constant(np.zeros((1, _NUM_FEET, length)))
    column = 0 if axis == 2 else 1
    face = _moved(graph, bins, 0, face_template()[:, column], length)
    left = _moved(graph, bins, 7, hand_template(-1)[:, column], length)
    right = _moved(graph, bins, 4, hand_template(1)[:, column], length)
    return graph.after("Concat", body, feet, face, left, right, axis=1)


def _moved(graph: _Graph, bins: str, point: int, moves: np.ndarray, length: int) -> str:
    """Return one point's scores once for each move in pixels of the crop, moved by it."""
    source = graph.slice(bins, point, point + 1)
    places = np.arange(length)[None] - np.rint(2 * moves).astype(np.int64)[:, None]
    index = graph.constant(np.clip(places, 0, length - 1)[None], np.int64)
    shape = graph.constant([1, len(moves), length], np.int64)
    return graph.after("GatherElements", graph.after("Expand", source, shape), index, axis=2)


def face_template() -> np.ndarray:
    """Return where 68 face points lie from the nose, pixels of the crop."""
    angles = np.linspace(np.pi, 0, 17)
    jaw = np.stack([16 * np.cos(angles), 18 * np.sin(angles) - 2], axis=1)
    brows = [
        np.stack([np.linspace(a, b, 5), np.full(5, -11.0)], 1) for a, b in ((-12, -3), (3, 12))
    ]
    bridge = np.stack([np.zeros(4), np.linspace(-7, 0, 4)], axis=1)
    nostrils = np.stack([np.linspace(-4, 4, 5), np.full(5, 2.0)], axis=1)
    eyes = [_ring(6, (3.0, 1.5), (x, -7.0)) for x in (-7.0, 7.0)]
    mouth = [_ring(12, (6.0, 3.0), (0.0, 8.0)), _ring(8, (4.0, 1.5), (0.0, 8.0))]
    return np.concatenate([jaw, *brows, bridge, nostrils, *eyes, *mouth])


def hand_template(side: int) -> np.ndarray:
    """Return where 21 hand points lie from the wrist, pixels of the crop.

    Args:
        side: -1 for the left hand, 1 for the right: on which side the thumb is.
    """
    fingers = [
        np.outer(np.arange(1, 5) * 4.0, [np.sin(angle), np.cos(angle)])
        for angle in side * np.linspace(-0.9, 0.6, 5)
    ]
    return np.concatenate([np.zeros((1, 2)), *fingers])


def _ring(count: int, size: tuple[float, float], middle: tuple[float, float]) -> np.ndarray:
    angles = np.linspace(np.pi, -np.pi, count, endpoint=False)
    (width, height), (x, y) = size, middle
    return np.stack([x + width * np.cos(angles), y - height * np.sin(angles)], axis=1)
