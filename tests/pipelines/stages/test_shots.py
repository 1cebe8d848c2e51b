"""Shots: cuts, dissolves and fades on rendered footage with known cut frames."""

from pathlib import Path

import numpy as np
import pytest

from animaray.datasets.world.clips import render_clip, sample_clip_spec
from animaray.pipelines.stages.shot_detection import ShotsConfig
from animaray.pipelines.stages.shots import ADDS, find_shots, split_shots
from animaray.platform.media.video import DecodeLimits, write_mp4
from benchmarks.quality.transitions import join_shots

FPS = 25.0


def scene(seed: int, num_frames: int) -> np.ndarray:
    """Return a blocky random picture with a square that wanders across it."""
    rng = np.random.default_rng(seed)
    picture = np.kron(rng.integers(30, 226, (9, 16, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    frames = np.repeat(picture[None], num_frames, axis=0)
    for index in range(num_frames):
        left = 20 + 2 * index % 150
        frames[index, 60:90, left : left + 30] = 255 - frames[index, 60:90, left : left + 30]
    return frames


def find(tmp_path: Path, frames: np.ndarray) -> dict[str, object]:
    path = tmp_path / "video.mp4"
    write_mp4(path, frames, FPS)
    return find_shots({"path": str(path), "fps": FPS}, ShotsConfig(), DecodeLimits())


def test_one_scene_is_one_shot(tmp_path: Path) -> None:
    row = find(tmp_path, scene(0, 50))
    assert set(ADDS) <= set(row)
    assert row["num_frames"] == 50
    assert row["frame_rate_fps"] == pytest.approx(FPS)
    (shot,) = row["shots"]
    assert (shot["start_s"], shot["cut_before"], shot["cut_after"]) == (0.0, False, False)
    assert shot["end_s"] == pytest.approx(2.0)
    assert row["cut_times_s"] == []


def test_hard_cuts_are_found_to_the_frame(tmp_path: Path) -> None:
    row = find(tmp_path, np.concatenate([scene(1, 30), scene(2, 40), scene(3, 30)]))
    assert row["cut_times_s"] == pytest.approx([30 / FPS, 70 / FPS])
    assert [shot["cut_before"] for shot in row["shots"]] == [False, True, True]
    assert [shot["cut_after"] for shot in row["shots"]] == [True, True, False]


@pytest.mark.parametrize("kind", ["dissolve", "fade to black"])
def test_gradual_changes_are_no_part_of_a_shot(tmp_path: Path, kind: str) -> None:
    before, after = scene(4, 70).astype(float), scene(5, 70).astype(float)
    if kind == "fade to black":
        after[:] = 0
    share = np.linspace(0, 1, 22)[1:-1, None, None, None]  # 20 mixed frames: 0.8 s
    mixed = (1 - share) * before[50:70] + share * after[:20]
    frames = np.concatenate([before[:50], mixed, after[20:]]).astype(np.uint8)
    first, second = find(tmp_path, frames)["shots"]
    # Mixed are frames 50 to 69; a few frames at either end differ too little to tell.
    assert first["end_s"] == pytest.approx(50 / FPS, abs=5 / FPS)
    assert second["start_s"] == pytest.approx(70 / FPS, abs=5 / FPS)
    assert first["cut_after"]
    assert second["cut_before"]


def test_transitions_of_moving_people_are_found(tmp_path: Path) -> None:
    """A dissolve and a fade; benchmarks/quality/shots_on_known_cuts.py has many more."""
    rendered = [
        render_clip(
            sample_clip_spec(seed, num_frames=36, fps=12.0, size=(96, 96), motion_kind="dance")
        ).frames_uint8
        for seed in (1, 2, 3, 4)
    ]
    frames, known = join_shots(rendered, ("cut", "dissolve", "fade"), (0, 8, 10))
    path = tmp_path / "video.mp4"
    write_mp4(path, frames, 12.0)
    row = find_shots({"path": str(path), "fps": 12.0}, ShotsConfig(), DecodeLimits())
    shots = [(round(s["start_s"] * 12), round(s["end_s"] * 12)) for s in row["shots"]]
    assert len(shots) == 4
    for transition, before, after in zip(known, shots[:-1], shots[1:], strict=True):
        is_cut = transition.kind == "cut"
        assert before[1] == pytest.approx(transition.first, abs=0 if is_cut else 3)
        assert after[0] == pytest.approx(transition.last + (not is_cut), abs=0 if is_cut else 3)


def test_slow_pan_is_no_dissolve(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    wide = np.kron(rng.integers(0, 255, (9, 40, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    frames = np.stack([wide[:, 2 * i : 2 * i + 256] for i in range(100)])
    assert len(find(tmp_path, frames)["shots"]) == 1


def test_unreadable_source_ends_with_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "no.mp4"
    path.write_text("no video at all, but a text")
    row = find_shots({"path": str(path), "fps": FPS}, ShotsConfig(), DecodeLimits())
    assert (row["state"], row["reason"]) == ("unreadable", "not_a_video")
    assert set(ADDS) <= set(row)


def test_cut_inside_a_dissolve_makes_no_extra_shot() -> None:
    times = np.arange(40) / FPS
    shots = split_shots(times, 1 / FPS, cuts=[15], mixes=[(10, 20)])
    assert [(shot["start_s"] * FPS, shot["end_s"] * FPS) for shot in shots] == [(0, 10), (21, 40)]


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "cut_frames"), [("x11.mp4", [80]), ("x22.mp4", [60]), ("x05.mp4", []), ("v04.mp4", [])]
)
def test_real_cuts(real_data, name: str, cut_frames: list[int]) -> None:
    path = real_data / f"videos/{name}"
    row = find_shots({"path": str(path), "fps": FPS}, ShotsConfig(), DecodeLimits())
    found = np.array(row["cut_times_s"]) * row["frame_rate_fps"]
    assert found == pytest.approx(cut_frames, abs=0.01)
