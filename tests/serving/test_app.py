"""The HTTP face over real sockets: documents, problems, caps, events, tenants. No model here."""

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from animaray.serving.http.problems import PROBLEM_KINDS
from animaray.serving.http.tenants import make_api_key
from animaray.serving.jobs.limits import ServingLimits
from animaray.serving.jobs.records import FailureDocument, JobResult
from tests.serving.serving_parts import Server, run_app, upload_files

LIMITS = ServingLimits(
    max_picture_bytes=2000, max_video_bytes=4000, max_queued_jobs=3, max_active_jobs_per_tenant=3,
    max_upload_s=2.0,
)  # fmt: skip
OPENAPI_FILE = Path(__file__).with_name("openapi.json")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with run_app(tmp_path, LIMITS) as running:
        yield running


def finish(server: Server, mp4: bytes = b"\x00\x00\x00\x08ftypmp4-bytes") -> str:
    """Do a worker's part for the next job; return its id."""
    lease = server.store.leases.claim("w", 10.0)
    assert lease is not None
    server.store.leases.report(lease, 0, 4)
    server.store.leases.report(lease, 2, 4, identity_similarity=0.5)
    name = server.files.write_result(lease.job.job_id, lease.fence, mp4)
    server.store.leases.succeed(
        lease,
        JobResult(
            file_name=name, num_bytes=len(mp4), sha256="0" * 64, width_px=2, height_px=2,
            num_frames=2, fps=8.0, identity_similarity=0.6, stage_s={"denoise": 3.0},
        ),
    )  # fmt: skip
    return lease.job.job_id


def assert_problem(response: httpx.Response, code: str) -> dict[str, Any]:
    assert response.headers["content-type"].startswith("application/problem+json")
    problem: dict[str, Any] = response.json()
    assert problem["code"] == code, problem
    assert response.status_code == problem["status"] == PROBLEM_KINDS[code].status
    assert problem["type"] == f"/errors/{code}"
    assert problem["detail"]
    assert "Traceback" not in response.text
    return problem


def test_job_goes_its_way(server: Server) -> None:
    with httpx.Client(base_url=server.url) as http:
        accepted = http.post(
            "/v1/animations", files=upload_files(), data={"options": '{"seed": 3}'}
        )
        assert accepted.status_code == 202
        job = accepted.json()
        assert (job["state"], job["queue_place"], job["options"]) == ("queued", 1, {"seed": 3})
        assert accepted.headers["location"] == f"/v1/animations/{job['id']}" == job["links"]["self"]
        assert_problem(http.get(job["links"]["self"] + "/content"), "AR-SRV-05")
        assert finish(server) == job["id"]
        done = http.get(job["links"]["self"]).json()
        assert (done["state"], done["step"], done["num_steps"]) == ("succeeded", 2, 4)
        assert done["result"]["identity_similarity"] == 0.6
        content = http.get(done["links"]["content"])
        assert content.headers["content-type"] == "video/mp4"
        assert content.content.endswith(b"mp4-bytes")
        part = http.get(done["links"]["content"], headers={"Range": "bytes=4-7"})
        assert (part.status_code, part.content) == (206, b"ftyp")


def test_seed_is_drawn_once_and_kept(server: Server) -> None:
    with httpx.Client(base_url=server.url) as http:
        seeds = [
            http.post("/v1/animations", files=upload_files()).json()["options"]["seed"]
            for _ in range(2)
        ]
    assert seeds[0] != seeds[1]


def test_repeated_request_gives_the_same_job_and_keeps_no_second_upload(server: Server) -> None:
    with httpx.Client(base_url=server.url, headers={"Idempotency-Key": "k1"}) as http:
        first = http.post("/v1/animations", files=upload_files())
        again = http.post("/v1/animations", files=upload_files())
        assert first.json()["id"] == again.json()["id"]
        assert again.headers["idempotency-replayed"] == "true"
        assert "idempotency-replayed" not in first.headers
        assert len(list((server.files.data_dir / "uploads").iterdir())) == 1
        other = http.post("/v1/animations", files=upload_files(), data={"options": '{"seed": 1}'})
        assert_problem(other, "AR-SRV-06")


