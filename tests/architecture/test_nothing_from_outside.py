"""Importing animaray opens no connection and runs no program; no child gets the user's terminal;
no file of ours unpickles or names xformers.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (
    "platform", "models", "datasets", "pipelines", "training", "serving", "evaluation", "cli",
)  # fmt: skip
UNPICKLERS = {
    "pickle": {"load", "loads", "Unpickler"},
    "_pickle": {"load", "loads", "Unpickler"},
    "cPickle": {"load", "loads", "Unpickler"},
    "cloudpickle": {"load", "loads"},
    "dill": {"load", "loads", "Unpickler"},
    "joblib": {"load"},
    "marshal": {"load", "loads"},
    "shelve": {"open"},
}
"""Functions that run what a file says."""
ALLOWED: dict[str, int] = {}
"""How many calls a file may have, and why."""

IMPORT_ALL = """
import importlib, ipaddress, socket, sys

def is_here(address):
    return not isinstance(address, tuple) or ipaddress.ip_address(address[0]).is_loopback

def refuse(what):
    def refused(*arguments, **options):
        raise AssertionError(f"import opened the network: {what} {arguments[-1:]}")
    return refused

class Closed(socket.socket):
    connect = refuse("connect")
    connect_ex = refuse("connect_ex")
    sendto = refuse("sendto")

def no_program(event, arguments):
    if event in {"subprocess.Popen", "os.system", "os.posix_spawn", "os.exec"}:
        raise AssertionError(f"import runs a program: {arguments[:2]}")

sys.addaudithook(no_program)
socket.socket = Closed
socket.create_connection = refuse("create_connection")
for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
    setattr(socket, name, refuse(name))
try:
    socket.socket().connect(("127.0.0.1", 9))
except AssertionError:
    pass
else:
    sys.exit("the guard does not work")

for name in sys.argv[1:]:
    importlib.import_module(name)
print(len(sys.argv) - 1, "imported")
"""


def _files() -> list[Path]:
    return [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def _module(path: Path) -> str:
    return ".".join(("animaray", *path.relative_to(ROOT).with_suffix("").parts))


def test_every_module_imports_without_the_network_or_a_program() -> None:
    modules = [_module(path) for path in _files()]
    assert len(modules) > 150
    environment = os.environ | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    answer = subprocess.run(  # noqa: S603 - our own fixed code
        [sys.executable, "-W", "ignore", "-c", IMPORT_ALL, *modules],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=environment,
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
    assert answer.stdout.splitlines()[-1] == f"{len(modules)} imported"


CHILD_STARTS = {
    *(f"subprocess.{name}" for name in ("run", "call", "check_call", "check_output", "Popen")),
    "asyncio.create_subprocess_exec", "asyncio.create_subprocess_shell",
}  # fmt: skip


@pytest.mark.parametrize("path", _files(), ids=_module)
def test_no_child_process_gets_the_terminal(path: Path) -> None:
    # A child that reads the terminal takes what the user types, or is stopped for it.
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in CHILD_STARTS:
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            where = f"line {node.lineno}: {ast.unparse(node.func)}"
            has_input = "input" in options or options.get("stdin", "").split(".")[-1] in {
                "DEVNULL", "PIPE",
            }  # fmt: skip
            assert has_input, f"{where} shares our standard input"
            assert options.get("start_new_session") == "True", f"{where} keeps our terminal"


def unsafe_calls(source: str) -> list[str]:
    """Return what in a file could unpickle: torch.load without weights_only, pickle.load, ..."""
    tree = ast.parse(source)
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {each.asname or each.name: each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            call = _dotted(node.func, names)
            module, _, function = call.rpartition(".")
            if function in UNPICKLERS.get(module, set()):
                found.append(f"line {node.lineno}: {call}")
            if call == "torch.load" and not _says(node, "weights_only", value=True):
                found.append(f"line {node.lineno}: torch.load without weights_only=True")
            if call == "numpy.load" and _says(node, "allow_pickle", value=True):
                found.append(f"line {node.lineno}: numpy.load with allow_pickle")
            if _says(node, "trust_remote_code", value=True):
                found.append(f"line {node.lineno}: {call} with trust_remote_code")
    return found


def _dotted(node: ast.expr, names: dict[str, str]) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, names)}.{node.attr}"
    return names.get(node.id, node.id) if isinstance(node, ast.Name) else ""


def _says(call: ast.Call, keyword: str, *, value: bool) -> bool:
    return any(
        each.arg == keyword and isinstance(each.value, ast.Constant) and each.value.value is value
        for each in call.keywords
    )


def test_nothing_is_unpickled() -> None:
    found = {
        str(path.relative_to(ROOT)): calls
        for path in _files()
        if (calls := unsafe_calls(path.read_text(encoding="utf-8")))
    }
    assert {name: len(calls) for name, calls in found.items()} == ALLOWED, found


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.load('x')",
        "import torch\ntorch.load('x', weights_only=False)",
        "import torch\nflag = True\ntorch.load('x', weights_only=flag)",
        "from torch import load\nload('x')",
        "import pickle as p\np.load(f)",
        "from pickle import loads as read\nread(b)",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "AutoModel.from_pretrained('x', trust_remote_code=True)",
    ],
)
def test_the_scan_sees_each_way_to_unpickle(source: str) -> None:
    assert len(unsafe_calls(source)) == 1


def test_the_scan_lets_safe_reading_pass() -> None:
    source = "import torch, json\ntorch.load('x', weights_only=True)\njson.load(f)"
    assert unsafe_calls(source) == []


def test_no_file_names_xformers() -> None:
    for path in _files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [each.name for each in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not any(name.split(".")[0] == "xformers" for name in names), path
