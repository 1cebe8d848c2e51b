"""The forms of HTTP: who may ask, HEAD, Allow, and every legal way to send the same request."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from animaray.serving.http.tenants import make_api_key
from animaray.serving.jobs.limits import ServingLimits
from tests.serving.serving_parts import Server, run_app, upload_files
from tests.serving.test_app import assert_problem

ADDRESSES = ("/", "/page/page.js", "/health/live", "/metrics", "/openapi.json", "/errors/AR-SRV-02")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    limits = ServingLimits(max_queued_jobs=99, max_active_jobs_per_tenant=99)
    with run_app(tmp_path_factory.mktemp("forms"), limits) as running:
        yield running


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url) as client:
        yield client


@pytest.fixture(scope="module")
def job_id(http: httpx.Client) -> str:
    return str(http.post("/v1/animations", files=upload_files()).json()["id"])


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8500", "127.0.0.1.evil.example", "localhost.evil", "10.0.0.1"],
)
def test_open_server_answers_to_no_foreign_name(http: httpx.Client, host: str) -> None:
    for method, path in (
        ("GET", "/v1/animations"), ("POST", "/v1/animations"), ("GET", "/"), ("GET", "/metrics"),
        ("DELETE", f"/v1/animations/{'0' * 32}"), ("GET", "/openapi.json"),
    ):  # fmt: skip
        problem = assert_problem(http.request(method, path, headers={"Host": host}), "AR-SRV-16")
        assert host in problem["detail"]
        assert "animaray keys new" in problem["fix"]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost:1", "LOCALHOST", "[::1]:8500", "127.9.9.9", "my.localhost:80"]
)
def test_open_server_answers_to_its_machines_names(http: httpx.Client, host: str) -> None:
    assert http.get("/v1/animations", headers={"Host": host}).status_code == 200


def test_second_host_header_does_not_hide_a_foreign_one(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(b"GET /v1/animations HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        assert b" 200 " not in raw.recv(65536).splitlines()[0]


FOREIGN = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:3000"},
    {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "Cross-Site"},
]


@pytest.mark.parametrize("headers", FOREIGN)
def test_pages_of_other_sites_change_nothing(
    http: httpx.Client, job_id: str, headers: dict[str, str]
) -> None:
    posted = http.post("/v1/animations", files=upload_files(), headers=headers)
    assert_problem(posted, "AR-SRV-16")
    assert_problem(http.delete(f"/v1/animations/{job_id}", headers=headers), "AR-SRV-16")
    assert http.get(f"/v1/animations/{job_id}", headers=headers).json()["state"] == "queued"


def test_pages_of_other_sites_change_nothing_with_a_key_either(tmp_path: Path) -> None:
    key, digest = make_api_key()
    with run_app(tmp_path, ServingLimits(), {"a": digest}) as server:
        headers = {"Authorization": f"Bearer {key}", "Host": "animate.example.org"}
        with httpx.Client(base_url=server.url, headers=headers) as http:
            assert http.get("/v1/animations").status_code == 200  # a key opens any name
            for foreign in FOREIGN:
                answer = http.post("/v1/animations", files=upload_files(), headers=foreign)
                assert_problem(answer, "AR-SRV-16")
            own = {"Origin": "https://animate.example.org"}
            assert http.post("/v1/animations", files=upload_files(), headers=own).status_code == 202


def test_own_page_and_programs_may_post(server: Server, http: httpx.Client) -> None:
    for headers in (
        {"Origin": server.url},
        {"Origin": server.url, "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ):
        answer = http.post("/v1/animations", files=upload_files(), headers=headers)
        assert answer.status_code == 202


def test_names_of_a_proxy_are_allowed_when_named(tmp_path: Path) -> None:
    with run_app(tmp_path, ServingLimits(), allowed_hosts=("proxy.example",)) as server:
        headers = {"Host": "Proxy.example:8443", "Origin": "https://proxy.example"}
        answer = httpx.post(f"{server.url}/v1/animations", files=upload_files(), headers=headers)
        assert answer.status_code == 202
        headers["Host"] = "other.example"
        assert_problem(httpx.get(f"{server.url}/", headers=headers), "AR-SRV-16")


def test_head_answers_like_get_without_a_body(http: httpx.Client, job_id: str) -> None:
    jobs = [f"/v1/animations{part}" for part in ("", f"/{job_id}", f"/{job_id}/content")]
    for path in (*ADDRESSES, *jobs, "/health/ready", "/nowhere", f"/v1/animations/{'0' * 32}"):
        got, head = http.get(path), http.head(path)
        assert head.content == b""
        assert (head.status_code, head.headers["content-type"]) == (
            got.status_code, got.headers["content-type"],
        )  # fmt: skip
    head = http.head(f"/v1/animations/{job_id}/events", timeout=5.0)  # a GET would not end
    assert head.headers["content-type"].startswith("text/event-stream")
    assert http.get("/health/live").status_code == 200  # the connection is still in step


def test_refused_methods_name_the_allowed_ones(http: httpx.Client, job_id: str) -> None:
    for path, allowed in (
        ("/v1/animations", "GET, HEAD, POST"),
        (f"/v1/animations/{job_id}", "DELETE, GET, HEAD"),
        (f"/v1/animations/{job_id}/content", "GET, HEAD"),
        ("/", "GET, HEAD"),
    ):
        for method in ("PUT", "OPTIONS", "PATCH"):
            answer = http.request(method, path)
            assert_problem(answer, "AR-SRV-15")
            assert answer.headers["allow"] == allowed


@pytest.mark.parametrize(
    "part",
    [
        (None, '{"seed": 3}'),
        (None, '{"seed": 3}', "application/json"),
        ("options.json", b'{"seed": 3}', "application/json"),
        ("blob", b'{"seed": 3}', "application/json; charset=utf-8"),
    ],
)
def test_options_may_be_a_text_field_or_a_json_part(
    http: httpx.Client, part: tuple[str | None, str]
) -> None:
    answer = http.post("/v1/animations", files={**upload_files(), "options": part})
    assert answer.status_code == 202, answer.text
    assert answer.json()["options"] == {"seed": 3}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff{}", "not UTF-8"),
        (b'{"seed": 1, "x": "' + b"y" * 65536 + b'"}', "more than 65,536 bytes"),
        (b'{"sed": 1}', "Unknown option `sed`"),
    ],
)
def test_wrong_json_parts_are_refused(http: httpx.Client, content: bytes, message: str) -> None:
    files = {**upload_files(), "options": ("o.json", content, "application/json")}
    problem = assert_problem(http.post("/v1/animations", files=files), "AR-SRV-11")
    assert message in problem["detail"]


def test_media_types_compare_without_case(http: httpx.Client) -> None:
    request = http.build_request("POST", "/v1/animations", files=upload_files())
    kind = request.headers["content-type"]
    request.headers["content-type"] = kind.replace("multipart/form-data", "Multipart/Form-Data")
    assert http.send(request).status_code == 202
    answer = http.post(
        "/v1/animations", content=b"", headers={"content-type": "multipart/form-database"}
    )
    assert "multipart/form-database" in assert_problem(answer, "AR-SRV-11")["detail"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("[" * 30000, "not JSON: recursion limit"),
        ('{"x":' * 9000, "not JSON: recursion limit"),
        ('{"\\ud800": 1}', "not JSON: .*hex escape"),
        ('{"person": "\\ud800"}', "not JSON: .*hex escape"),
        ('{"seed": true}', "valid integer"),
        ('{"seed": "1"}', "valid integer"),
        ('{"fps": true}', "`fps`"),
        ('{"fps": NaN}', "not JSON"),
    ],
)
def test_odd_json_is_a_problem_document(http: httpx.Client, options: str, message: str) -> None:
    answer = http.post("/v1/animations", files=upload_files(), data={"options": options})
    assert re.search(message, assert_problem(answer, "AR-SRV-11")["detail"])


@pytest.mark.parametrize("charset", ["undefined", "punycode", "no-such-charset"])
def test_odd_charset_is_a_problem_document(http: httpx.Client, charset: str) -> None:
    request = http.build_request("POST", "/v1/animations", files=upload_files())
    request.headers["content-type"] += f"; charset={charset}"
    answer = http.send(request)
    assert answer.status_code in (202, 422)
    body = b'--x\r\nContent-Disposition: form-data; name="\xc3\xa9"\r\n\r\n1\r\n--x--\r\n'
    kind = f"multipart/form-data; boundary=x; charset={charset}"
    answer = http.post("/v1/animations", content=body, headers={"content-type": kind})
    assert_problem(answer, "AR-SRV-11")


def test_odd_ids_are_unknown_jobs(http: httpx.Client) -> None:
    for odd in ("%00", "a%00b", "0" * 31, "A" * 32):
        assert_problem(http.get(f"/v1/animations/{odd}"), "AR-SRV-04")
        assert_problem(http.delete(f"/v1/animations/{odd}"), "AR-SRV-04")
        assert_problem(http.get(f"/v1/animations?before={odd}"), "AR-SRV-11")
