"""Write an IResNet as the ONNX graph that PyTorch's exporter makes of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from animaray.models.perception.paper.iresnet import IResNet, IResNetConfig

TINY = IResNetConfig(blocks=(1, 2), widths=(4, 6), embedding_dim=16)
"""Seconds count in tests."""


def random_iresnet(config: IResNetConfig = TINY, seed: int = 0) -> IResNet:
    """Return an IResNet whose norms have seen something."""
    torch.manual_seed(seed)
    network = IResNet(config)
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2.0)
        elif value.is_floating_point() and value.dim() == 1:
            value.normal_(1.0, 0.2)
    return network.eval()


class _Writer:
    """Collects nodes and tensors."""

    def __init__(self, *, folded: bool) -> None:
        self.folded = folded
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []
        self.count = 0

    def tensor(self, value: Tensor) -> str:
        self.count += 1
        name = f"t{self.count}"
        array = np.ascontiguousarray(value.detach().numpy())
        self.tensors.append(numpy_helper.from_array(array, name))
        return name

    def node(self, kind: str, inputs: list[str], **settings: object) -> str:
        self.count += 1
        output = f"v{self.count}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **settings))
        return output

    def norm(self, x: str, layer: Any) -> str:  # noqa: ANN401 - BatchNorm1d or 2d
        values = layer.weight, layer.bias, layer.running_mean, layer.running_var
        return self.node(
            "BatchNormalization", [x, *map(self.tensor, values)], epsilon=float(layer.eps)
        )

    def conv(self, x: str, layer: Any, norm: Any) -> str:  # noqa: ANN401 - Conv2d, BatchNorm2d
        stride, kernel = layer.stride[0], layer.kernel_size[0]
        settings: dict[str, object] = {
            "strides": [stride] * 2,
            "pads": [kernel // 2] * 4,
            "kernel_shape": [kernel] * 2,
            "dilations": [1, 1],
            "group": 1,
        }
        if not self.folded:
            return self.norm(self.node("Conv", [x, self.tensor(layer.weight)], **settings), norm)
        gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        weight = layer.weight * gain[:, None, None, None]
        bias = norm.bias - norm.running_mean * gain
        return self.node("Conv", [x, self.tensor(weight), self.tensor(bias)], **settings)

    def prelu(self, x: str, layer: Any) -> str:  # noqa: ANN401 - PReLU
        return self.node("PRelu", [x, self.tensor(layer.weight[:, None, None])])


def write_onnx(
    network: IResNet,
    file: Path,
    *,
    folded: bool = True,
    change: Callable[[Any], None] | None = None,
) -> None:
    """Write the graph.

    Args:
        network: In evaluation mode.
        file: To write; its folder is made.
        folded: Whether norms are folded into the convolutions before them, as exporters do.
        change: May spoil the finished model.
    """
    out = _Writer(folded=folded)
    x = out.prelu(out.conv("input.1", network.conv1, network.bn1), network.prelu)
    for name in network.stage_names:
        block: Any  # IResNetBlock
        for block in network.get_submodule(name).children():
            y = out.norm(x, block.bn1)
            y = out.prelu(out.conv(y, block.conv1, block.bn2), block.prelu)
            y = out.conv(y, block.conv2, block.bn3)
            if block.downsample is not None:
                x = out.conv(x, *block.downsample)
            x = out.node("Add", [y, x])
    x = out.node("Flatten", [out.norm(x, network.bn2)], axis=1)
    x = out.node("Gemm", [x, *map(out.tensor, (network.fc.weight, network.fc.bias))], transB=1)
    x = out.norm(x, network.features)
    graph = helper.make_graph(
        out.nodes,
        "iresnet",
        [helper.make_tensor_value_info("input.1", TensorProto.FLOAT, ["None", 3, 112, 112])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, ["None", network.fc.out_features])],
        out.tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    if change is not None:
        change(model)
    file.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(file))
