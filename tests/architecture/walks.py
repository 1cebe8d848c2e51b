"""The walks that docs/architecture.md gives of commands, and whether the code goes the same way."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STEP = re.compile(r"^( *)\d+\. `([\w/]+\.py): ([\w.]+)`", re.MULTILINE)
Definition = ast.FunctionDef | ast.ClassDef


def walk_of(command: str) -> list[tuple[int, str, str]]:
    """Return depth, file and name of each step of a command."""
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    section = page.split(f"## What happens in `animaray {command}`")[1].split("\n## ")[0]
    return [(len(indent) // 4, file, name) for indent, file, name in STEP.findall(section)]


@cache
def definitions(file: str) -> dict[str, Definition]:
    """Return functions and classes of a file, methods by `Class.method`."""
    found: dict[str, Definition] = {}
    for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body:
        if isinstance(node, Definition):
            found[node.name] = node
            if isinstance(node, ast.ClassDef):
                methods = (each for each in node.body if isinstance(each, ast.FunctionDef))
                found |= {f"{node.name}.{method.name}": method for method in methods}
    return found


def names_in(node: Definition) -> set[str]:
    """Return what is called or passed on inside a definition, imports under their own names."""
    found = set()
    for each in ast.walk(node):
        if isinstance(each, ast.Name):
            found.add(each.id)
        elif isinstance(each, ast.Attribute):
            found.add(each.attr)
        elif isinstance(each, ast.ImportFrom):
            found |= {alias.name for alias in each.names}
    return found


def reach(file: str, name: str, wanted: str, seen: frozenset[str] = frozenset()) -> bool:
    """Return whether a definition names another, itself or through others of its file or class."""
    named = names_in(definitions(file)[name])
    if wanted in named:
        return True
    owner = name.split(".")[0]
    further = {each for each in definitions(file) if each in named or each in
               {f"{owner}.{method}" for method in named}} - seen - {name}  # fmt: skip
    return any(reach(file, each, wanted, seen | further | {name}) for each in further)


def check_steps(steps: list[tuple[int, str, str]]) -> None:
    """Refuse a walk in which a step is not called by the one above it."""
    above: list[tuple[str, str]] = []
    for depth, file, name in steps:
        assert name in definitions(file), f"{file} has no {name}"
        del above[depth:]
        assert len(above) == depth
        if above:
            called = name.split(".")[-1]
            assert reach(*above[-1], called), f"{above[-1]} does not call {name}"
        above.append((file, name))
