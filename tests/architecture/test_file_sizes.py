"""Keep files and functions small enough to read at one sitting."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (
    "platform", "models", "datasets", "pipelines", "training", "serving", "evaluation", "cli",
    "tests", "benchmarks",
)  # fmt: skip
MAX_FILE_LINES = 500
"""Past 400 a file should have a reason: one idea that a reader would not look for in two places."""
MAX_FUNCTION_LINES = 60
MAX_LOOP_LINES = 120
LOOPS = {"models/diffusion/sampler.py", "training/train_loop.py"}
FORBIDDEN_NAMES = {"utils", "helpers", "common", "misc", "core", "base", "manager"}


def _python_files() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def test_files_are_at_most_500_lines() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in _python_files()
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > MAX_FILE_LINES
    }
    assert not long


def test_functions_are_at_most_60_lines() -> None:
    long = {}
    for path in _python_files():
        limit = MAX_LOOP_LINES if str(path.relative_to(ROOT)) in LOOPS else MAX_FUNCTION_LINES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                docstring = ast.get_docstring(node, clean=False)
                length -= len(docstring.splitlines()) if docstring else 0
                if length > limit:
                    long[f"{path.relative_to(ROOT)}:{node.name}"] = length
    assert not long


def test_no_folder_or_file_has_a_name_that_says_nothing() -> None:
    bad = [path for path in _python_files() if FORBIDDEN_NAMES & {path.stem, *path.parts}]
    assert not bad


def test_every_module_has_a_docstring() -> None:
    silent = [
        path
        for path in _python_files()
        if "tests" not in path.parts
        and not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not silent
