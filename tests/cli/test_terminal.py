"""Commands on a terminal end, whatever programs on PATH do with it; Ctrl-C leaves nothing."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from animaray.platform.media.video import write_mp4
from tests.cli.pseudo_terminal import run_on_terminal

ANIMARAY = [sys.executable, "-m", "animaray.cli.main"]
READ_IN_BACKGROUND = """
import os, subprocess, sys
from animaray.platform.terminal import leave_terminal
child = os.fork()
if child == 0:
    os.setpgid(0, 0)
    leave_terminal()
    read = subprocess.run(["sh", "-c", "read -r line < /dev/tty"], stderr=subprocess.DEVNULL)
    print("empty" if os.read(0, 1) == b"" else "input", read.returncode > 0, flush=True)
    os._exit(0)
_, status = os.waitpid(child, os.WUNTRACED)
sys.exit(1 if os.WIFSTOPPED(status) else 0)
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return an environment whose ffmpeg waits for a line typed on the terminal."""
    tools = tmp_path / "tools"
    tools.mkdir()
    ffmpeg = tools / "ffmpeg"
    ffmpeg.write_text("#!/bin/sh\nread -r line < /dev/tty || exit 1\n")
    ffmpeg.chmod(0o755)
    return {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "TERM": "xterm"}


def write_video(folder: Path) -> Path:
    folder.mkdir(parents=True)
    write_mp4(folder / "a.mp4", np.full((24, 96, 96, 3), 90, dtype=np.uint8), 12.0)
    return folder


def test_the_fake_ffmpeg_waits_for_the_terminal(environment: dict[str, str]) -> None:
    run = run_on_terminal(["ffmpeg", "-v", "quiet"], environment=environment, timeout_s=0.5)
    assert run.exit_code is None


def test_a_background_process_that_left_the_terminal_is_not_stopped_by_it(
    environment: dict[str, str],
) -> None:
    command = [sys.executable, "-c", READ_IN_BACKGROUND]
    run = run_on_terminal(command, environment=environment, timeout_s=20)
    assert (run.exit_code, run.text.strip()) == (0, "empty True")


def test_leaving_without_a_terminal_changes_nothing() -> None:
    code = "from animaray.platform.terminal import *; leave_terminal(); leave_terminal()"
    subprocess.run([sys.executable, "-c", code], check=True, start_new_session=True)  # noqa: S603


def test_curate_ends_where_ffmpeg_reads_the_terminal(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    videos, out = write_video(tmp_path / "videos"), tmp_path / "dataset"
    run = run_on_terminal(
        [
            *ANIMARAY,
            "curate",
            str(videos),
            "--out",
            str(out),
            "--profile",
            "generated",
            "--set",
            "in_process_s=0",
        ],
        environment=environment,
        timeout_s=240,
    )
    assert run.exit_code == 0, run.text
    assert any("raylet" in name for name, _ in run.children.values())
    assert [child for child in run.children.values() if child[1] is not None] == []
    assert run.left_over() == []


def test_ctrl_c_in_the_demo_ends_it_with_130_and_leaves_no_process(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    out = tmp_path / "demo"
    write_video(out / "videos")
    (out / "videos" / ".complete").touch()  # as if the first step had been done
    run = run_on_terminal(
        [*ANIMARAY, "demo", "--out", str(out)],
        environment=environment,
        timeout_s=240,
        interrupt_when=lambda text: "measure clips" in text,  # in the middle of curate
    )
    assert run.exit_code == 130, run.text
    assert "The same command goes on from here." in run.text
    assert run.left_over() == []