def test_twins_at_the_same_time_make_one_job(server: Server) -> None:
    def post(_: int) -> str:
        answer = httpx.post(
            f"{server.url}/v1/animations", files=upload_files(), headers={"Idempotency-Key": "k"}
        )
        return str(answer.json()["id"])

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(post, range(12)))) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("{", "not JSON"),
        ("[]", "must be a JSON object, got list"),
        ('{"sed": 1}', "Unknown option `sed`"),
        ('{"guidance_scale": 0.5}', "greater than or equal to 1"),
        ('{"num_inference_steps": 500}', "at most 100 are accepted, got 500"),
        ('{"alignment": "magic"}', "`alignment`: Input should be 'none', 'fit', 'procrustes'"),
        ('{"face_optimization": "magic"}', "`face_optimization`: Input should be a valid boolean"),
        ('{"face_optimization": "magic"}', "or: Input should be 'off', 'fast', 'published'"),
        ('{"no_face": true, "engine": "parts"}', "`no_face`: not with `engine` set to `parts`"),
        ('{"no_face": true, "face_optimization": "fast"}', "not together with `no_face`"),
        ('{"audio": "loud"}', "`audio`: Input should be a valid boolean"),
        ('{"sampler": "magic"}', "`sampler`: Input should be 'euler' or 'heun'"),
        ('{"fps": -1}', "`fps`: Input should be 'source' or 'model'; or: Input should be greater"),
        ('{"person": "middle"}', "`person`: A person is named by left, right"),
        ('{"person": ["left", "all"]}', "`person`: `all` already names everybody"),
        ('{"person": ["left", "right"]}', "`reference_person`: 2 people of the driving video"),
        ('{"guidance_min": 2}', "`guidance_max`: needed"),
        ('{"guidance_min": 2, "guidance_max": 3, "guidance_scale": 2}', "`guidance_scale`: not"),
        ('{"window_frames": 8, "window_overlap": 8}', "`window_overlap`: must be below"),
        ('{"seed": "x"}', "valid integer"),
    ],
)
def test_wrong_options_are_refused(server: Server, options: str, message: str) -> None:
    answer = httpx.post(
        f"{server.url}/v1/animations", files=upload_files(), data={"options": options}
    )
    assert message in assert_problem(answer, "AR-SRV-11")["detail"]
    assert list((server.files.data_dir / "uploads").iterdir()) == []


def test_option_typo_is_answered_with_the_nearest_name(server: Server) -> None:
    answer = httpx.post(
        f"{server.url}/v1/animations", files=upload_files(), data={"options": '{"sed": 1}'}
    )
    assert answer.json()["fix"] == "Did you mean `seed`?"


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (lambda f: f.pop("driving_video"), "AR-SRV-11", "`driving_video` .a file. is missing"),
        (lambda f: f.update(other=f.pop("driving_video")), "AR-SRV-11", "`other` is unknown"),
        (lambda f: f.update(extra=f["driving_video"]), "AR-SRV-11", "`extra` is unknown"),
        (
            lambda f: f.update(a=f["driving_video"], b=f["driving_video"]),
            "AR-SRV-11",
            "cannot be read",
        ),
        (lambda f: f.update(driving_video=f["reference_image"]), "AR-SRV-09", "swapped|JPEG"),
        (
            lambda f: f.update(driving_video=("v", b"\x00\x00\x00\x18ftyp" + bytes(4000))),
            "AR-SRV-08",
            "has 4,008 bytes; at most 4,000",
        ),
        (lambda f: f.update(reference_image=("p", b"")), "AR-SRV-11", "is empty"),
    ],
)
def test_wrong_uploads_are_refused_and_not_kept(
    server: Server, change: Callable[[dict[str, Any]], object], code: str, message: str
) -> None:
    files = upload_files()
    change(files)
    problem = assert_problem(httpx.post(f"{server.url}/v1/animations", files=files), code)
    assert re.search(message, problem["detail"])
    assert list((server.files.data_dir / "uploads").iterdir()) == []


