"""What the doctor says of packages: every extra's real set passes, every gap names its command."""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from animaray.platform.packages import (
    Finding,
    Installation,
    inspect_packages,
    installed_packages,
)

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
DECLARED = [
    *PROJECT["dependencies"],
    *(f'{each} ; extra == "{extra}"' for extra, names in EXTRAS.items() for each in names),
]
PIN = re.compile(r"^([a-zA-Z0-9._-]+)==([^\s;]+)")
CHECKOUT = Installation(checkout=Path("/src/animaray"), prefix=Path("/src/animaray/.venv"))
WHEEL = Installation(checkout=None, prefix=Path("/opt/env"))


def pins(text: str) -> dict[str, str]:
    found = (PIN.match(line) for line in text.splitlines())
    return {canonicalize_name(pin[1]): pin[2] for pin in found if pin}


def locked(extras: Sequence[str]) -> dict[str, str]:
    """Return what is installed for some extras, by name: as declared, at the locked version."""
    lock = pins((ROOT / "requirements.lock").read_text(encoding="utf-8"))
    lock |= {"yt-dlp": "2999.1.1", "yt-dlp-ejs": "9.0"}
    names = [*PROJECT["dependencies"], *(each for extra in extras for each in EXTRAS[extra])]
    names = [canonicalize_name(Requirement(each).name) for each in names]
    return {name: lock[name] for name in names}


def gaps(
    installed: dict[str, str],
    how: Installation = CHECKOUT,
    *,
    has_gpu: bool = False,
    has_runtime: bool | None = None,
) -> list[Finding]:
    if has_runtime is None:
        has_runtime = any(name.startswith("onnxruntime") for name in installed)
    findings = inspect_packages(DECLARED, installed, how, has_gpu=has_gpu, has_runtime=has_runtime)
    assert all(finding.fix for finding in findings if finding.state != "ok")
    return [finding for finding in findings if finding.state != "ok"]


def missing(findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.state == "missing"]


@pytest.mark.parametrize("accel", ["cpu", "gpu"])
@pytest.mark.parametrize("more", [None, *sorted(set(EXTRAS) - {"cpu", "gpu"})])
def test_nothing_is_missing_from_the_packages_of_an_extra(accel: str, more: str | None) -> None:
    extras = [accel, more] if more else [accel]
    found = gaps(locked(extras))
    assert not missing(found)
    assert f"extra {more}" not in {finding.subject for finding in found}


def test_the_headless_opencv_answers_for_the_one_that_insightface_names() -> None:
    installed = locked(["cpu", "insightface"])
    opencv = installed.pop("opencv-python")
    assert "extra insightface" not in {finding.subject for finding in gaps(installed)}
    newer = {**installed, "opencv-python": "5.1", "opencv-python-headless": opencv}
    [finding] = [each for each in gaps(newer) if each.subject == "extra insightface"]
    assert "5.1 is installed" in finding.detail  # where both are, it is the files of that one


def test_an_extra_that_is_not_installed_is_optional_and_named() -> None:
    found = {finding.subject: finding for finding in gaps(locked(["cpu"]), WHEEL)}
    assert found["extra postgres"].state == "optional"
    assert "'psycopg[binary]>=3.2'" in str(found["extra postgres"].fix)


def test_without_either_runtime_both_commands_are_named() -> None:
    [finding] = missing(gaps(locked([])))
    assert finding.subject == "ONNX Runtime"
    assert finding.fix == ("make -B setup ACCEL=cpu (for an NVIDIA GPU: make -B setup ACCEL=gpu)")
    [finding] = missing(gaps(locked([]), WHEEL, has_gpu=True))
    assert finding.fix == "/opt/env/bin/python -m pip install 'onnxruntime-gpu>=1.22'"


def test_both_runtimes_are_told_and_both_are_removed_first() -> None:
    [finding] = [each for each in gaps(locked(["cpu", "gpu"])) if each.subject == "ONNX Runtime"]
    assert finding.state == "optional"
    assert "two builds in one folder" in finding.detail
    assert str(finding.fix).startswith(
        "/src/animaray/.venv/bin/python -m pip uninstall -y onnxruntime onnxruntime-gpu && make"
    )


def test_a_runtime_whose_files_went_with_the_other_build_is_missing() -> None:
    [finding] = missing(gaps(locked(["gpu"]), WHEEL, has_runtime=False))
    assert "without its files" in finding.detail
    assert str(finding.fix).endswith("install 'onnxruntime-gpu>=1.22'")


def test_a_runtime_for_another_accelerator_is_enough() -> None:
    assert not missing(gaps(locked([]) | {"onnxruntime-openvino": "1.24.1"}))


def test_a_gpu_beside_the_cpus_runtime_is_told() -> None:
    found = {finding.subject: finding for finding in gaps(locked(["cpu"]), has_gpu=True)}
    assert found["onnxruntime-gpu"].fix == "make -B setup ACCEL=gpu"


@pytest.mark.parametrize(
    ("how", "fix"),
    [
        (CHECKOUT, "make -B setup"),
        (WHEEL, "/opt/env/bin/python -m pip install 'ray[data,default,serve,train]<3,>=2.55'"),
        (
            Installation(checkout=Path("/src/a"), prefix=Path("/elsewhere")),
            "make -B setup VENV=/elsewhere",
        ),
        (
            Installation(checkout=None, prefix=Path("/opt/env"), has_pip=False),
            "uv pip install -p /opt/env/bin/python 'ray[data,default,serve,train]<3,>=2.55'",
        ),
    ],
)
def test_an_old_package_comes_with_the_command_of_this_installation(
    how: Installation, fix: str
) -> None:
    [finding] = missing(gaps(locked(["cpu"]) | {"ray": "2.40.0"}, how))
    assert finding.detail == "2.40.0 is installed, <3,>=2.55 is needed"
    assert finding.fix == fix


def test_an_old_downloader_is_told() -> None:
    found = {finding.subject: finding for finding in gaps(locked(["cpu"]) | {"yt-dlp": "2026.8.1"})}
    # 90 days after that, for ever
    assert "sites break old ones" in found["yt-dlp"].detail
    assert found["yt-dlp"].state == "optional"


def test_the_lock_pins_every_declared_package_but_the_downloader() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    lock = pins(text)
    for each in DECLARED:
        requirement = Requirement(each)
        name = canonicalize_name(requirement.name)
        if name.startswith("yt-dlp"):
            assert name not in lock
        else:
            assert requirement.specifier.contains(lock[name]), f"{each}: run `make lock`"
    assert "://" not in text
    assert "+cpu" not in text


def test_one_place_has_the_version() -> None:
    import animaray

    assert "version" not in PROJECT
    assert installed_packages()["animaray"] == animaray.__version__
