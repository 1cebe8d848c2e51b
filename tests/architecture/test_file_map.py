"""Each code folder has a README whose map lists exactly its files, with their first lines.

`python tests/architecture/test_file_map.py` writes the maps anew.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INTRODUCTIONS = {
    "platform": "What every other folder stands on; imports nothing of ours and never torch.",
    "models": "Networks, diffusion, pose and frozen encoders; plain torch, no cluster.",
    "datasets": "What lies on disk and how it is read; `world/` draws generated people.",
    "pipelines": "Videos to a curated dataset, and kept clips to what training reads, on Ray Data.",
    "training": "The pose aligner and the animator on Ray Train.",
    "serving": "Durable animation jobs over HTTP on Ray Serve.",
    "evaluation": "Metrics, and the evaluation of weights on held-out clips.",
    "cli": "One file per command, the demo and its pages.",
}


def first_line(path: Path) -> str:
    """Return the first line of a module's docstring."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    return docstring.splitlines()[0] if docstring else ""


def render_map(folder: str) -> str:
    """Return the README of a folder."""
    paths = sorted((ROOT / folder).rglob("*.py"))
    rows = [f"| `{path.relative_to(ROOT / folder)}` | {first_line(path)} |" for path in paths]
    head = [f"# {folder}", "", INTRODUCTIONS[folder], "", "| file | what it does |", "|---|---|"]
    return "\n".join([*head, *rows, ""])


@pytest.mark.parametrize("folder", INTRODUCTIONS)
def test_readme_lists_exactly_the_files(folder: str) -> None:
    readme = ROOT / folder / "README.md"
    assert readme.is_file(), "run: python tests/architecture/test_file_map.py"
    assert readme.read_text(encoding="utf-8") == render_map(folder), (
        "run: python tests/architecture/test_file_map.py"
    )


if __name__ == "__main__":
    for name in INTRODUCTIONS:
        (ROOT / name / "README.md").write_text(render_map(name), encoding="utf-8")
