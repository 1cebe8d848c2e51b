"""The typed client against a real server; the worker's part is done by hand."""

import pickle
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from animaray.platform.errors import FaceError, ServiceError, UsageError
from animaray.serving.client import AnimarayClient
from animaray.serving.http.tenants import make_api_key
from animaray.serving.jobs.leases import Lease
from animaray.serving.jobs.limits import ServingLimits
from animaray.serving.jobs.records import FailureDocument, JobResult
from tests.serving.serving_parts import Server, free_port, run_app, upload_files

pytestmark = pytest.mark.timeout(60)
MP4 = b"\x00\x00\x00\x08ftypmp4-bytes"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with run_app(tmp_path, ServingLimits(max_queued_jobs=2)) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[AnimarayClient]:
    with AnimarayClient(server.url, timeout_s=10.0) as opened:
        yield opened


@pytest.fixture
def media(tmp_path: Path) -> tuple[Path, Path]:
    files = upload_files()
    paths = tmp_path / "me.jpg", tmp_path / "dance.mp4"
    for path, kind in zip(paths, ("reference_image", "driving_video"), strict=True):
        path.write_bytes(files[kind][1])
    return paths


def take(server: Server) -> Lease:
    deadline = time.monotonic() + 10
    while (lease := server.store.leases.claim("w", 10.0)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return lease


def work(server: Server) -> None:
    lease = take(server)
    server.store.leases.report(lease, 0, 2)
    time.sleep(0.3)
    server.store.leases.report(lease, 1, 2, identity_similarity=0.4)
    name = server.files.write_result(lease.job.job_id, lease.fence, MP4)
    server.store.leases.succeed(
        lease,
        JobResult(file_name=name, num_bytes=len(MP4), sha256="0" * 64, width_px=2, height_px=2,
                  num_frames=2, fps=8.0),
    )  # fmt: skip


def test_animate_blocks_until_the_video_is_there(
    server: Server, client: AnimarayClient, media: tuple[Path, Path], tmp_path: Path
) -> None:
    worker = threading.Thread(target=work, args=(server,))
    worker.start()
    job = client.animate(*media, seed=5, timeout_s=20.0)
    worker.join()
    assert job.status().options == {"seed": 5}
    assert job.save(tmp_path / "out" / "video.mp4").read_bytes() == MP4
    assert [listed.id for listed in client.list()] == [job.id]


def test_events_are_typed_and_can_start_later(
    server: Server, client: AnimarayClient, media: tuple[Path, Path]
) -> None:
    job = client.submit(*media)
    worker = threading.Thread(target=work, args=(server,))
    worker.start()
    events = list(job.events())
    worker.join()
    kinds = [event.kind for event in events if event.number]
    assert kinds == ["queued", "preparing", "running", "progress", "succeeded"]
    progress = next(event for event in events if event.kind == "progress")
    assert progress.data["identity_similarity"] == 0.4
    assert str(progress) == "progress step=1 num_steps=2 identity_similarity=0.4"
    assert [event.kind for event in job.events(after=4)] == ["succeeded"]
    assert list(job.events(after=5)) == []


def test_failure_of_the_job_is_an_error_with_its_remedy(
    server: Server, client: AnimarayClient, media: tuple[Path, Path]
) -> None:
    job = client.submit(*media)
    failure = FailureDocument(code="AR-FAC-01", message="No face.", fix="Send another picture.")
    server.store.leases.fail(take(server), failure, may_retry=False)
    with pytest.raises(ServiceError, match=r"failed. No face. Send another picture.") as caught:
        job.wait(5.0)
    assert (caught.value.reason, caught.value.exit_code) == ("AR-FAC-01", FaceError.exit_code)
    assert re.findall(r"AR-\w+-\d+", str(caught.value)) == ["AR-FAC-01"]
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.exit_code) == (str(caught.value), FaceError.exit_code)
    with pytest.raises(ServiceError, match="Job has no result"):
        job.content()


def test_waiting_ends_without_ending_the_job(
    client: AnimarayClient, media: tuple[Path, Path]
) -> None:
    job = client.submit(*media)
    with pytest.raises(ServiceError, match=r"still queued after 0\.2 s") as caught:
        job.wait(0.2, poll_s=0.1)
    assert caught.value.reason == "timeout"
    assert job.cancel().state == "cancelled"
    with pytest.raises(ServiceError, match=f"Job {job.id} was cancelled. .AR-JOB-02") as caught:
        job.wait(5.0)
    assert (caught.value.reason, caught.value.exit_code) == ("cancelled", 5)
    job.remove()
    with pytest.raises(ServiceError, match="No such job"):
        job.status()


