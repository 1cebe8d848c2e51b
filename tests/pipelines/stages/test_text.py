"""Burned-in text: captions drawn on free footage are found, clean footage and moving signs not."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from animaray.models.perception.permissive import rapid_ocr
from animaray.models.perception.profiles import load_text_detector
from animaray.models.perception.protocols import TextDetector, TextLine
from animaray.pipelines.curation.clip_samples import ClipSamples
from animaray.pipelines.stages.text import (
    PLACES,
    TextConfig,
    TextStage,
    join_overlapping,
    place_of,
)
from animaray.platform.errors import ConfigError, MachineError
from animaray.platform.media.video import decode_video, write_mp4

Box = tuple[float, float, float, float]


class Script:
    """Reads what is written here: words and box of each line, frame by frame."""

    name = "script"

    def __init__(self, frames: Sequence[Sequence[tuple[str, Box]]], score: float = 0.99) -> None:
        self._frames = iter(frames)
        self._score = score

    def detect(self, _frame: np.ndarray) -> list[TextLine]:
        return [
            TextLine(corners=corners(*box), words=words, score=self._score)
            for words, box in next(self._frames)
        ]


def corners(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    places = [(left, top), (right, top), (right, bottom), (left, bottom)]
    return np.array(places, dtype=np.float32)


class Frames:
    """Stands for the samples of a clip."""

    def __init__(self, frames: np.ndarray) -> None:
        self.frames_uint8 = frames

    def take(self, _selection: object) -> "Frames":
        return self


def row_of(frames: np.ndarray, **facts: object) -> dict[str, Any]:
    count, height, width = frames.shape[:3]
    return {
        "samples": Frames(frames), "clip_num_frames": count, "clip_fps": 10.0,
        "clip_width": width, "clip_height": height, **facts,
    }  # fmt: skip


def scores_of(detector: TextDetector, frames: np.ndarray | None = None) -> dict[str, Any]:
    frames = np.zeros((3, 200, 400, 3), dtype=np.uint8) if frames is None else frames
    return TextStage(detector)(row_of(frames))["text_scores"]


LOGO: Box = (10.0, 170.0, 90.0, 190.0)


def moved(box: Box, right: float, down: float = 0.0) -> Box:
    return box[0] + right, box[1] + down, box[2] + right, box[3] + down


def test_writing_that_stays_where_it_is_was_burned_in() -> None:
    scores = scores_of(Script([[("channel.tv", LOGO)]] * 3))
    assert scores["text_share"] == pytest.approx(80 * 20 / (200 * 400))
    assert (scores["text_found_share"], scores["text_scene_share"]) == (1.0, 0.0)
    assert scores["text_place"] == "bottom"
    assert scores["text_boxes"] == pytest.approx([0.025, 0.85, 0.225, 0.95])
    # Found a little higher and shorter in one frame, as detectors do.
    worn = Script([[("channel.tv", LOGO)], [("hannel.tv", (14, 171, 90, 188))], []])
    assert scores_of(worn)["text_found_share"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "frames",
    [
        [[("ROYAL", LOGO)], [("ROYAL", moved(LOGO, 10.0))], [("ROYAL", moved(LOGO, 20.0))]],
        [[("ROYAL", LOGO)], [("ROYAL", moved(LOGO, 0.0, -8.0))], []],
        [[("a shirt", (150, 100, 200, 120))], [], []],
    ],
)  # fmt: skip
def test_writing_that_moves_belongs_to_the_scene(frames: list[list[tuple[str, Box]]]) -> None:
    scores = scores_of(Script(frames))
    assert (scores["text_share"], scores["text_place"], scores["text_boxes"]) == (0.0, None, None)
    assert scores["text_scene_share"] > 0.0


def words_at(frames: np.ndarray, lefts: Sequence[int]) -> np.ndarray:
    """Write OPERA on each frame at its own place."""
    for frame, left in zip(frames, lefts, strict=True):
        colour = (230, 230, 230)
        cv2.putText(frame, "OPERA", (left, 120), cv2.FONT_HERSHEY_DUPLEX, 0.8, colour, 1)
    return frames


@pytest.mark.parametrize(
    ("lefts", "box", "counts"),
    [
        ((100, 100, 100), (96, 100, 190, 124), True),
        # The hand that holds the camera shakes: boxes of detectors are not that exact, pixels are.
        ((100, 102, 97), (96, 100, 190, 124), False),
        # The sign goes on beyond the edge.
        ((320, 320, 320), (316, 100, 400, 124), False),
        # A watermark near the edge has a margin.
        ((10, 10, 10), (2, 100, 98, 124), True),
    ],
)
def test_pixels_tell_a_sign_from_a_watermark(
    lefts: tuple[int, ...], box: Box, *, counts: bool
) -> None:
    wall = np.random.default_rng(0).integers(60, 90, (200, 400, 3), dtype=np.uint8)
    frames = words_at(np.stack([cv2.GaussianBlur(wall, (0, 0), 2.0)] * 3), lefts)
    scores = scores_of(Script([[("OPERA", box)]] * 3), frames)
    assert (scores["text_share"] > 0.0, scores["text_scene_share"] > 0.0) == (counts, not counts)


def test_lines_of_a_sign_do_not_follow_each_other() -> None:
    upper, lower = (100.0, 40.0, 160.0, 60.0), (100.0, 60.0, 160.0, 80.0)
    down = [("ROYAL", moved(upper, 0.0, 18.0)), ("OPERA", moved(lower, 0.0, 18.0))]
    scores = scores_of(Script([[("ROYAL", upper), ("OPERA", lower)], down, []]))
    assert (scores["text_share"], scores["text_scene_share"] > 0.0) == (0.0, True)


def test_captions_that_follow_each_other_are_found() -> None:
    lines = [("what a day", (120, 165, 280, 185)), ("let us go", (140, 166, 262, 186))]
    assert scores_of(Script([[lines[0]], [lines[1]], []]))["text_found_share"] == (
        pytest.approx(2 / 3)
    )


def test_a_watermark_that_jumps_is_found_wherever_it_is() -> None:
    corner = moved(LOGO, 290.0, -160.0)
    frames = [[("@dancer", LOGO)], [("@dancer", corner)], [("@dancer", corner)]]
    scores = scores_of(Script(frames))
    assert (scores["text_found_share"], scores["text_place"]) == (1.0, "all over")


def test_a_caption_shown_for_a_third_of_the_clip_counts_only_where_captions_stand() -> None:
    low, aside = (140.0, 160.0, 260.0, 180.0), (20.0, 90.0, 140.0, 110.0)
    assert scores_of(Script([[], [("221 kg", low)], []]))["text_share"] > 0.0
    assert scores_of(Script([[], [("221 kg", aside)], []]))["text_share"] == 0.0
    assert scores_of(Script([[], [("221 kg", low)], []], score=0.86))["text_share"] == 0.0


@pytest.mark.parametrize(
    ("words", "box", "score"),
    [("channel", LOGO, 0.7), ("-", LOGO, 1.0), ("whole", (0, 0, 400, 200), 1.0)],
)
def test_what_cannot_be_read_is_no_text(words: str, box: Box, score: float) -> None:
    scores = scores_of(Script([[(words, box)]] * 3, score=score))
    assert (scores["text_share"], scores["text_scene_share"]) == (0.0, 0.0)


def test_places_have_names() -> None:
    boxes = [
        (0.1, 0.0, 0.9, 0.2), (0.1, 0.8, 0.9, 1.0), (0.0, 0.2, 0.2, 0.8), (0.8, 0.2, 1.0, 0.8),
        (0.2, 0.4, 0.8, 0.6), (0.0, 0.1, 1.0, 0.9),
    ]  # fmt: skip
    assert tuple(place_of(np.array([box], dtype=np.float32)) for box in boxes) == PLACES
    apart = np.array([boxes[0], boxes[1], (0.5, 0.1, 1.0, 0.3)], dtype=np.float32)
    assert place_of(apart) == "all over"
    assert (
        join_overlapping(apart).tolist()
        == np.array([boxes[1], (0.1, 0.0, 1.0, 0.3)], dtype=np.float32).tolist()
    )


def test_frames_are_the_middles_of_equal_parts(tmp_path: Path) -> None:
    frames = np.zeros((30, 64, 128, 3), dtype=np.uint8)
    frames += np.arange(0, 240, 8, dtype=np.uint8)[:, None, None, None]
    path = tmp_path / "clip.mp4"
    write_mp4(path, frames, 10.0)
    for count, expected in ((3, [5, 15, 25]), (1, [15])):
        stage = TextStage(Script([]), TextConfig(num_frames=count, long_side_px=64))
        selection = stage.selection(row_of(frames))
        seen = ClipSamples(str(path)).take(selection)
        assert np.round(seen.pts_s * 10.0).astype(int).tolist() == expected
        assert seen.frames_uint8.shape[1:3] == (32, 64)
    square = TextStage(Script([])).selection(row_of(np.zeros((9, 800, 800, 3), dtype=np.uint8)))
    assert square.short_side_px == 392
    assert len(ClipSamples(str(path)).take(stage.selection(row_of(frames[:1]))).pts_s) == 1


def test_settings_are_checked() -> None:
    assert TextConfig().looks_at("permissive")
    assert not TextConfig().looks_at("generated")
    assert TextConfig(look="always").looks_at("generated")
    assert not TextConfig(look="never").looks_at("paper")
    with pytest.raises(ConfigError, match=r"text\.look"):
        TextConfig(look="sometimes")
    with pytest.raises(ConfigError, match=r"text\.num_frames >= 1"):
        TextConfig(num_frames=0)


@pytest.fixture(scope="module")
def detector() -> TextDetector:
    return load_text_detector(num_threads=1)


@pytest.fixture(scope="module")
def dancer() -> np.ndarray:
    """Return three moments of a woman doing squats, 270x480, without any writing."""
    path = Path(__file__).parents[2] / "data/real/videos/v04.mp4"
    return decode_video(path, fps=0.3, short_side_px=270, max_frames=3).frames_uint8


def written(frames: np.ndarray, lines: Sequence[tuple[str, tuple[int, int]]]) -> np.ndarray:
    """Write a line on each frame, white with a black rim."""
    drawn = frames.copy()
    for frame, (words, place) in zip(drawn, lines, strict=True):
        for colour, width in (((0, 0, 0), 5), ((255, 255, 255), 2)):
            font = cv2.FONT_HERSHEY_SIMPLEX
            cv2.putText(frame, words, place, font, 0.8, colour, width, cv2.LINE_AA)
    return drawn


def test_captions_on_real_footage_are_read(detector: TextDetector, dancer: np.ndarray) -> None:
    captions = [("squat number one", (20, 440)), ("now number two", (35, 440)),
                ("and a third", (60, 440))]  # fmt: skip
    scores = scores_of(detector, written(dancer, captions))
    assert (scores["text_found_share"], scores["text_place"]) == (1.0, "bottom")
    assert 0.02 < scores["text_share"] < 0.2


def test_clean_footage_and_a_sign_that_passes_have_none(
    detector: TextDetector, dancer: np.ndarray
) -> None:
    clean = scores_of(detector, dancer)
    assert (clean["text_share"], clean["text_scene_share"]) == (0.0, 0.0)
    bus = [("LINE 42", (10 + 60 * place, 200 - 3 * place)) for place in range(3)]
    passing = scores_of(detector, written(dancer, bus))
    assert passing["text_share"] == 0.0
    assert passing["text_scene_share"] > 0.0


def test_nothing_to_see_has_no_text_and_prints_nothing(
    detector: TextDetector, capfd: pytest.CaptureFixture[str]
) -> None:
    for value in (0, 255):
        assert scores_of(detector, np.full((3, 64, 96, 3), value, dtype=np.uint8)) == {
            "text_share": 0.0, "text_found_share": 0.0, "text_scene_share": 0.0,
            "text_place": None, "text_boxes": None,
        }  # fmt: skip
    assert detector.name.startswith("rapidocr@3.10.")
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("RapidOCR").level == logging.CRITICAL


def test_a_missing_package_and_other_networks_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rapid_ocr, "_READER", "PP-OCRv9.onnx")
    with pytest.raises(MachineError, match=r"Expected PP-OCRv9\.onnx in .*rapidocr does not bring"):
        load_text_detector()
    monkeypatch.setattr(rapid_ocr, "PACKAGE", "rapidocr_of_nobody")
    with pytest.raises(MachineError, match="not installed") as caught:
        load_text_detector()
    assert "text.look=never" in str(caught.value.fix)