def test_names_and_types_of_uploads_are_not_believed(server: Server) -> None:
    files = upload_files()
    picture = files["reference_image"][1]
    files["reference_image"] = ("../../etc/passwd\x00.mp4", picture, "video/mp4")
    answer = httpx.post(f"{server.url}/v1/animations", files=files)
    assert answer.status_code == 202
    names = {path.name for path in (server.files.data_dir / "uploads").glob("*/*")}
    assert names == {"reference_image", "driving_video"}


def test_request_that_is_not_multipart_is_refused(server: Server) -> None:
    answer = httpx.post(f"{server.url}/v1/animations", json={"seed": 1})
    assert "got application/json" in assert_problem(answer, "AR-SRV-11")["detail"]
    answer = httpx.post(
        f"{server.url}/v1/animations",
        content=b"nonsense",
        headers={"content-type": "multipart/form-data; boundary=x"},
    )
    assert_problem(answer, "AR-SRV-11")


def test_oversized_requests_stop_whatever_they_declare(server: Server) -> None:
    too_much = LIMITS.max_request_bytes + 1
    honest = httpx.post(f"{server.url}/v1/animations", content=bytes(too_much))
    assert_problem(honest, "AR-SRV-08")

    def chunks() -> Iterator[bytes]:  # no Content-Length
        yield b'--x\r\nContent-Disposition: form-data; name="reference_image"; filename="a"\r\n\r\n'
        for _ in range(too_much // 65536 + 1):
            yield bytes(65536)

    liar = httpx.post(
        f"{server.url}/v1/animations",
        content=chunks(),
        headers={"content-type": "multipart/form-data; boundary=x"},
    )
    assert_problem(liar, "AR-SRV-08")


def test_slow_request_is_ended(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(
            b"POST /v1/animations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
        )
        started = time.monotonic()
        answer = raw.recv(65536)
    assert b" 408 " in answer.splitlines()[0]
    assert time.monotonic() - started < LIMITS.max_upload_s + 3


def test_full_tenant_and_full_queue_are_told_when_to_come_back(server: Server) -> None:
    with httpx.Client(base_url=server.url) as http:
        for _ in range(3):
            assert http.post("/v1/animations", files=upload_files()).status_code == 202
        full = http.post("/v1/animations", files=upload_files())
        problem = assert_problem(full, "AR-SRV-03")
        assert problem["retryable"]
        # Nothing is measured yet: the default.
        assert full.headers["retry-after"] == str(problem["retry_after"]) == "30"
        finish(server)
        assert http.post("/v1/animations", files=upload_files()).status_code == 202
        # One job took 3 s with one worker.
        full = http.post("/v1/animations", files=upload_files())
        assert full.headers["retry-after"] == "3"


def test_cancel_and_remove(server: Server) -> None:
    with httpx.Client(base_url=server.url) as http:
        job = http.post("/v1/animations", files=upload_files()).json()
        address = job["links"]["self"]
        assert_problem(http.delete(address, params={"purge": True}), "AR-SRV-05")
        for _ in range(2):
            assert http.delete(address).json()["state"] == "cancelled"
        assert list((server.files.data_dir / "uploads").iterdir()) == []
        assert_problem(http.get(f"{address}/content"), "AR-SRV-13")
        assert http.delete(address, params={"purge": True}).status_code == 204
        assert_problem(http.get(address), "AR-SRV-04")
        http.post("/v1/animations", files=upload_files())
        done = finish(server)
        assert http.delete(f"/v1/animations/{done}", params={"purge": True}).status_code == 204
        assert list(server.files.results_dir.iterdir()) == []


def test_failed_job_tells_why(server: Server) -> None:
    with httpx.Client(base_url=server.url) as http:
        address = http.post("/v1/animations", files=upload_files()).json()["links"]["self"]
        lease = server.store.leases.claim("w", 10.0)
        assert lease is not None
        failure = FailureDocument(code="AR-FAC-01", message="No face.", fix="Send another picture.")
        server.store.leases.fail(lease, failure, may_retry=False)
        error = http.get(address).json()["error"]
        assert error == {
            "code": "AR-FAC-01", "message": "No face.", "fix": "Send another picture.",
            "retryable": False,
        }  # fmt: skip
        assert "No face." in assert_problem(http.get(f"{address}/content"), "AR-SRV-13")["detail"]


def read_events(url: str, last: int | None = None) -> list[tuple[str | None, str, dict[str, Any]]]:
    headers = {} if last is None else {"Last-Event-ID": str(last)}
    blocks = httpx.get(url, headers=headers, timeout=20).text.split("\n\n")
    events = []
    for block in blocks:
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "data" in fields:
            events.append((fields.get("id"), fields["event"], json.loads(fields["data"])))
    return events


def test_event_stream_equals_the_stored_list_and_resumes(server: Server) -> None:
    with httpx.Client(base_url=server.url) as http:
        job = http.post("/v1/animations", files=upload_files()).json()
    with ThreadPoolExecutor(1) as pool:  # a live stream, while the job runs
        live = pool.submit(read_events, server.url + job["links"]["events"])
        time.sleep(0.8)
        finish(server)
        seen = live.result(timeout=20)
    assert ("queue", {"queue_place": 1}) in [(kind, data) for _, kind, data in seen]
    numbered = [(int(number), kind) for number, kind, _ in seen if number]
    stored = [(event.number, event.kind) for event in server.store.events(job["id"])]
    assert numbered == stored
    assert [kind for _, kind in stored] == [
        "queued", "preparing", "running", "progress", "succeeded",
    ]  # fmt: skip
    assert seen[-2][2]["identity_similarity"] == 0.5
    resumed = read_events(server.url + job["links"]["events"], last=3)
    assert [int(number) for number, _, _ in resumed if number] == [4, 5]
    assert read_events(server.url + job["links"]["events"], last=5) == []


def test_list_pages(server: Server) -> None:
    with httpx.Client(base_url=server.url) as http:
        ids = [http.post("/v1/animations", files=upload_files()).json()["id"] for _ in range(3)]
        first = http.get("/v1/animations", params={"limit": 2}).json()
        second = http.get("/v1/animations", params={"limit": 2, "before": first["next"]}).json()
        found = [job["id"] for job in first["animations"] + second["animations"]]
        assert found == ids[::-1]
        assert second["next"] is None
        assert_problem(http.get("/v1/animations", params={"limit": 0}), "AR-SRV-11")
        assert_problem(http.get("/v1/animations", params={"state": "lost"}), "AR-SRV-11")


def test_ready_turns_503_without_a_loaded_model(server: Server) -> None:
    with httpx.Client(base_url=server.url) as http:
        assert http.get("/health/live").json()["status"] == "live"
        assert (
            "none has started" in assert_problem(http.get("/health/ready"), "AR-SRV-10")["detail"]
        )
        server.store.leases.record_heartbeat("w", "loading")
        assert_problem(http.get("/health/ready"), "AR-SRV-10")
        server.store.leases.record_heartbeat("w", "ready")
        assert http.get("/health/ready").json() == {"status": "ready", "workers": ["ready"]}
        server.store.leases.record_heartbeat("w", "failed", "No weights. [AR-WGT-01]")
        assert "No weights" in assert_problem(http.get("/health/ready"), "AR-SRV-10")["detail"]


def test_metrics_count_without_ids(server: Server) -> None:
    with httpx.Client(base_url=server.url) as http:
        for _ in range(2):
            http.post("/v1/animations", files=upload_files())
        done = finish(server)
        page = http.get("/metrics").text
    assert 'animaray_jobs_total{reason="",state="succeeded"} 1.0' in page
    assert "animaray_jobs_queued 1.0" in page
    assert 'animaray_stage_duration_seconds_sum{stage="denoise"} 3.0' in page
    assert "animaray_identity_similarity_sum 0.6" in page
    assert "animaray_queue_wait_seconds_count 1.0" in page
    assert done not in page


def test_tenants_see_only_their_own_on_every_route(tmp_path: Path) -> None:
    (key_a, digest_a), (key_b, digest_b) = make_api_key(), make_api_key()
    with run_app(tmp_path, LIMITS, {"a": digest_a, "b": digest_b}) as server:
        a = httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {key_a}"})
        b = httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {key_b}"})
        nobody = httpx.Client(base_url=server.url)
        address = a.post("/v1/animations", files=upload_files()).json()["links"]["self"]
        assert b.get("/v1/animations").json()["animations"] == []
        routes = [
            (method.upper(), path.replace("{job_id}", address.rsplit("/", 1)[-1]))
            for path, methods in httpx.get(f"{server.url}/openapi.json").json()["paths"].items()
            for method in methods
            if path.startswith("/v1/")
        ]
        assert len(routes) == 6
        for method, path in routes:
            problem = assert_problem(nobody.request(method, path), "AR-SRV-07")
            assert "Bearer" in problem["fix"]
            if address in path:
                assert_problem(b.request(method, path), "AR-SRV-04")
        assert nobody.get("/v1/animations").headers["www-authenticate"] == "Bearer"
        assert a.get(address).json()["state"] == "queued"
        for http in (a, b, nobody):
            http.close()


def test_unknown_pages_and_methods_are_problems(server: Server) -> None:
    with httpx.Client(base_url=server.url) as http:
        assert_problem(http.get("/v2"), "AR-SRV-14")
        assert_problem(http.put("/v1/animations"), "AR-SRV-15")
        assert_problem(http.get("/v1/animations/../../etc/passwd"), "AR-SRV-14")
        assert_problem(http.get("/page/..%2fapp.py"), "AR-SRV-14")
        assert http.get("/errors/AR-SRV-02").json()["title"] == "Queue is full"
        assert_problem(http.get("/errors/AR-X"), "AR-SRV-14")


def test_page_loads_nothing_from_elsewhere(server: Server) -> None:
    with httpx.Client(base_url=server.url) as http:
        page = http.get("/")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert sorted(addresses) == ["/page/icon.svg", "/page/page.css", "/page/page.js"]
        for address in addresses:
            part = http.get(address)
            assert part.status_code == 200
            assert "http://" not in part.text.replace("http://www.w3.org/2000/svg", "")
            assert "https://" not in part.text


def test_housekeeping_removes_what_nobody_needs(server: Server) -> None:
    import os

    with httpx.Client(base_url=server.url) as http:
        kept = http.post("/v1/animations", files=upload_files()).json()["id"]
    orphan = server.files.upload_dir("f" * 32) / "driving_video"
    orphan.write_bytes(b"x")
    old = server.files.results_dir / f"{'e' * 32}.1.mp4"
    old.write_bytes(b"x")
    server.service.housekeep()
    assert orphan.exists()  # young: its request may still be arriving
    for path in (orphan.parent, old, server.files.upload_dir(kept)):
        os.utime(path, (0, 0))
    server.service.housekeep()
    assert not orphan.exists()
    assert not old.exists()
    assert server.files.upload_dir(kept).joinpath("driving_video").exists()


def test_openapi_is_frozen(server: Server) -> None:
    document = httpx.get(f"{server.url}/openapi.json").json()
    text = json.dumps(document, indent=1, sort_keys=True) + "\n"
    if not OPENAPI_FILE.exists():
        OPENAPI_FILE.write_text(text)
    assert json.loads(OPENAPI_FILE.read_text()) == document, (
        f"The HTTP interface changed. If it was meant to: remove {OPENAPI_FILE}, run this test"
        " once, and commit the new file."
    )


def test_every_problem_of_the_openapi_has_an_example(server: Server) -> None:
    document = httpx.get(f"{server.url}/openapi.json").json()
    seen = set()
    for methods in document["paths"].values():
        for operation in methods.values():
            for response in operation["responses"].values():
                for kind, content in response.get("content", {}).items():
                    if kind == "application/problem+json":
                        for code, example in content["examples"].items():
                            assert example["value"]["code"] == code
                            seen.add(code)
    assert len(seen) >= 12