def test_same_key_makes_one_job(client: AnimarayClient, media: tuple[Path, Path]) -> None:
    first = client.submit(*media, idempotency_key="mine", seed=1)
    assert client.submit(*media, idempotency_key="mine", seed=1).id == first.id
    assert client.submit(*media, seed=1).id != first.id


def test_listing_follows_pages(server: Server, client: AnimarayClient) -> None:
    assert client.list() == []
    assert client.list(state="failed", limit=500) == []


def test_full_server_is_waited_for_as_told(
    server: Server, client: AnimarayClient, media: tuple[Path, Path]
) -> None:
    server.store.leases._database.clock = time.time
    client.submit(*media)
    worker = threading.Thread(target=work, args=(server,))
    worker.start()
    worker.join()  # about 0 s a job: Retry-After becomes 1 s
    client.submit(*media)
    second = client.submit(*media)
    timer = threading.Timer(0.5, second.cancel)
    timer.start()
    third = client.submit(*media)
    timer.join()
    assert third.status().state == "queued"


def test_problems_are_errors_with_their_code(
    client: AnimarayClient, media: tuple[Path, Path]
) -> None:
    with pytest.raises(ServiceError, match=r"Unknown option `sed`.*Did you mean `seed`") as caught:
        client.submit(*media, sed=1)
    assert caught.value.reason == "AR-SRV-11"
    with pytest.raises(ServiceError, match="No such job"):
        list(client.job("0" * 32).events())


def test_unreachable_and_foreign_servers_are_told(tmp_path: Path) -> None:
    with AnimarayClient(f"http://127.0.0.1:{free_port()}", timeout_s=1.0) as client:
        assert not client.is_ready()
        with pytest.raises(ServiceError, match="Cannot reach the service") as caught:
            client.list()
        assert caught.value.reason == "unreachable"

    class Stranger(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"jobs": []}')

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Stranger) as server:
        threading.Thread(target=server.serve_forever).start()
        with AnimarayClient(f"http://127.0.0.1:{server.server_port}", timeout_s=5.0) as client:
            with pytest.raises(ServiceError, match="something else than was expected"):
                client.list()
            with pytest.raises(ServiceError, match="and of the same version"):
                client.job("0" * 32).status()
        server.shutdown()


def test_key_is_sent(tmp_path: Path, media: tuple[Path, Path]) -> None:
    key, digest = make_api_key()
    with run_app(tmp_path, ServingLimits(), {"a": digest}) as server:
        wrong = AnimarayClient(server.url, "wrong")
        with wrong, pytest.raises(ServiceError, match="API key is missing or unknown"):
            wrong.submit(*media)
        with AnimarayClient(server.url, key) as client:
            assert client.submit(*media).status().state == "queued"
            assert not client.is_ready()
            server.store.leases.record_heartbeat("w", "ready")
            assert client.is_ready()


def test_missing_files_and_address_are_usage_errors(
    client: AnimarayClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="There is no file"):
        client.submit(tmp_path / "none.jpg", tmp_path / "none.mp4")
    monkeypatch.delenv("ANIMARAY_SERVER", raising=False)
    with pytest.raises(UsageError, match="address of the service is missing"):
        AnimarayClient()


def test_restart_of_the_service_is_sat_out(tmp_path: Path, media: tuple[Path, Path]) -> None:
    port = free_port()
    with run_app(tmp_path, ServingLimits(), port=port) as server:
        client = AnimarayClient(server.url, timeout_s=5.0, patience_s=30.0)
        job = client.submit(*media)
    seen: list[str] = []
    follower = threading.Thread(target=lambda: seen.extend(event.kind for event in job.events()))
    follower.start()  # while nothing listens
    time.sleep(1.0)
    with run_app(tmp_path, ServingLimits(), port=port) as server:
        work(server)
        assert job.wait(20.0).state == "succeeded"
        follower.join(20.0)
    assert seen[-1] == "succeeded"
    client.patience_s = 0.0
    with pytest.raises(ServiceError, match="Cannot reach the service"):
        job.wait(1.0)
    client.close()
