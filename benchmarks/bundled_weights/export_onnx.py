"""Export the people network as two ONNX files with weights in half precision.

The weights are stored as float16 and cast to float32 when a session starts, so the answers differ
from PyTorch's by rounding only. Uses the exporter that needs no further packages.
"""

import io
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from animaray.platform.storage import write_bytes_atomic
from benchmarks.bundled_weights.people_network import PeopleNetwork

_OPSET = 17
_MIN_HALVED_ENTRIES = 256


class PosePart(nn.Module):
    """The layers that answer for people and keypoints, with probabilities."""

    def __init__(self, network: PeopleNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return heat (centre and keypoints), offsets (64 px), visibility."""
        heat, person = self.network.pose(*self.network.trunk(frames))
        return heat.sigmoid(), person[:, :36], person[:, 36:].sigmoid()


class FacePart(nn.Module):
    """The layers that answer for faces, with probabilities."""

    def __init__(self, network: PeopleNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return face heat and shape (16 px)."""
        quarter, _ = self.network.trunk(frames)
        heat, shape = self.network.face(quarter)
        return heat.sigmoid(), shape


def export_people(network: PeopleNetwork, folder: Path) -> None:
    """Write pose.onnx and face_detector.onnx, each for any batch and any size in steps of 32 px."""
    network.eval()
    pose_names, face_names = ["heat", "offsets", "visible"], ["heat", "shape"]
    write_bytes_atomic(folder / "pose.onnx", _export(PosePart(network), pose_names))
    write_bytes_atomic(folder / "face_detector.onnx", _export(FacePart(network), face_names))


def _export(part: nn.Module, outputs: list[str]) -> bytes:
    buffer = io.BytesIO()
    axes = {0: "batch", 2: "height", 3: "width"}
    torch.onnx.export(
        part.eval(),
        (torch.zeros(1, 3, 192, 192),),
        buffer,  # type: ignore[arg-type]  # the TorchScript exporter takes buffers, too
        input_names=["frames"],
        output_names=outputs,
        dynamic_axes=dict.fromkeys(["frames", *outputs], axes),
        opset_version=_OPSET,
        dynamo=False,
    )
    model = onnx.load_from_string(buffer.getvalue())
    _halve_weights(model)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _halve_weights(model: onnx.ModelProto) -> None:
    """Store large weights as float16 with a cast in front of their users."""
    graph = model.graph
    casts = []
    for weight in graph.initializer:
        if weight.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(weight)
        if values.size < _MIN_HALVED_ENTRIES:
            continue
        name = weight.name
        half = numpy_helper.from_array(values.astype(np.float16), f"{name}.half")
        weight.CopyFrom(half)
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    for position, cast in enumerate(casts):
        graph.node.insert(position, cast)
