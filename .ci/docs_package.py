"""Hook of mkdocs: hands our modules to mkdocstrings as a package that it can walk.

The folders of code have no `__init__.py` (docs/decisions/0001-package-layout.md), and mkdocstrings'
reader of sources skips folders without one below a package that has one. So it reads a copy in
build/, with empty ones added; nothing is imported.
"""

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPY = ROOT / "build" / "docs_package"


def on_startup(**_: object) -> None:
    """Write the copy before mkdocstrings looks for it."""
    shutil.rmtree(COPY, ignore_errors=True)
    package = COPY / "animaray"
    for path in sorted((ROOT / "animaray").rglob("*.py")):
        _copy(path, package / path.relative_to(ROOT / "animaray"))
    for folder in sorted((ROOT / "animaray").iterdir()):
        for path in sorted(folder.rglob("*.py")) if folder.is_dir() else ():
            _copy(path, package / folder.name / path.relative_to(folder))
    for folder in (COPY / "animaray").rglob("*"):
        if folder.is_dir():
            (folder / "__init__.py").touch()


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
