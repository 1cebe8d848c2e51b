"""Compare what is installed with what animaray declares; each gap comes with its command."""

import datetime as dt
import importlib.metadata
import importlib.util
import json
import re
import shlex
import sys
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

NAME = "animaray"
SHOWN = ("torch", "ray", "deepspeed", "diffusers", "pyarrow", "av", "opencv-python-headless")
"""Required packages with a row of their own; the others share one while nothing is wrong."""
RUNTIMES = {"onnxruntime": "cpu", "onnxruntime-gpu": "gpu"}
"""ONNX Runtime's two builds, of which one has to be there, and the extra that brings it."""
EXTRAS_FOR = {
    "heif": "to read the HEIC photos of telephones",
    "paper": "to convert ArcFace's ONNX file, once",
    "postgres": "one job database for several serving machines",
    "transnet": "to find shots by a network, on GPUs",
}
"""What the optional extras are for."""
SAME_FILES = {"opencv-python": "opencv-python-headless"}
"""Packages that insist on one build of a module, and the build of it that does as well."""
COTRACKER = (
    "git+https://github.com/facebookresearch/co-tracker@82e02e8029753ad4ef13cf06be7f4fc5facdda4d"
)
OLD_YT_DLP_DAYS = 90
"""The downloader itself starts to warn at this age."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    state: Literal["ok", "missing", "optional"]
    detail: str
    fix: str | None = None
    """The command that closes the gap, or None."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Installation:
    """How animaray came here, and so which command changes its packages."""

    checkout: Path | None
    """The source folder whose `make setup` made this environment, or None."""
    prefix: Path
    """Folder of the Python environment."""
    has_pip: bool = True

    def setup(self, *, accel: str | None = None) -> str:
        """Return the command that sets the checkout's environment up again.

        Args:
            accel: cpu or gpu; None where it is the default.
        """
        venv = self.prefix if self.checkout and self.prefix != self.checkout / ".venv" else None
        words = ["make -B setup", f"ACCEL={accel}" if accel else "", f"VENV={venv}" if venv else ""]
        return " ".join(word for word in words if word)

    def install(self, *requirements: str) -> str:
        """Return the command that installs packages by name, whoever set this up."""
        return self._pip("install", *requirements)

    def uninstall(self, *names: str) -> str:
        """Return the command that removes packages."""
        return self._pip("uninstall", *(["-y"] if self.has_pip else []), *names)

    def _pip(self, verb: str, *words: str) -> str:
        python = str(self.prefix / "bin" / "python")
        tool = [python, "-m", "pip", verb] if self.has_pip else ["uv", "pip", verb, "-p", python]
        return shlex.join([*tool, *words])


def this_installation() -> Installation:
    """Return how this animaray was installed."""
    return Installation(
        checkout=_own_checkout(Path(sys.prefix)),
        prefix=Path(sys.prefix),
        has_pip=importlib.util.find_spec("pip") is not None,
    )


def _own_checkout(prefix: Path) -> Path | None:
    try:
        text = importlib.metadata.distribution(NAME).read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return None
    origin = json.loads(text or "{}")
    if not origin.get("dir_info", {}).get("editable"):
        return None
    folder = Path(urllib.parse.unquote(urllib.parse.urlsplit(origin["url"]).path))
    made_here = prefix.is_relative_to(folder) or any(prefix.glob(".installed-*"))
    return folder if made_here and (folder / "Makefile").is_file() else None


def installed_packages() -> dict[str, str]:
    """Return the version of every installed package by its canonical name."""
    found: dict[str, str] = {}
    for each in importlib.metadata.distributions():
        if each.name:  # the remains of a broken uninstall have none
            found.setdefault(canonicalize_name(each.name), each.version)
    return found


