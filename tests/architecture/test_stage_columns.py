"""Every stage reads, adds and drops exactly the columns that it declares.

One small clip goes through the real stages, each of which gets no column but those it declares to
read: an undeclared one would be missing, and whatever it adds or drops beyond its word shows.
"""

import ast
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from animaray.datasets.schemas import FAMILIES
from animaray.datasets.world.clips import render_clip, sample_clip_spec
from animaray.models.perception.profiles import load_perception, load_point_tracker
from animaray.pipelines.curation.clip_samples import ClipSamples
from animaray.pipelines.curation.config import CurationConfig
from animaray.pipelines.curation.perception_worker import PerceptionWorker
from animaray.pipelines.curation.rows import Row, new_row
from animaray.pipelines.policy.policies import STANDARD
from animaray.pipelines.policy.verdicts import add_verdicts
from animaray.pipelines.stages.clips import split_clips
from animaray.pipelines.stages.cut_clip import cut_clip
from animaray.pipelines.stages.identify import identify
from animaray.pipelines.stages.motion import measure_motion
from animaray.pipelines.stages.picture import measure_picture
from animaray.pipelines.stages.probe import probe
from animaray.pipelines.stages.shots import find_shots
from animaray.pipelines.stages.text import TextStage
from animaray.platform.errors import MediaError
from animaray.platform.media.video import write_mp4

STAGES = ("identify", "probe", "shots", "clips", "cut_clip", "picture", "faces", "pose", "camera",
          "motion", "text", "verdicts")  # fmt: skip
FOLDER = Path(__file__).resolve().parents[2] / "pipelines/stages"
NOT_STAGES = {"background", "duplicates", "foreground", "shot_detection"}
"""Files that hold a part of a stage, or a step over all rows together."""
ALWAYS = {"state", "reason", "detail", "seconds"}
"""Columns of every row, from before the first stage on: how it fared."""
FIRST = {"path", "root", "staging_dir"}
SHARED = {"samples"}
"""Handed to all who look at a clip, and taken back (perception_worker.py)."""
FAMILY_COLUMNS = {
    f"{family}_{what}" for family in FAMILIES for what in ("state", "note", "producer")
}
"""Added by the runner, not by a stage."""


class NoWriting:
    """Reads nothing: the columns of the stage do not depend on it."""

    name = "nothing"

    def detect(self, _frame: np.ndarray) -> list[Any]:
        return []


def declared(name: str) -> Any:
    room = "policy" if name == "verdicts" else "stages"
    return importlib.import_module(f"animaray.pipelines.{room}.{name}")


def test_every_file_of_the_folder_is_known() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == {*STAGES[:-1], *NOT_STAGES}


@pytest.mark.parametrize("name", STAGES)
def test_columns_are_declared_as_tuples_of_names(name: str) -> None:
    stage = declared(name)
    for columns in (stage.READS, stage.ADDS, stage.DROPS):
        assert isinstance(columns, tuple)
        assert all(isinstance(column, str) for column in columns)
    assert stage.ADDS
    assert not set(stage.ADDS) & set(stage.DROPS)
    described = " ".join((stage.__doc__ or "").split())
    for column in {*stage.READS, *stage.DROPS} - set(FAMILY_COLUMNS):
        is_score = column.endswith("_scores") and name == "verdicts"
        assert column in described or is_score, f"{name}'s docstring does not name {column}"


def test_what_a_stage_reads_was_added_before() -> None:
    known = ALWAYS | FIRST | SHARED | FAMILY_COLUMNS
    for name in STAGES:
        stage = declared(name)
        assert set(stage.READS) <= known, f"{name} reads {set(stage.READS) - known}"
        known = (known | set(stage.ADDS)) - set(stage.DROPS)


