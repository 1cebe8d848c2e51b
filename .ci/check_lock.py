"""Check requirements.lock: it is what `make lock` writes, and doctor is content with every extra.

`make lock-check` runs it. Each extra is resolved as `make setup` would install it, for each Python
that animaray promises and from wheels alone; nothing is installed.
"""

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from animaray.platform.packages import Installation, inspect_packages

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
PYTHONS = ("3.11", "3.12", "3.13")
PLATFORM = "x86_64-manylinux_2_28"
NO_WHEELS = ("deepspeed", "animaray")
"""Pure Python, built where they are installed."""


def main() -> None:
    """Check, and end with a message and status 1 at the first fault."""
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "requirements.lock"
        written.write_bytes(LOCK.read_bytes())  # what is still allowed stays
        _run("make", "--silent", "lock", f"LOCK={written}")
        if written.read_bytes() != LOCK.read_bytes():
            sys.exit("requirements.lock does not fit pyproject.toml: run `make lock`, commit it.")
    accelerators = [["cpu"], ["gpu"]]
    others = sorted(set(EXTRAS) - {"cpu", "gpu"})
    for python in PYTHONS:
        for extras in ([*each, *others] for each in accelerators):
            check_extras(python, extras)


def check_extras(python: str, extras: list[str]) -> None:
    """Resolve some extras for a Python, and ask doctor about the result."""
    installed = resolve(python, extras)
    findings = inspect_packages(
        [
            *PROJECT["dependencies"],
            *(f'{each} ; extra == "{extra}"' for extra in EXTRAS for each in EXTRAS[extra]),
        ],
        installed,
        Installation(checkout=ROOT, prefix=ROOT / ".venv"),
        has_gpu=False,
        has_runtime=any(name.startswith("onnxruntime") for name in installed),
    )
    wanted = {f"extra {extra}" for extra in extras}
    for finding in findings:
        if finding.state == "missing" or (finding.subject in wanted and finding.state != "ok"):
            sys.exit(f"Python {python}, {extras}: {finding.subject}: {finding.detail}")
        if finding.subject == "ONNX Runtime" and finding.state != "ok":
            sys.exit(f"Python {python}, {extras}: {finding.detail}")
    print(f"Python {python}, {', '.join(extras)}: {len(installed)} packages", flush=True)  # noqa: T201


def resolve(python: str, extras: list[str]) -> dict[str, str]:
    """Return name and version of all that an installation would bring."""
    with tempfile.TemporaryDirectory() as empty:
        answer = _run(
            "uv", "pip", "install", "--dry-run", "--target", empty,
            "--python-version", python, "--python-platform", PLATFORM,
            "--only-binary", ":all:", *(f"--no-binary={name}" for name in NO_WHEELS),
            "-c", str(LOCK), f"{ROOT}[{','.join(extras)}]",
        )  # fmt: skip
    return dict(re.findall(r"^ \+ ([^=\s]+)==(\S+)$", answer, re.MULTILINE))


def _run(*command: str) -> str:
    environment = {**os.environ, "UV_FIND_LINKS": ""}  # the index, not this machine's wheels
    done = subprocess.run(  # noqa: S603 - our own commands
        command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment
    )
    if done.returncode != 0:
        sys.exit(f"{' '.join(command[:3])} failed:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


if __name__ == "__main__":
    main()