def inspect_packages(
    declared: Sequence[str],
    installed: Mapping[str, str],
    how: Installation,
    *,
    has_gpu: bool,
    has_runtime: bool,
) -> list[Finding]:
    """Return findings about every declared package.

    Args:
        declared: Requirements of animaray's metadata, extras with their marker.
        installed: Version by canonical name.
        how: Which command changes them.
        has_gpu: Whether an NVIDIA GPU is seen.
        has_runtime: Whether `import onnxruntime` finds code, of whatever build.
    """
    if not declared:
        detail = "runs from a folder that was not installed: its packages are not known"
        return [_finding(NAME, "missing", detail, "make setup, in the source folder")]
    required: list[Requirement] = []
    by_extra: dict[str, list[Requirement]] = {}
    for text in declared:
        requirement = Requirement(text)
        extra = _extra_of(requirement)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra or ""}):
            continue  # for another system
        if extra is not None:
            by_extra.setdefault(extra, []).append(requirement)
        else:
            required.append(requirement)
    findings = [*_required(required, installed, how)]
    build = OnnxRuntime(by_extra, installed, how, has_gpu=has_gpu, has_code=has_runtime)
    findings += build.findings()
    findings += [
        _extra(extra, requirements, installed, how)
        for extra, requirements in by_extra.items()
        if extra not in RUNTIMES.values()
    ]
    return [*findings, _cotracker(installed, how)]


def declared_packages() -> list[str]:
    """Return the requirements of the installed animaray; empty where it was not installed."""
    try:
        return importlib.metadata.requires(NAME) or []
    except importlib.metadata.PackageNotFoundError:
        return []


def _extra_of(requirement: Requirement) -> str | None:
    """Return the extra without which a requirement does not count, or None."""
    found = re.search(r'extra == "([^"]+)"', str(requirement.marker or ""))
    return found[1] if found else None


def _required(
    requirements: Sequence[Requirement], installed: Mapping[str, str], how: Installation
) -> list[Finding]:
    findings, unremarkable = [], 0
    for requirement in requirements:
        version = installed.get(canonicalize_name(requirement.name))
        gap = _gap(requirement, version)
        if gap is not None:
            fix = how.setup() if how.checkout else how.install(_plain(requirement))
            findings.append(_finding(requirement.name, "missing", gap, fix))
        elif canonicalize_name(requirement.name) == "yt-dlp":
            findings.append(_downloader(str(version), how))
        elif requirement.name in SHOWN:
            findings.append(_finding(requirement.name, "ok", str(version)))
        else:
            unremarkable += 1
    return [*findings, _finding("other packages", "ok", f"{unremarkable} as declared")]


def _downloader(version: str, how: Installation) -> Finding:
    """Tell the age of the downloader, whose version is the day of its release."""
    try:
        day = dt.date(*Version(version).release[:3])
    except (TypeError, ValueError):
        return _finding("yt-dlp", "ok", version)
    age = (dt.datetime.now(tz=dt.UTC).date() - day).days
    if age <= OLD_YT_DLP_DAYS:
        return _finding("yt-dlp", "ok", version)
    fix = how.install("--upgrade", "yt-dlp", "yt-dlp-ejs")
    return _finding("yt-dlp", "optional", f"{version}, {age} days old: sites break old ones", fix)


