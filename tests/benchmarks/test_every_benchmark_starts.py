"""Every benchmark and fault rig can be imported, and ends at once where a command only asks."""

import importlib
import re
from pathlib import Path

import pytest

from benchmarks.rehearsal import kit

ROOT = Path(__file__).resolve().parents[2]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for folder in ("benchmarks", "tests/faults")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path.stem not in {"__init__", "__main__"}
]


@pytest.mark.parametrize("name", MODULES)
def test_benchmark_is_imported(name: str) -> None:
    module = importlib.import_module(name)
    source = Path(str(module.__file__)).read_text(encoding="utf-8")
    has_command = '__name__ == "__main__"' in source
    assert has_command == hasattr(module, "main")
    if has_command:
        assert f"python -m {name}" in str(module.__doc__)


def test_the_kit_says_what_it_wants(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["kit", "--help"])
    with pytest.raises(SystemExit, match="0"):
        kit.main()
    assert "--full" in capsys.readouterr().out


def test_nobody_edits_the_search_path() -> None:
    # `pythonpath` in pyproject.toml makes both importable; edits hide what lies where.
    paths = [path for folder in ("benchmarks", "tests") for path in (ROOT / folder).rglob("*.py")]
    edit = re.compile(r"^\s*sys\.path(\.|\[| *\+?=)", re.MULTILINE)
    assert [path for path in paths if edit.search(path.read_text(encoding="utf-8"))] == []
    assert edit.search("import sys\nsys.path.insert(0, '.')")
