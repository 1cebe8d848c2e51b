"""JSON is written in one file, so that no NaN and no Infinity gets into any of it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OWNER = "platform/json_text.py"
FOLDERS = (
    "platform", "models", "datasets", "pipelines", "training", "serving", "evaluation", "cli",
    "benchmarks", "tests/faults",
)  # fmt: skip
WRITERS = {"dump", "dumps", "JSONEncoder"}


def writers_of_json(source: str) -> list[str]:
    """Return what a file takes from the standard library to write JSON."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "json" and node.attr in WRITERS:
                found.append(f"line {node.lineno}: json.{node.attr}")
        elif isinstance(node, ast.ImportFrom) and node.module == "json":
            names = [name.name for name in node.names if name.name in WRITERS]
            found += [f"line {node.lineno}: from json import {name}" for name in names]
        elif isinstance(node, ast.Import):
            other = [name.name for name in node.names if name.name == "json" and name.asname]
            found += [f"line {node.lineno}: json under another name"] * len(other)
    return found


def test_only_the_owner_writes_json() -> None:
    found = {
        path.relative_to(ROOT).as_posix(): hits
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        if (hits := writers_of_json(path.read_text(encoding="utf-8")))
    }
    assert list(found) == [OWNER], f"use platform.json_text: {found}"


@pytest.mark.parametrize(
    "source",
    [
        "import json\njson.dumps({})",
        "import json\nwrite = json.dump",
        "from json import dumps",
        "import json as j\nj.dumps({})",
    ],
)
def test_every_way_around_the_owner_is_seen(source: str) -> None:
    assert writers_of_json(source)
