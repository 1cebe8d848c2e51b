"""The words that docs/glossary.md retires are gone from the code's names and from the pages."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GLOSSARY = ROOT / "docs" / "glossary.md"
FOLDERS = (
    "platform", "models", "datasets", "pipelines", "training", "serving", "evaluation", "cli",
)  # fmt: skip
HISTORY = {"lab_log.md", "glossary.md"}
"""Pages that may name them: what was typed then, and what became of them."""


def retired() -> list[str]:
    """Return the names in the first column of the table of retired words."""
    table = GLOSSARY.read_text(encoding="utf-8").split("## Words that are gone")[1]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return [name for row in rows for name in re.findall(r"`(\w+)`", row)]


def parts_of(name: str) -> str:
    """Return a name's words in small letters, each between spaces."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return f" {spaced.lower().replace('_', ' ')} "


@cache
def names() -> dict[str, str]:
    """Return the words of every name that our code gives, with a place of it."""
    found: dict[str, str] = {}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            place = str(path.relative_to(ROOT))
            found[parts_of(path.stem)] = place
            for line, name in given_in(ast.parse(path.read_text(encoding="utf-8"))):
                found[parts_of(name)] = f"{place}:{line}"
    return found


def given_in(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id


def test_the_glossary_retires_words() -> None:
    assert len(retired()) >= 8


@pytest.mark.parametrize("word", retired())
def test_retired_word_is_gone_from_names_and_pages(word: str) -> None:
    wanted = parts_of(word)
    assert [f"{place} {name}" for name, place in names().items() if wanted in name] == []
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    texts = {page.name: page.read_text(encoding="utf-8") for page in pages}
    pattern = re.compile(rf"\b{word}s?\b")
    assert [page for page in texts.keys() - HISTORY if pattern.search(texts[page])] == []


@pytest.mark.parametrize("name", ["Pulse", "last_pulse_s", "make_pulse", "PULSE_S"])
def test_a_word_is_found_in_any_form_of_name(name: str) -> None:
    assert parts_of("pulse") in parts_of(name)
    assert parts_of("pulse") not in parts_of("impulses")
