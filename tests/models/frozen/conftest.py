"""The development weights beside the real media, found through ANIMARAY_WEIGHTS as users do."""

from pathlib import Path

import pytest

from animaray.platform.errors import WeightsError
from animaray.platform.weights import resolve_weights


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


@pytest.fixture(scope="session")
def permissive_weights() -> None:
    """Skip where the files of the package index have not been pulled."""
    try:
        resolve_weights("permissive/pose_detection")
        resolve_weights("permissive/identity")
    except WeightsError as error:
        pytest.skip(error.message)
