"""Every stage declares the columns it reads, adds and drops."""

import ast
import importlib
from pathlib import Path

import pytest

STAGES = ("acquire", "probe", "shots", "clips", "encode", "picture", "faces", "pose", "camera",
          "motion", "verdict")  # fmt: skip
FOLDER = Path(__file__).resolve().parents[3] / "pipelines/stages"
FIRST = {"path", "root", "state", "reason", "detail", "seconds", "staging_dir"}
FAMILY_STATES = {
    f"{family}_{what}"
    for family in ("picture", "face", "pose", "camera", "motion")
    for what in ("state", "note", "producer")
}


@pytest.mark.parametrize("name", STAGES)
def test_columns_are_declared_as_tuples_of_names(name: str) -> None:
    stage = importlib.import_module(f"animaray.pipelines.stages.{name}")
    for columns in (stage.READS, stage.ADDS, stage.DROPS):
        assert isinstance(columns, tuple)
        assert all(isinstance(column, str) for column in columns)
    assert stage.ADDS
    assert not set(stage.ADDS) & set(stage.DROPS)


def test_what_a_stage_reads_was_added_before() -> None:
    known = FIRST | FAMILY_STATES
    for name in STAGES:
        stage = importlib.import_module(f"animaray.pipelines.stages.{name}")
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
