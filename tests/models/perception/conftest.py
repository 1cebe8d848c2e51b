"""The development weights beside the real media, found through ANIMARAY_WEIGHTS as users do."""

from pathlib import Path

import pytest


@pytest.fixture
def real_weights(real_data, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of all development weights."""
    folder = (real_data / "weights/pose_lm.onnx").parent
    monkeypatch.setenv("ANIMARAY_WEIGHTS", str(folder))
    return folder


@pytest.fixture
def face_detector_weights(real_data, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of YuNet's weights, which are small and free: every clone has them."""
    folder = (real_data / "weights/face_det.onnx").parent
    monkeypatch.setenv("ANIMARAY_WEIGHTS", str(folder))
    return folder
