"""`animaray runs show`: a run's measurements as curves."""

import json
from pathlib import Path

import pytest

from animaray.cli.main import run
from animaray.cli.run_curves import curve_lines, read_series
from animaray.platform.media.video import read_picture

METRICS = [
    *({"step": step, "loss": 8.0 / step, "lr": 0.1, "samples_per_s": 2.0} for step in range(1, 9)),
    {"step": 8, "dis_none": 0.2, "dis_learned_clip": 0.1},
    {"step": 9, "loss": None, "not_finite": {"loss": "nan"}},
]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Return a run folder with a few lines of metrics."""
    (tmp_path / "status.json").write_text('{"state": "finished", "step": 9}')
    (tmp_path / "config.json").write_text('{"kind": "AlignerTrainingConfig", "config": {}}')
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in METRICS))
    return tmp_path


def test_series_hold_what_was_measured_loss_first() -> None:
    series = read_series(METRICS)
    assert next(iter(series)) == "loss"
    assert series["loss"] == [(step, 8.0 / step) for step in range(1, 9)]
    assert series["dis_none"] == [(8, 0.2)]


def test_a_curve_is_a_row_of_bars_from_its_highest_to_its_lowest() -> None:
    line = curve_lines(METRICS)[0]
    assert line.startswith("loss ")
    assert "█" in line
    assert line.index("█") < line.index("▁")
    assert "8 -> 1  (steps 1 to 8)" in line


def test_show_prints_and_draws_the_curves(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "out" / "curves.png"
    assert run(["runs", "show", str(run_dir), "--curves", str(picture)]) == 0
    assert "█" in capsys.readouterr().out
    pixels = read_picture(picture)
    assert pixels.shape[0] > 400
    assert (pixels != 255).any(axis=-1).mean() > 0.01


def test_what_cannot_be_drawn_is_refused(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["runs", "show", str(run_dir), "--curves", "curves.doc"]) == 2
    assert ".png, .svg, .pdf" in capsys.readouterr().err
    (run_dir / "metrics.jsonl").unlink()
    assert run(["runs", "show", str(run_dir), "--curves", "curves.png"]) == 2
    assert "has measured nothing yet" in capsys.readouterr().err
    assert run(["runs", "show", str(run_dir / "absent")]) == 2
