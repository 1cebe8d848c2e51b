"""Turn InsightFace's ONNX file of ArcFace into IResNet's state dict, node by node.

The file's names say little and its exporter folded some norms into convolutions, so the graph is
walked from the picture to the embedding: every node must be the one IResNet has at that place, and
every stored tensor must be used. A folded norm becomes the identity with the convolution's bias.
"""

from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from animaray.platform.errors import MachineError, WeightsError
from animaray.platform.weights.whole_files import require_whole_file

EPSILON = 1e-5
"""Of IResNet's norms."""
_TRANSPARENT = {"Identity", "Dropout"}


def state_from_onnx(file: Path) -> dict[str, Tensor]:
    """Return the state dict of the IResNet in an ONNX file.

    Args:
        file: As InsightFace publishes it (antelopev2/glintr100.onnx), tensors inside.

    Raises:
        WeightsError: It is no ONNX file, or its graph is not an IResNet.
        MachineError: The package onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise MachineError(
            f"Reading {file.name} needs the package onnx, which is not installed.",
            fix="uv pip install onnx; or use glintr100_torch.pth instead.",
        ) from error
    require_whole_file(file)
    try:
        model = onnx.load(str(file), load_external_data=False)
        graph = _Graph(model.graph, file)
    except (OSError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"Expected an ONNX file at {file}; it cannot be read: {error}.", reason="damaged"
        ) from error
    except Exception as error:
        # protobuf has its own exception, without a base of its own.
        if type(error).__name__ != "DecodeError":
            raise
        raise WeightsError(
            f"Expected an ONNX file at {file}; it is damaged or of another kind.", reason="damaged"
        ) from error
    return _walk(graph)


class _Graph:
    """Nodes by what they read, tensors by name; remembers what was used and what was found."""

    def __init__(self, graph: Any, file: Path) -> None:  # noqa: ANN401 - onnx is untyped
        from onnx import numpy_helper

        self.file = file
        self.tensors = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
        self.readers: dict[str, list[Any]] = defaultdict(list)
        for node in graph.node:
            if node.op_type == "Constant":
                self.tensors[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
            for name in node.input:
                self.readers[name].append(node)
        inputs = [each.name for each in graph.input if each.name not in self.tensors]
        if len(inputs) != 1:
            raise self.wrong("one input", f"{len(inputs)}")
        self.input = inputs[0]
        self.unused = {name for name in self.tensors if self.tensors[name].dtype.kind == "f"}
        self.state: dict[str, Tensor] = {}

    def next(self, place: str, kinds: Collection[str]) -> Any:  # noqa: ANN401 - an onnx node
        """Return the one node of these kinds that reads a place; skips what does nothing."""
        nodes = self.readers[place]
        if len(nodes) == 1 and nodes[0].op_type in _TRANSPARENT:
            return self.next(nodes[0].output[0], kinds)
        found = [node for node in nodes if node.op_type in kinds]
        if len(found) != 1:
            got = ", ".join(node.op_type for node in nodes) or "nothing"
            raise self.wrong(f"one {' or '.join(sorted(kinds))} after {place!r}", got)
        return found[0]

    def reads(self, place: str, kind: str) -> bool:
        """Return whether a node of this kind reads a place."""
        nodes = self.readers[place]
        if len(nodes) == 1 and nodes[0].op_type in _TRANSPARENT:
            return self.reads(nodes[0].output[0], kind)
        return any(node.op_type == kind for node in nodes)

    def keep(self, key: str, name: str) -> np.ndarray:
        """Store an initialiser under IResNet's key."""
        if name not in self.tensors:
            raise self.wrong(f"a stored tensor for {key}", f"the computed {name!r}")
        self.unused.discard(name)
        array = self.tensors[name]
        self.state[key] = torch.from_numpy(array.astype(np.float32))
        return array

    def wrong(self, expected: str, got: str) -> WeightsError:
        return WeightsError(
            f"{self.file} is not an IResNet: expected {expected}, got {got}.",
            fix="Use antelopev2's glintr100.onnx.",
            reason="other",
        )


def _walk(graph: _Graph) -> dict[str, Tensor]:
    place = _convolution(graph, graph.input, "conv1", "bn1", stride=1)
    place = _prelu(graph, place, "prelu")
    stage, block = 0, 0
    while graph.reads(place, "Add") or graph.reads(place, "Conv"):
        has_shortcut = graph.reads(place, "Conv")
        stage, block = (stage + 1, 0) if has_shortcut else (stage, block + 1)
        if stage == 0:
            raise graph.wrong("a convolution on the first shortcut", "none")
        place = _block(graph, place, f"layer{stage}.{block}", has_shortcut=has_shortcut)
    place = _norm(graph, place, "bn2")
    place = graph.next(place, {"Flatten", "Reshape"}).output[0]
    place = _linear(graph, place)
    place = _norm(graph, place, "features")
    if graph.readers[place]:
        raise graph.wrong("the end of the graph", graph.readers[place][0].op_type)
    if graph.unused:
        raise graph.wrong("no further tensors", f"{len(graph.unused)} ({min(graph.unused)}, ...)")
    return graph.state


