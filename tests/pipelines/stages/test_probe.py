"""Probing in a child process: facts, or a reason."""

from pathlib import Path

import numpy as np

from animaray.pipelines.stages.probe import ADDS, probe
from animaray.platform.media.video import DecodeLimits, write_mp4


def test_facts_of_a_video(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_mp4(path, np.zeros((10, 32, 48, 3), dtype=np.uint8), 5.0)
    row = probe({"path": str(path), "state": None}, DecodeLimits())
    assert row["state"] is None
    assert (row["width"], row["height"], row["codec"], row["duration_s"]) == (48, 32, "h264", 2.0)
    assert set(ADDS) <= set(row)


def test_unusable_file_ends_with_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.touch()
    row = probe({"path": str(path), "state": None}, DecodeLimits())
    assert (row["state"], row["reason"]) == ("unreadable", "empty")
    assert set(ADDS) <= set(row)
