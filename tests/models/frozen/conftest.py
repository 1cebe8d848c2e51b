"""The development weights beside the real media, found through ANIMARAY_WEIGHTS as users do."""

from pathlib import Path

import pytest


@pytest.fixture
def real_weights(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = real_data / "weights"
    if not folder.is_dir():
        pytest.skip(f"weights are absent: expected them in {folder}")
    monkeypatch.setenv("ANIMARAY_WEIGHTS", str(folder))
    return folder
