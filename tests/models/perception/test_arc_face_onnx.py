import numpy as np
import onnxruntime
import pytest
import torch

from animaray.models.perception.paper.arc_face import ArcFaceEmbedder
from animaray.models.perception.paper.arc_face_onnx import state_from_onnx
from animaray.platform.errors import WeightsError
from benchmarks.rehearsal import onnx_iresnet


@pytest.mark.parametrize("folded", [True, False])
def test_converted_network_equals_the_graph(tmp_path, folded):
    network = onnx_iresnet.random_iresnet()
    onnx_iresnet.write_onnx(network, tmp_path / "glintr100.onnx", folded=folded)
    session = onnxruntime.InferenceSession(
        str(tmp_path / "glintr100.onnx"), providers=["CPUExecutionProvider"]
    )
    crops = torch.rand(2, 3, 112, 112) * 2 - 1
    expected = session.run(None, {"input.1": crops.numpy()})[0]
    embedder = ArcFaceEmbedder.load(tmp_path / "glintr100.onnx")
    with torch.no_grad():
        found = embedder.network(crops)
        np.testing.assert_allclose(found.numpy(), expected, atol=2e-4, rtol=1e-4)
        # ... and so does the network it was written from.
        torch.testing.assert_close(found, network(crops), atol=2e-4, rtol=1e-4)
    assert embedder.network.config == onnx_iresnet.TINY
    if not folded:
        state = state_from_onnx(tmp_path / "glintr100.onnx")
        original = network.state_dict()
        assert set(state) == set(original)
        assert all(torch.equal(state[k], original[k]) for k in state if "num_" not in k)


def spoil_stride(model):
    node = next(node for node in model.graph.node if node.op_type == "Conv")
    next(each for each in node.attribute if each.name == "strides").ints[:] = [2, 2]


def spoil_add(model):
    node = [node for node in model.graph.node if node.op_type == "Add"][-1]
    node.input[1] = node.input[0]


def spoil_activation(model):
    node = next(node for node in model.graph.node if node.op_type == "PRelu")
    node.op_type = "Relu"


def spoil_rest(model):
    model.graph.initializer.append(model.graph.initializer[0])
    model.graph.initializer[-1].name = "left_over"


def spoil_head(model):
    first = model.graph.node[0]
    scaled = first.__class__()
    scaled.op_type = "Sub"
    scaled.input[:] = ["input.1", first.input[1]]
    scaled.output[:] = ["scaled"]
    first.input[0] = "scaled"
    model.graph.node.insert(0, scaled)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_stride, "expected conv1 with .*strides"),
        (spoil_add, "expected one Flatten or Reshape after"),
        (spoil_activation, "expected one PRelu after .*, got Relu"),
        (spoil_rest, r"expected no further tensors, got 1 \(left_over"),
        (spoil_head, "expected one Conv after 'input.1', got Sub"),
    ],
)
def test_other_graphs_are_refused(tmp_path, spoil, message):
    onnx_iresnet.write_onnx(onnx_iresnet.random_iresnet(), tmp_path / "net.onnx", change=spoil)
    with pytest.raises(WeightsError, match=f"is not an IResNet: {message}"):
        state_from_onnx(tmp_path / "net.onnx")


def test_files_that_are_no_onnx_are_named(tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"no protobuf at all, for sure")
    for name in ("net.onnx", "absent.onnx"):
        with pytest.raises(WeightsError, match="Expected an ONNX file"):
            state_from_onnx(tmp_path / name)
