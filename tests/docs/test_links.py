"""What pages and README point to is there; nothing points to a note that a reader does not have."""

import re
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
CODE = (
    "platform", "models", "datasets", "pipelines", "training", "serving", "evaluation", "cli",
    "tests", "benchmarks", "runs", "docs",
)  # fmt: skip
HISTORY = {"lab_log.md", "CHANGELOG.md"}
"""They name files as they were called then."""
FOREIGN = {"models/antelopev2"}
"""Folders of the authors' layout."""
PATH = re.compile(rf"`((?:{'|'.join(CODE)})/[\w./-]+)`")
ELSEWHERE = re.compile(
    r"(?<![\w.])/work/|shared/reference|(?<![\w-])(?:curation|reliability|ux|house|dependencies|performance)\.md"
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []
    if page.name not in HISTORY and "decisions" not in page.parts:
        named = [path for path in PATH.findall(text) if path not in FOREIGN]
        assert [path for path in named if not (ROOT / path).exists()] == []


def test_nothing_refers_to_notes_from_elsewhere() -> None:
    folders = (ROOT / name for name in (*CODE, ".ci", ".github"))
    files = chain(ROOT.glob("*.*"), *(folder.rglob("*.*") for folder in folders))
    kinds = {".md", ".py", ".yaml", ".yml", ".toml", ".sh", ".html", ".j2", ".js"}
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in sorted(files)
        if path.suffix in kinds and path.name != "test_links.py" and path.is_file()
        for match in ELSEWHERE.finditer(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_lines_of_the_lab_log_can_be_read() -> None:
    lines = (ROOT / "docs" / "lab_log.md").read_text(encoding="utf-8").splitlines()
    assert [number for number, line in enumerate(lines, 1) if len(line) > 160] == []
