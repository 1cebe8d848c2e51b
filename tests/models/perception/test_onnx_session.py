import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from animaray.models.perception.onnx_session import open_onnx_session
from animaray.platform.errors import ConfigError, MachineError, WeightsError


@pytest.fixture
def doubler(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "doubler",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 10
    onnx.save(model, tmp_path / "doubler.onnx")
    return tmp_path / "doubler.onnx"


def test_graph_runs(doubler):
    session = open_onnx_session(doubler, num_threads=1)
    result = session.run(None, {"x": np.array([1, 2], dtype=np.float32)})[0]
    np.testing.assert_array_equal(result, [2, 4])


def test_unusable_requests_are_refused(doubler, tmp_path):
    with pytest.raises(WeightsError, match=r"Expected an ONNX graph at .*absent.onnx"):
        open_onnx_session(tmp_path / "absent.onnx")
    with pytest.raises(ConfigError, match=r"device cpu or cuda.*got 'gpu' and 1"):
        open_onnx_session(doubler, device="gpu")
    with pytest.raises(ConfigError, match="at least 1 thread; got 'cpu' and 0"):
        open_onnx_session(doubler, num_threads=0)


def test_cuda_without_cuda_is_an_error_not_a_silent_cpu(doubler, monkeypatch):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine's onnxruntime offers CUDA")
    with pytest.raises(
        MachineError, match=r"doubler\.onnx would run on an onnxruntime that was built without"
    ):
        open_onnx_session(doubler, device="cuda")
