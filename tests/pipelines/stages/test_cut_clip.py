"""Encoding a clip: what is stored has the frames, times and size of the span."""

from pathlib import Path

import numpy as np
import pytest

from animaray.pipelines.stages.cut_clip import ADDS, CutClipConfig, cut_clip, shrink
from animaray.platform.errors import MediaError
from animaray.platform.media.video import DecodeLimits, decode_video, encode_mp4, read_picture


def source(tmp_path: Path, *, pts_s: np.ndarray | None = None) -> dict[str, object]:
    levels = 20 + 3 * np.arange(60, dtype=np.uint8)
    frames = np.repeat(levels, 90 * 120 * 3).reshape(60, 90, 120, 3)
    path = tmp_path / "source.mp4"
    path.write_bytes(encode_mp4(frames, 20.0, pts_s=pts_s, crf=4))
    return {
        "path": str(path), "file_name": "source.mp4", "clip_id": "abc", "clip_start_s": 1.0,
        "clip_end_s": 2.0, "frame_rate_fps": 20.0, "is_variable_fps": pts_s is not None,
        "has_plain_clock": True, "staging_dir": str(tmp_path / "staging"), "state": None,
    }  # fmt: skip


def test_clip_holds_exactly_the_span(tmp_path: Path) -> None:
    row = cut_clip(source(tmp_path), CutClipConfig(), DecodeLimits())
    assert set(ADDS) <= set(row)
    clip = decode_video(row["media_path"])
    assert len(clip.frames_uint8) == row["clip_num_frames"] == 20
    assert row["clip_duration_s"] == pytest.approx(1.0)
    # Frames 20 to 39 of the source; frame i has brightness 20 + 3 i.
    found = (clip.frames_uint8.mean(axis=(1, 2, 3)) - 20) / 3
    np.testing.assert_allclose(found, np.arange(20, 40), atol=0.75)
    assert (row["clip_width"], row["clip_height"], row["clip_damaged_share"]) == (120, 90, 0.0)


def test_preview_and_poster_are_small(tmp_path: Path) -> None:
    config = CutClipConfig(preview_short_side_px=30, poster_short_side_px=60, preview_s=0.5)
    row = cut_clip(source(tmp_path), config, DecodeLimits())
    preview = decode_video(row["preview_path"])
    assert preview.frames_uint8.shape == (10, 30, 40, 3)
    assert read_picture(Path(row["poster_path"])).shape == (60, 80, 3)


def test_variable_rate_keeps_its_times(tmp_path: Path) -> None:
    pts = np.cumsum(np.where(np.arange(60) % 2, 0.02, 0.08))
    row = cut_clip(source(tmp_path, pts_s=pts), CutClipConfig(), DecodeLimits())
    clip = decode_video(row["media_path"])
    since = pts - pts[0]
    inside = since[(since >= 1.0 - 1e-6) & (since < 2.0 - 1e-6)]
    np.testing.assert_allclose(clip.pts_s, inside - inside[0], atol=1e-3)


def test_span_without_frames_is_an_error(tmp_path: Path) -> None:
    row = {**source(tmp_path), "clip_start_s": 2.95, "clip_end_s": 2.97}
    with pytest.raises(MediaError, match="expected at least 2"):
        cut_clip(row, CutClipConfig(), DecodeLimits())


def test_shrinking_never_enlarges() -> None:
    frame = np.zeros((40, 60, 3), dtype=np.uint8)
    assert shrink(frame, 20).shape == (20, 30, 3)
    assert shrink(frame, 80) is frame