def _block(graph: _Graph, start: str, key: str, *, has_shortcut: bool) -> str:
    place = _norm(graph, start, f"{key}.bn1")
    place = _convolution(graph, place, f"{key}.conv1", f"{key}.bn2", stride=1)
    place = _prelu(graph, place, f"{key}.prelu")
    stride = 2 if has_shortcut else 1
    place = _convolution(graph, place, f"{key}.conv2", f"{key}.bn3", stride=stride)
    shortcut = start
    if has_shortcut:
        keys = f"{key}.downsample.0", f"{key}.downsample.1"
        shortcut = _convolution(graph, start, *keys, stride=2)
    node = graph.next(place, {"Add"})
    if set(node.input) != {place, shortcut}:
        raise graph.wrong(f"the sum of both paths of {key}", f"Add of {list(node.input)}")
    return str(node.output[0])


def _convolution(graph: _Graph, place: str, key: str, norm: str, *, stride: int) -> str:
    """Take a convolution and the norm after it, be it a node or folded into the convolution."""
    node = graph.next(place, {"Conv"})
    settings = _settings(node)
    weight = graph.keep(f"{key}.weight", node.input[1])
    kernel = weight.shape[-1]
    expected = {"strides": [stride, stride], "pads": [kernel // 2] * 4}
    found = {name: settings.get(name, default) for name, default in _CONV_DEFAULTS.items()}
    if found != _CONV_DEFAULTS | expected:
        raise graph.wrong(f"{key} with {expected}", str(found))
    if len(node.input) == 2:
        return _norm(graph, node.output[0], norm)
    bias = graph.keep(f"{norm}.bias", node.input[2])
    if graph.reads(node.output[0], "BatchNormalization"):
        raise graph.wrong(f"{key} without a bias before its norm", "one")
    channels = len(bias)
    graph.state[f"{norm}.weight"] = torch.ones(channels)
    graph.state[f"{norm}.running_mean"] = torch.zeros(channels)
    graph.state[f"{norm}.running_var"] = torch.full((channels,), 1.0 - EPSILON)
    graph.state[f"{norm}.num_batches_tracked"] = torch.tensor(0)
    return str(node.output[0])


def _norm(graph: _Graph, place: str, key: str) -> str:
    node = graph.next(place, {"BatchNormalization"})
    epsilon = _settings(node).get("epsilon", EPSILON)
    names = ("weight", "bias", "running_mean", "running_var")
    for name, source in zip(names, node.input[1:], strict=True):
        graph.keep(f"{key}.{name}", source)
    if abs(epsilon - EPSILON) > EPSILON / 100:
        # Same result with IResNet's own epsilon.
        graph.state[f"{key}.running_var"] += epsilon - EPSILON
    graph.state[f"{key}.num_batches_tracked"] = torch.tensor(0)
    return str(node.output[0])


def _prelu(graph: _Graph, place: str, key: str) -> str:
    node = graph.next(place, {"PRelu"})
    graph.keep(f"{key}.weight", node.input[1])
    graph.state[f"{key}.weight"] = graph.state[f"{key}.weight"].flatten()
    return str(node.output[0])


def _linear(graph: _Graph, place: str) -> str:
    node = graph.next(place, {"Gemm"})
    settings = _settings(node)
    scales = settings.get("alpha", 1.0), settings.get("beta", 1.0), settings.get("transA", 0)
    if scales != (1.0, 1.0, 0) or len(node.input) != 3:
        raise graph.wrong("a plain linear layer with bias", f"Gemm with {settings}")
    graph.keep("fc.weight", node.input[1])
    graph.keep("fc.bias", node.input[2])
    if not settings.get("transB", 0):
        graph.state["fc.weight"] = _transposed(graph.state["fc.weight"])
    return str(node.output[0])


def _transposed(weight: Float[Tensor, "rows columns"]) -> Float[Tensor, "columns rows"]:
    return weight.T.contiguous()


_CONV_DEFAULTS: dict[str, Any] = {
    "strides": [1, 1],
    "pads": [0, 0, 0, 0],
    "dilations": [1, 1],
    "group": 1,
    "auto_pad": b"NOTSET",
}


def _settings(node: Any) -> dict[str, Any]:  # noqa: ANN401 - an onnx node
    from onnx import helper

    return {each.name: helper.get_attribute_value(each) for each in node.attribute}
