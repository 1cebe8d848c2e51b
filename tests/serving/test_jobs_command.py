"""`animaray jobs` against a real server: ids on stdout, failures with the code `animate` gives."""

import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from animaray.cli.main import run
from animaray.platform.errors import AnimarayError, FaceError, MediaError, PersonChoiceError
from animaray.platform.media.picture import encode_jpeg
from animaray.platform.media.video import write_mp4
from animaray.serving.jobs.limits import ServingLimits
from animaray.serving.jobs.records import OUT_OF_MEMORY_CODE, FailureDocument
from animaray.serving.work.worker import describe_failure
from tests.serving.serving_parts import Server, run_app

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    limits = ServingLimits(max_queued_jobs=99, max_active_jobs_per_tenant=99)
    with run_app(tmp_path_factory.mktemp("jobs"), limits) as running:
        yield running


@pytest.fixture(autouse=True)
def _address(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANIMARAY_SERVER", server.url)


@pytest.fixture
def media(tmp_path: Path) -> list[str]:
    frames_uint8 = np.full((4, 64, 64, 3), 90, dtype=np.uint8)
    (tmp_path / "me.jpg").write_bytes(encode_jpeg(frames_uint8[0]))
    write_mp4(tmp_path / "dance.mp4", frames_uint8, 8.0)
    return [str(tmp_path / "me.jpg"), str(tmp_path / "dance.mp4")]


def submit(media: list[str], capsys: Capture) -> str:
    assert run(["jobs", "submit", *media]) == 0
    return capsys.readouterr().out.strip()


def fail(server: Server, failure: FailureDocument) -> None:
    deadline = time.monotonic() + 30
    while (lease := server.store.leases.claim("w", 10.0)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    server.store.leases.fail(lease, failure, may_retry=False)


def test_submit_prints_the_id_and_nothing_else_on_stdout(
    media: list[str], capsys: Capture, server: Server
) -> None:
    assert run(["jobs", "submit", *media]) == 0
    printed = capsys.readouterr()
    assert re.fullmatch(r"[0-9a-f]{32}\n", printed.out)
    assert f"animaray jobs watch {printed.out.strip()} --server {server.url}" in printed.err
    assert run(["jobs", "submit", *media, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["job"]["state"] == "queued"
    for job in server.store.list_jobs("public"):
        server.store.request_cancel(job.job_id, "public")


@pytest.mark.parametrize(
    "error",
    [
        FaceError("No face.", fix="Send another picture."),
        MediaError("The video is damaged."),
        PersonChoiceError("Two people.", fix="Choose one with `person`."),
    ],
)
@pytest.mark.parametrize("door", ["watch", "submit"])
def test_failed_job_ends_the_command_as_animate_would(
    error: AnimarayError, door: str, media: list[str], server: Server, capsys: Capture,
    tmp_path: Path,
) -> None:  # fmt: skip
    failure = describe_failure(error, "0" * 32)
    if door == "watch":
        job_id = submit(media, capsys)
        fail(server, failure)
        code = run(["jobs", "watch", job_id])
    else:
        worker = threading.Thread(target=fail, args=(server, failure))
        worker.start()
        code = run(["jobs", "submit", *media, "--out", str(tmp_path / "out.mp4")])
        worker.join()
        assert not (tmp_path / "out.mp4").exists()
    assert code == error.exit_code
    (line,) = [text for text in capsys.readouterr().err.splitlines() if "animaray: " in text]
    assert re.findall(r"AR-[A-Z]+-\d+", line) == [error.error_id]
    assert error.message in line
    assert (error.fix or "") in line


def test_failure_that_is_the_servers_own_is_a_failed_service(
    media: list[str], server: Server, capsys: Capture
) -> None:
    job_id = submit(media, capsys)
    fail(server, FailureDocument(code=OUT_OF_MEMORY_CODE, message="Too large."))
    assert run(["jobs", "watch", job_id]) == 6
    assert capsys.readouterr().err.rstrip().endswith("Too large. [AR-JOB-06]")


def test_cancelled_job_fails_the_watch(media: list[str], server: Server, capsys: Capture) -> None:
    job_id = submit(media, capsys)
    assert run(["jobs", "cancel", job_id]) == 0
    assert capsys.readouterr().err == f"Cancelled {job_id}.\n"
    assert run(["jobs", "watch", job_id]) == 5
    assert "was cancelled. [AR-JOB-02]" in capsys.readouterr().err
    job_id = submit(media, capsys)
    fail(server, FailureDocument(code="AR-FAC-01", message="No face."))
    assert run(["jobs", "cancel", job_id]) == 0
    assert "had failed before; nothing was cancelled" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "code", "error_id"),
    [
        (["--steps", "999"], 2, "AR-SRV-11"),  # the server takes 100
        (["--person", "middle"], 2, "AR-SRV-11"),
        ("swapped", 5, "AR-MED-01"),  # seen here already, before anything is sent
    ],
)
def test_refusal_of_the_server_has_one_code_and_the_local_exit_status(
    change: list[str] | str, code: int, error_id: str, media: list[str], capsys: Capture
) -> None:
    arguments = media[::-1] if isinstance(change, str) else [*media, *change]
    assert run(["jobs", "submit", *arguments]) == code
    assert re.findall(r"AR-[A-Z]+-\d+", capsys.readouterr().err) == [error_id]


def test_list_says_when_there_are_more(media: list[str], capsys: Capture, server: Server) -> None:
    ids = [submit(media, capsys) for _ in range(3)]
    server.store.request_cancel(ids[0], "public")
    assert run(["jobs", "list", "--limit", "2"]) == 0
    printed = capsys.readouterr()
    assert ids[2] in printed.out
    assert ids[0] not in printed.out
    assert "more than 2 jobs" in printed.err
    assert run(["jobs", "list", "--state", "cancelled", "--json"]) == 0
    assert ids[0] in capsys.readouterr().out
    assert run(["jobs", "list", "--state", "lost"]) == 2


def test_download_into_a_folder_is_a_usage_error(
    media: list[str], capsys: Capture, tmp_path: Path
) -> None:
    job_id = submit(media, capsys)
    assert run(["jobs", "download", job_id, "--out", str(tmp_path)]) == 2
    assert f"{job_id}.mp4" in capsys.readouterr().err


def test_proxy_of_the_environment_is_not_asked_for_this_machine(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert run(["jobs", "list"]) == 0
    assert "Cannot reach" not in capsys.readouterr().err
