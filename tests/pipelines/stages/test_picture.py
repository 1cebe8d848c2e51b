"""Light, sharpness and flatness of pictures made for the purpose."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from animaray.pipelines.curation.clip_samples import ClipSamples
from animaray.pipelines.stages.picture import measure_frame, measure_picture
from animaray.platform.media.video import write_mp4


def textured() -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (45, 80, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((8, 8, 1), dtype=np.uint8))


def test_blur_lowers_sharpness_many_times() -> None:
    sharp = measure_frame(textured())[2]
    blurred = measure_frame(cv2.GaussianBlur(textured(), (0, 0), 6.0))[2]
    assert sharp > 100 * blurred


def test_darkness_shows_in_the_brightest_five_percent() -> None:
    dark = (textured() * 0.1).astype(np.uint8)
    darkest, brightest, _, _ = measure_frame(dark)
    assert darkest < brightest < 25


def test_one_colour_is_flat_all_over() -> None:
    plain = np.full((360, 640, 3), 77, dtype=np.uint8)
    assert measure_frame(plain).tolist() == [77, 77, 0, 1]
    half = textured()
    half[:176] = 30  # 11 of 22 rows of whole 16 px blocks
    assert measure_frame(half)[3] == pytest.approx(0.5)


def test_clip_scores_are_medians_over_its_frames(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_mp4(path, np.repeat(textured()[None], 30, axis=0), 10.0)
    row = measure_picture(
        {
            "samples": ClipSamples(str(path)),
            "clip_damaged_share": 0.1,
            "clip_combed_share": None,
            "clip_fps": 25.0,
            "clip_width": 640,
            "clip_height": 360,
        }
    )
    scores = row["picture_scores"]
    assert scores["picture_short_side_px"] == 360
    assert scores["picture_damaged_share"] == 0.1
    assert (scores["picture_combed_share"], scores["picture_frame_rate_fps"]) == (None, 25.0)
    assert scores["picture_sharpness"] > 500
    assert scores["picture_flat_share"] < 0.05
