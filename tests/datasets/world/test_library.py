"""A set of generated videos: playable, deterministic, with the flaws that its truth names."""

from pathlib import Path

import pytest

from animaray.datasets.world.library import FLAWS, plan_world, read_truth, write_world
from animaray.platform.errors import ConfigError, MediaError
from animaray.platform.media.video import decode_video


def test_a_written_set_plays_and_holds_its_flaws(tmp_path: Path) -> None:
    records = write_world(tmp_path, num_videos=8, seed=3, size=(64, 64), fps=8.0, duration_s=0.5)
    assert [record.path.name for record in records] == [f"clip_{i:04d}.mp4" for i in range(1, 9)]
    clean = [record for record in records if record.flaw is None]
    assert len(clean) == 5
    for record in clean:
        video = decode_video(record.path)
        assert video.frames_uint8.shape == (4, 64, 64, 3)
        truth = read_truth(record.path.with_suffix(".truth.json"))
        assert len(truth.frames) == 4
        assert len(truth.person_ids) == 1


def test_files_that_cannot_be_read_are_part_of_the_set(tmp_path: Path) -> None:
    records = write_world(tmp_path, num_videos=30, seed=3, size=(64, 64), fps=4.0, duration_s=0.5)
    broken = {r.flaw: r for r in records if r.flaw in {"truncated_file", "not_a_video"}}
    assert len(broken) == 2
    for record in broken.values():
        with pytest.raises(MediaError):
            decode_video(record.path)
        assert read_truth(record.path.with_suffix(".truth.json")).reason == "unreadable"


def test_a_plan_depends_on_its_seed_only() -> None:
    first, again, other = (
        plan_world(20, seed=seed, size=(64, 64), fps=8.0, duration_s=1.0) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other
    assert {flaw for flaw, _ in first if flaw} <= {name for name, _ in FLAWS}


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_videos >= 1, got 0"):
        plan_world(0, seed=1, size=(64, 64), fps=8.0, duration_s=1.0)
