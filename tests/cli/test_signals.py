"""Ctrl-C and SIGTERM end every command with its line and exit code, with Ray or without.

Starts a Ray session of its own, so it runs in the process of the local_ray tests.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests' own starter may ignore it
from animaray.cli import main

@main.app.command("hold")
def hold(with_ray: bool = False) -> None:
    from contextlib import nullcontext
    from animaray.platform.ray_session import ray_session

    with ray_session(num_cpus=1) if with_ray else nullcontext():
        try:
            print("up", flush=True)
            time.sleep(600)
        finally:
            print("cleaned up", flush=True)

main.main()
"""


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("number", "with_ray", "code", "line"),
    [
        (signal.SIGINT, False, 130, "animaray: Stopped. The same command goes on from here."),
        (signal.SIGTERM, False, 143, "animaray: Terminated. The same command goes on from here."),
        pytest.param(
            signal.SIGTERM, True, 143, "animaray: Terminated. The same command goes on from here.",
            marks=pytest.mark.ray,
        ),
    ],
)  # fmt: skip
def test_signal_ends_with_its_line_and_exit_code(
    number: signal.Signals, with_ray: bool, code: int, line: str, tmp_path: Path
) -> None:
    arguments = ["hold", *(["--with-ray"] if with_ray else [])]
    program = subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", PROGRAM, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        start_new_session=True, env={**os.environ, "RAY_ADDRESS": ""},
    )  # fmt: skip
    assert program.stdout is not None
    assert program.stdout.readline() == "up\n"
    program.send_signal(number)
    out, err = program.communicate(timeout=120)
    assert (program.returncode, out) == (code, "cleaned up\n")
    assert err.splitlines() == [line]
