"""A full disk, a read-only one, and everything that says so in words of its own."""

import errno
import os
import resource
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError

from animaray.cli import cache, main
from animaray.pipelines.curation.config import CurationConfig
from animaray.pipelines.curation.guard import guarded, run_family
from animaray.pipelines.curation.rows import new_row
from animaray.pipelines.curation.workplace import Workplace
from animaray.platform.disk import check_folder, check_room, disk_error, disk_errors, free_bytes
from animaray.platform.errors import DiskError, MediaError, UsageError
from animaray.platform.media.picture import write_png
from animaray.platform.media.video import write_mp4
from animaray.platform.storage import write_bytes_atomic
from animaray.platform.weights.store import resolve_weights
from benchmarks.scale.score_tables import ScoreTables, write_score_dataset

WRITE_BEYOND_LIMIT = """
import resource, sys
from pathlib import Path
from animaray.platform.errors import DiskError
from animaray.platform.storage import write_bytes_atomic

resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_bytes_atomic(Path(sys.argv[1]) / "result", bytes(8192))
except DiskError as error:
    print(error)
"""


def no_space(name: str | None = None) -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)


def test_a_write_that_the_disk_refuses_names_the_folder_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk on machines without root."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 0
    command = [sys.executable, "-c", WRITE_BEYOND_LIMIT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    assert f"no room left on the disk of {tmp_path}" in done.stdout
    assert "the same command goes on" in done.stdout
    assert "AR-DSK-01" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_full_file_system_keeps_what_was_there(tiny_disk: Path) -> None:
    write_bytes_atomic(tiny_disk / "result", b"before")
    (tiny_disk / "ballast").write_bytes(bytes(free_bytes(tiny_disk)))
    with pytest.raises(DiskError, match="no room left"):
        write_bytes_atomic(tiny_disk / "result", b"after" * 4096)
    assert (tiny_disk / "result").read_bytes() == b"before"
    assert {path.name for path in tiny_disk.iterdir()} == {"result", "ballast"}
    (tiny_disk / "ballast").unlink()
    write_bytes_atomic(tiny_disk / "result", b"after")


def test_room_is_looked_at_before_the_work(tmp_path: Path) -> None:
    check_room(tmp_path / "not" / "yet", 10, "The result")
    needed = free_bytes(tmp_path) + 10**12
    with pytest.raises(DiskError) as caught:
        check_room(tmp_path / "not" / "yet", needed, "The result")
    for part in ("The result", f"{needed:,} bytes", str(tmp_path / "not" / "yet"), "free"):
        assert part in caught.value.message
    assert caught.value.exit_code == 4
    assert not (tmp_path / "not").exists()


def test_a_folder_that_cannot_be_written_is_refused(
    tmp_path: Path, tiny_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match=f"{tmp_path / 'file'} is a file"):
        check_folder(tmp_path / "file" / "below", "The result")
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)  # noqa: S603, S607
    with pytest.raises(DiskError, match=r"not writable \(Read-only file system\)"):
        check_folder(tiny_disk / "below", "The result")
    with pytest.raises(DiskError, match="Read-only file system"):
        write_bytes_atomic(tiny_disk / "result", b"")


@pytest.mark.parametrize(
    "error",
    [
        no_space(),
        OSError(errno.EDQUOT, "quota"),
        OSError(errno.EFBIG, "too large"),
        SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        ),
        sqlite3.OperationalError("database or disk is full"),
        ExceptionGroup("tasks", [ValueError("other"), no_space()]),
        DiskError("full", reason="disk_full"),
    ],
)
def test_every_word_for_a_full_disk_is_known(error: Exception, tmp_path: Path) -> None:
    wrapped = RuntimeError("engine")
    wrapped.__cause__ = error
    remote = RuntimeError("engine of another process")
    remote.cause = error
    for each in (error, wrapped, remote):
        found = disk_error(each, tmp_path)
        assert found is not None
        assert found.reason == "disk_full"


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
        PermissionError(errno.EACCES, "a socket"),
        FileNotFoundError(errno.ENOENT, "missing", "file"),
        MediaError("The file says: No space left on device"),
    ],
)
def test_other_errors_stay_what_they_are(error: Exception, tmp_path: Path) -> None:
    assert disk_error(error, tmp_path) is None
    with pytest.raises(type(error)), disk_errors(tmp_path):
        raise error


def test_the_last_border_says_machine_not_please_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail() -> None:
        raise no_space(str(tmp_path))

    monkeypatch.setattr(cache, "cache_folders", fail)
    assert main.run(["cache", "list"]) == 4
    said = capsys.readouterr().err
    assert f"no room left on the disk of {tmp_path}" in said
    assert "report" not in said

    def forbidden() -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/etc/shadow")

    monkeypatch.setattr(cache, "cache_folders", forbidden)
    assert main.run(["cache", "list"]) == 4
    assert "/etc/shadow cannot be used: Permission denied" in capsys.readouterr().err


def test_our_full_disk_is_no_fault_of_a_source() -> None:
    def fail(row: dict, _: object = None) -> dict:
        raise no_space("/staging/clip.mp4")

    place = Workplace(config=CurationConfig(sources=("x",)))

    for run in (
        lambda: guarded("cut")(fail)(new_row("a.mp4", ""), place),
        lambda: run_family("face", fail, new_row("a.mp4", ""), needs=(), provenance="x"),
    ):
        with pytest.raises(DiskError, match="no room left"):
            run()


@pytest.mark.parametrize(
    "command",
    [
        ["animate", "{picture}", "{video}", "--out", "{bad}/a.mp4"],
        ["curate", "{inputs}", "--out", "{bad}/dataset"],
        ["evaluate", "--data", "{inputs}", "--weights", "{weights}", "--out", "{bad}/tables"],
        ["curate", "report", "{inputs}", "--out", "{bad}/page.html"],
        ["demo", "--out", "{bad}/demo"],
    ],
)
def test_commands_look_at_their_folder_first(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = tmp_path / "in"
    write_score_dataset(inputs, ScoreTables(num_sources=1))
    frames_uint8 = np.full((4, 64, 64, 3), 90, dtype=np.uint8)
    write_mp4(inputs / "a.mp4", frames_uint8, 8.0)
    write_png(inputs / "a.png", frames_uint8[0])
    bad = tmp_path / "file"
    bad.touch()
    places = {
        "picture": inputs / "a.png",
        "video": inputs / "a.mp4",
        "inputs": inputs,
        "weights": resolve_weights("generated/animator"),
        "bad": bad,
    }
    code = main.run([part.format(**places) for part in command])
    said = capsys.readouterr().err
    # A folder that is missing is a wrong call to `animate`, which makes none.
    assert code == (2 if command[0] == "animate" else 4), said
    assert str(bad) in said
    assert "report it" not in said


@pytest.mark.parametrize("given", ["s3://bucket/out", "gs://bucket", "az://box/a/b"])
def test_an_address_is_refused_where_only_a_folder_will_do(given: str) -> None:
    with pytest.raises(UsageError, match=f"The run needs a local folder; {given} lies in"):
        check_folder(Path(given), "The run")