class OnnxRuntime:
    """Looks for exactly one build of ONNX Runtime: alternatives with one import name and folder."""

    def __init__(
        self,
        by_extra: Mapping[str, Sequence[Requirement]],
        installed: Mapping[str, str],
        how: Installation,
        *,
        has_gpu: bool,
        has_code: bool,
    ) -> None:
        self._wanted = {
            requirement.name: requirement
            for extra in RUNTIMES.values()
            for requirement in by_extra.get(extra, ())
            if requirement.name in RUNTIMES
        }
        self._found = {name: installed[name] for name in installed if name.startswith("onnxrun")}
        self._how = how
        self._has_gpu = has_gpu
        self._has_code = has_code

    def findings(self) -> list[Finding]:
        """Return what is wrong, or which build is there."""
        known = [name for name in RUNTIMES if name in self._found]
        if self._found and not self._has_code:
            detail = f"{_listed(self._found)} without its files: another build was removed"
            again = self._command(known[0]) if len(known) == 1 else self._best()
            return [self._finding("missing", detail, self._replacing(again))]
        if len(known) > 1:
            detail = f"two builds in one folder ({_listed(self._found)}): the later one is used"
            return [self._finding("optional", detail, self._replacing(self._best()))]
        if not self._has_code:
            return [self._finding("missing", "not installed", self._best())]
        if not known:
            return [self._finding("ok", _listed(self._found) or "a build without a package")]
        name, version = known[0], self._found[known[0]]
        gap = _gap(self._wanted[name], version) if name in self._wanted else None
        if gap is not None:
            return [self._finding("missing", f"{name} {gap}", self._command(name))]
        findings = [self._finding("ok", f"{name} {version}")]
        if self._has_gpu and name == "onnxruntime":
            detail = "the installed build uses the CPU only"
            fix = self._best() if self._how.checkout else self._replacing(self._best())
            findings.append(_finding("onnxruntime-gpu", "optional", detail, fix))
        return findings

    def _command(self, name: str) -> str:
        """Return what brings a build: the set-up with its extra, or the package itself."""
        if self._how.checkout:
            return self._how.setup(accel=RUNTIMES[name])
        return self._how.install(_plain(self._wanted[name]) if name in self._wanted else name)

    def _best(self) -> str:
        """Return what brings the build for this machine; both where that is for the user to say."""
        cpu, gpu = (self._command(name) for name in RUNTIMES)
        return gpu if self._has_gpu else f"{cpu} (for an NVIDIA GPU: {gpu})"

    def _replacing(self, command: str) -> str:
        return f"{self._how.uninstall(*self._found)} && {command}"

    def _finding(
        self, state: Literal["ok", "missing", "optional"], detail: str, fix: str | None = None
    ) -> Finding:
        return _finding("ONNX Runtime", state, detail, fix)


def has_module(name: str) -> bool:
    """Return whether a package has code to import, without importing it."""
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None


def _extra(
    extra: str,
    requirements: Sequence[Requirement],
    installed: Mapping[str, str],
    how: Installation,
) -> Finding:
    gaps = {
        requirement: gap
        for requirement in requirements
        if (gap := _gap(requirement, installed.get(_bringer(requirement, installed))))
    }
    subject, purpose = f"extra {extra}", EXTRAS_FOR.get(extra)
    if not gaps:
        bringers = [_bringer(each, installed) for each in requirements]
        return _finding(subject, "ok", _listed({name: installed[name] for name in bringers}))
    detail = ", ".join(f"{requirement.name} {gap}" for requirement, gap in gaps.items())
    fix = how.install(*(_plain(requirement) for requirement in gaps))
    return _finding(subject, "optional", detail, f"{fix} ({purpose})" if purpose else fix)


def _bringer(requirement: Requirement, installed: Mapping[str, str]) -> str:
    """Return the package that answers a requirement: itself, or another build of its files."""
    name = canonicalize_name(requirement.name)
    other = SAME_FILES.get(name)
    return other if other is not None and name not in installed and other in installed else name


def _cotracker(installed: Mapping[str, str], how: Installation) -> Finding:
    if "cotracker" in installed:
        return _finding("cotracker", "ok", installed["cotracker"])
    fix = f"{how.install(COTRACKER)} (CC-BY-NC, for the paper profile)"
    return _finding("cotracker", "optional", "not installed", fix)


def _gap(requirement: Requirement, version: str | None) -> str | None:
    """Return what is wrong with a package, or None."""
    if version is None:
        return "not installed"
    if not requirement.specifier.contains(version, prereleases=True):
        return f"{version} is installed, {requirement.specifier} is needed"
    return None


def _plain(requirement: Requirement) -> str:
    """Return a requirement as one types it: without its marker."""
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{extras}{requirement.specifier}"


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _finding(
    subject: str, state: Literal["ok", "missing", "optional"], detail: str, fix: str | None = None
) -> Finding:
    return Finding(subject=subject, state=state, detail=detail, fix=fix)