def test_no_stage_names_ray() -> None:
    for path in FOLDER.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {
            alias.name.split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        assert "ray" not in names, path


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Callable[[Row], Row]]:
    config = CurationConfig(sources=("x",), output_dir=tmp_path_factory.mktemp("out"))
    looks = PerceptionWorker(load_perception("generated"), load_point_tracker("generated"), config)
    return {
        "identify": identify,
        "probe": lambda row: probe(row, config.limits),
        "shots": lambda row: find_shots(row, config.shots, config.limits),
        "clips": lambda row: split_clips(row, config.clips)[0],
        "cut_clip": lambda row: cut_clip(row, config.cut, config.limits),
        "picture": measure_picture,
        "faces": looks._faces,
        "pose": looks._pose,
        "camera": looks._camera,
        "motion": measure_motion,
        "text": TextStage(NoWriting()),
        "verdicts": lambda row: add_verdicts(row, [STANDARD], "all"),
    }


def step(name: str, stage: Callable[[Row], Row], row: Row) -> Row:
    """Run a stage on what it may read; hold it to its word and return the whole row after it."""
    told = declared(name)
    given = {column: row[column] for column in {*told.READS, *ALWAYS} if column in row}
    after = stage(dict(given))
    added, dropped = set(after) - set(given), set(given) - set(after)
    assert added == set(told.ADDS), f"{name} adds {added}, declares {told.ADDS}"
    assert dropped == set(told.DROPS) & set(given), f"{name} drops {dropped}"
    kept = {column: value for column, value in row.items() if column not in told.DROPS}
    return {**kept, **after}


def test_stages_keep_their_word_on_a_clip(
    stages: dict[str, Callable[[Row], Row]], tmp_path: Path
) -> None:
    spec = sample_clip_spec(3, framing="half", num_frames=20, size=(128, 160))
    path = tmp_path / "clip.mp4"
    write_mp4(path, render_clip(spec).frames_uint8, spec.fps)
    row = {**new_row(str(path), str(tmp_path)), "staging_dir": str(tmp_path / "staging")}
    row |= {f"{family}_{what}": None for family in FAMILIES for what in ("note", "producer")}
    row |= {f"{family}_state": "ok" for family in FAMILIES}
    for name in STAGES:
        if name == "picture":
            row["samples"] = ClipSamples(row["media_path"])
        row = step(name, stages[name], row)
        assert row["state"] is None, (name, row["reason"], row["detail"])
    assert row["verdicts"]["standard"].state in {"keep", "drop"}


def test_a_clip_outside_its_source_fails_with_a_message(
    stages: dict[str, Callable[[Row], Row]], tmp_path: Path
) -> None:
    path = tmp_path / "clip.mp4"
    write_mp4(path, np.zeros((5, 32, 32, 3), dtype=np.uint8), 5.0)
    row = {
        "path": str(path), "file_name": "clip.mp4", "clip_id": "abc", "clip_start_s": 7.0,
        "clip_end_s": 8.0, "frame_rate_fps": 5.0, "is_variable_fps": False,
        "has_plain_clock": True, "staging_dir": str(tmp_path), **dict.fromkeys(ALWAYS),
    }  # fmt: skip
    assert set(row) == {*declared("cut_clip").READS, *ALWAYS}
    with pytest.raises(MediaError, match=r"clip\.mp4 gives 0 frames"):
        stages["cut_clip"](row)


@pytest.mark.parametrize("name", ["probe", "shots"])
def test_a_stage_keeps_its_word_on_what_it_cannot_read(
    name: str, stages: dict[str, Callable[[Row], Row]], tmp_path: Path
) -> None:
    path = tmp_path / "text.mp4"
    path.write_text("no video")
    row = step(name, stages[name], identify(new_row(str(path), str(tmp_path))))
    assert row["state"] == "unreadable"


def test_a_source_without_a_long_enough_shot_has_the_same_columns() -> None:
    shot = {"start_s": 0.0, "end_s": 0.2, "cut_before": False, "cut_after": False}
    row = {**new_row("a", "b"), "file_name": "a", "source_id": "s", "sha256": "x", "shots": [shot]}
    row |= {"hashes": [], "motion_signature": b""}
    after = step("clips", lambda row: split_clips(row, CurationConfig(
        sources=("x",), output_dir=Path()).clips)[0], row)  # fmt: skip
    assert (after["state"], after["reason"]) == ("dropped", "too_short")
