"""The wheel holds what users reach: no module and no function that only tests or benchmarks use.

Users come by a command, by a name of `import animaray`, by a page, or through the server.
"""

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path

import animaray

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (
    "platform", "models", "datasets", "pipelines", "training", "serving", "evaluation", "cli",
)  # fmt: skip
ENTRIES = {"animaray.cli.main", "animaray.serving.application"}
FOR_OTHERS = {
    "check_health": "Ray Serve calls it",
    "estimate_inmemory_data_size": "Ray Data calls it",
    "get_read_tasks": "Ray Data calls it",
    "supports_distributed_reads": "Ray Data calls it",
    "process_bind_param": "SQLAlchemy calls it",
    "process_result_value": "SQLAlchemy calls it",
    "readinto": "io.BufferedReader calls it",
    "seekable": "io.BufferedReader calls it",
    "windowed": "asked for by name: not every codec has it (decoding/windowed_decoding.py)",
    "decoder_peak_memory_bytes": "what the fault rigs measure inside the sandbox's owner",
    "probe_video": "what decode_video of your own footage tells, without a child process",
    "render_still": "the world's third form, beside clips; training pictures of the small networks",
    "write_measured": "writes what `animaray estimate --measured` reads; GPU benchmark",
    "write_own_weights": "writes what weights/own.py reads; rehearsal kit",
}
"""Names that nothing of ours calls, and why they stay."""


@cache
def modules() -> dict[str, Path]:
    """Return the package's modules by name."""
    ours = {
        "animaray." + ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
    }
    return {"animaray": ROOT / "animaray/__init__.py", **ours}


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def imported_by(path: Path) -> set[str]:
    """Return what a file imports, and the modules that its strings name: workers start so."""
    names: set[str] = set()
    docstrings = {node.value for node in nodes(path) if isinstance(node, ast.Expr)}
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names |= set() if node in docstrings else set(re.findall(MODULE, node.value))
    return names


MODULE = r"\banimaray(?:\.\w+)+"


def named_in_pages() -> set[str]:
    """Return modules, and names inside of them, that pages import or show the reference of."""
    pages = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("**/*.md"))
    lines = re.findall(rf"^(?:from|import|:::) +({MODULE}.*)$", pages, re.MULTILINE)
    full = {module for line in lines for module in re.findall(MODULE, line)}
    return full | {name.rpartition(".")[0] for name in full}


def public_homes() -> set[str]:
    """Return the modules whose names `import animaray` gives out."""
    return {f"animaray.{home.partition(':')[0]}" for home in animaray._HOMES.values()}


def reached(entries: set[str]) -> set[str]:
    """Return the modules that a walk along imports finds."""
    found, ahead = set[str](), list(entries)
    while ahead:
        name = ahead.pop()
        if name in modules() and name not in found:
            found.add(name)
            ahead += imported_by(modules()[name])
    return found


def words(path: Path) -> Counter[str]:
    """Count the names that a file uses; a definition and an import alone use none."""
    used: Counter[str] = Counter()
    for node in nodes(path):
        if isinstance(node, ast.Name):
            used[node.id] += 1
        elif isinstance(node, ast.Attribute):
            used[node.attr] += 1
        elif isinstance(node, ast.ImportFrom):
            used.update(alias.name for alias in node.names if alias.asname)
    return used


def defined(path: Path) -> set[str]:
    """Return functions, classes and methods that no decorator hands to a framework."""
    return {
        node.name
        for node in nodes(path)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("__")
        and all(ast.unparse(each) in OWN_DECORATORS for each in node.decorator_list)
    }


OWN_DECORATORS = {"property", "cached_property", "staticmethod", "classmethod", "cache", "overload"}


def reached_by_users() -> set[str]:
    """Return the modules that commands, `import animaray`, pages and the server lead to."""
    return reached({"animaray"} | ENTRIES | public_homes() | named_in_pages())


def test_no_module_is_an_orphan() -> None:
    orphans = set(modules()) - reached_by_users()
    assert not orphans, "move them to benchmarks/ or tests/, or delete them"


def test_the_walk_sees_orphans() -> None:
    # From the command line alone, what only programs of users import is not reached.
    found = reached({"animaray.cli.main"})
    assert "animaray.models.interop.attach" not in found
    assert "animaray.pipelines.curate" in found


def test_nothing_is_called_by_tests_and_benchmarks_alone() -> None:
    used = sum((words(path) for path in modules().values()), Counter())
    shown = {name.rpartition(".")[2] for name in named_in_pages()} | set(animaray.__all__)
    alone = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in modules().values()
        for name in defined(path)
        if not used[name] and name not in shown and name not in FOR_OTHERS
    }
    assert not alone, "delete them with their tests, or move them to who calls them"
