"""Every network of a profile works where it was asked to, or says that it cannot."""

import logging
from contextlib import suppress

import cv2
import onnxruntime
import pytest
import torch
from torch import nn

from animaray.models.perception.generated.faces import GeneratedFaceDetector
from animaray.models.perception.generated.files import resolve_generated
from animaray.models.perception.generated.pose import GeneratedPoseEstimator
from animaray.models.perception.paper.dwpose import DwposeEstimator
from animaray.models.perception.paper.scrfd import ScrfdFaceDetector
from animaray.models.perception.permissive.picture_network import PictureNetwork
from animaray.models.perception.permissive.yunet import YuNetFaceDetector
from animaray.models.perception.profiles import load_perception
from animaray.platform.errors import MachineError, WeightsError

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


@pytest.fixture
def graph():
    return resolve_generated("face_detector")


@pytest.fixture
def asked(monkeypatch):
    """Pretend that onnxruntime has CUDA, and record what each session is asked to use."""
    asked = []
    real = onnxruntime.InferenceSession

    class Recorded(real):
        def __init__(self, path, *, sess_options, providers):
            asked.append(providers)
            super().__init__(path, sess_options=sess_options, providers=[CPU])

        def get_providers(self):
            return asked[-1]

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Recorded)
    return asked


@pytest.mark.parametrize(
    ("open_it", "num_sessions"),
    [
        (lambda file, device: ScrfdFaceDetector(file, device=device), 1),
        (lambda file, device: DwposeEstimator(file, file, device=device), 2),
        (lambda file, device: PictureNetwork(file, side_px=1, outputs=(), device=device), 1),
        (lambda file, device: GeneratedFaceDetector(file, device=device), 1),
        (lambda file, device: GeneratedPoseEstimator(file, device=device), 1),
    ],
    ids=["scrfd", "dwpose", "mediapipe", "generated faces", "generated pose"],
)
@pytest.mark.parametrize(("device", "provider"), [("cuda", CUDA), ("cpu", CPU)])
def test_the_device_reaches_every_onnx_network(
    open_it, num_sessions, device, provider, graph, asked
):
    with suppress(WeightsError):  # the file of another network: looked at after it was opened
        open_it(graph, device)
    assert asked == [[provider]] * num_sessions


def test_the_device_reaches_every_network_of_a_profile(asked, monkeypatch):
    moved = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(nn.Module, "to", lambda self, *where, **_: moved.extend(where) or self)
    load_perception("generated", device="cuda")
    assert asked == [[CUDA], [CUDA]]
    assert moved == ["cuda"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("profile", ["generated", "permissive", "paper"])
def test_cuda_without_a_gpu_is_refused(profile):
    with pytest.raises(MachineError, match=r"CUDA was asked for, but PyTorch .* sees no GPU"):
        load_perception(profile, device="cuda")


def test_yunet_says_that_it_stays_on_the_cpu(monkeypatch, caplog, tmp_path):
    chosen = []
    monkeypatch.setattr(cv2.FaceDetectorYN, "create", lambda *given: chosen.append(given[-2:]))
    with caplog.at_level(logging.WARNING, "animaray.models"):
        YuNetFaceDetector(tmp_path / "file")
        assert not caplog.records
        monkeypatch.setattr(cv2.cuda, "getCudaEnabledDeviceCount", lambda: 0)
        YuNetFaceDetector(tmp_path / "file", device="cuda")
        assert "permissive/yunet stays on the CPU" in caplog.text
        monkeypatch.setattr(cv2.cuda, "getCudaEnabledDeviceCount", lambda: 1)
        YuNetFaceDetector(tmp_path / "file", device="cuda")
    assert chosen == [
        (cv2.dnn.DNN_BACKEND_OPENCV, cv2.dnn.DNN_TARGET_CPU),
        (cv2.dnn.DNN_BACKEND_OPENCV, cv2.dnn.DNN_TARGET_CPU),
        (cv2.dnn.DNN_BACKEND_CUDA, cv2.dnn.DNN_TARGET_CUDA),
    ]
