"""Build sdist and wheel, install the wheel alone, and use it as a stranger would, elsewhere.

`make wheel-check` runs it. In the source tree everything is found; only an installed wheel shows
what is missing from it: a data file, a declared package, something that lies in the checkout alone.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tests.architecture.test_reachable import reached_by_users

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = sorted(link.name for link in (ROOT / "animaray").iterdir() if link.is_symlink())
INPUTS = """
import sys
from pathlib import Path

import cv2

import animaray
from animaray.datasets.world.clips import render_clip, sample_clip_spec
from animaray.platform.media.video import write_mp4

assert Path(animaray.__file__).is_relative_to(sys.prefix), animaray.__file__
clip = render_clip(sample_clip_spec(3, framing="full", num_frames=4, size=(192, 192)))
write_mp4(Path("drive.mp4"), clip.frames_uint8, 8.0)
cv2.imwrite("me.png", clip.frames_uint8[0][:, :, ::-1])
"""
MYPY = """[mypy]
strict = true
[mypy-torch.*,transformers.*,diffusers.*,ray.*,deepspeed.*,scipy.*,skimage.*,matplotlib.*,pyarrow.*]
follow_imports = skip
[mypy-cv2.*,av.*,pandas.*,onnx.*,onnxruntime.*,fastapi.*,httpx.*,sympy.*]
follow_imports = skip
"""
"""Ours only: to follow all that it imports takes mypy minutes."""
WRONG = """import animaray

n: int = animaray.Client().submit("a", "b")  # type: ignore[assignment]
"""
"""Were the names of type Any, mypy would refuse the needless ignore."""


def main() -> None:
    """Check, and end with a message and status 1 at the first fault."""
    with tempfile.TemporaryDirectory(prefix="animaray-wheel-") as text:
        folder = Path(text)
        # Without a target uv builds the wheel from the sdist, not from the checkout.
        run("uv", "build", "--quiet", "--out-dir", str(folder / "dist"), cwd=ROOT)
        [wheel] = (folder / "dist").glob("*.whl")
        check_contents(wheel)
        run("uv", "venv", "--quiet", "--python", sys.executable, str(folder / "venv"), cwd=folder)
        python = folder / "venv/bin/python"
        run(
            "uv", "pip", "install", "--quiet", "--python", str(python),
            "-c", str(ROOT / "requirements.lock"), f"{wheel}[cpu]", cwd=folder,
        )  # fmt: skip
        elsewhere = folder / "elsewhere"
        elsewhere.mkdir()
        animaray = str(folder / "venv/bin/animaray")
        run(animaray, "doctor", cwd=elsewhere)
        run(str(python), "-c", INPUTS, cwd=elsewhere)
        run(
            animaray, "animate", "me.png", "drive.mp4", "--out", "result.mp4",
            "--profile", "generated", "--steps", "1", "--face-optimization", "off", cwd=elsewhere,
        )  # fmt: skip
        check_types(python, elsewhere)
        size = (elsewhere / "result.mp4").stat().st_size
        print(f"{wheel.name}: installed alone, doctor and animate pass ({size} bytes)", flush=True)  # noqa: T201


def check_types(python: Path, folder: Path) -> None:
    """Check the examples of docs/python.md with mypy against the installed package alone."""
    (folder / "mypy.ini").write_text(MYPY, encoding="utf-8")
    text = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    names = ["wrong.py"]
    (folder / names[0]).write_text(WRONG, encoding="utf-8")
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL)):
        names.append(f"example_{number}.py")
        (folder / names[-1]).write_text(block, encoding="utf-8")
    run(sys.executable, "-m", "mypy", "--python-executable", str(python), *names, cwd=folder)


def check_contents(wheel: Path) -> None:
    """Compare the wheel with what git tracks of the package, and with what users reach.

    So no test, no benchmark and no trainer of the bundled weights is in it.
    """
    git = ["git", "ls-files", "-z", "--", "animaray/*.py", "animaray/py.typed", *FOLDERS]
    tracked = set(filter(None, run(*git, cwd=ROOT).split("\0")))
    wanted = {name if name.startswith("animaray/") else f"animaray/{name}" for name in tracked}
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    if wanted != held:
        lacks, more = sorted(wanted - held), sorted(held - wanted)
        sys.exit(f"{wheel.name} lacks {lacks[:5]} and holds {more[:5]} too much.")
    modules = {
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in held
        if name.endswith(".py")
    }
    orphans = sorted(modules - reached_by_users())
    if orphans:
        sys.exit(f"{wheel.name} holds what no command, page or import of a user needs: {orphans}.")


def run(*command: str, cwd: Path) -> str:
    """Run a command away from this checkout's environment; return what it printed."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in {"VIRTUAL_ENV", "PYTHONPATH", "ANIMARAY_WEIGHTS"}
    }
    program = shutil.which(command[0]) or command[0]
    done = subprocess.run(  # noqa: S603 - our own commands
        [program, *command[1:]],
        capture_output=True, text=True, check=False, cwd=cwd, env=environment, timeout=900,
    )  # fmt: skip
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed in {cwd}:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
