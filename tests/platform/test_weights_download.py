"""`pull_weights` against a loopback server that speaks the Hugging Face hub's protocol."""

import hashlib
import json
import os
import resource
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from animaray.platform.errors import WeightsError
from animaray.platform.weights import download as weights_download
from animaray.platform.weights import store as weights
from animaray.platform.weights.store import WEIGHTS, WeightsEntry

CONTENT = bytes(range(256)) * 1200
DIGEST = hashlib.sha256(CONTENT).hexdigest()
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILE = "/owner/name/resolve/main/sub/net.bin"


class Hub(ThreadingHTTPServer):
    """Holds one file: HEAD redirects to a content store, GET there answers ranges."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = CONTENT
        self.etag = DIGEST
        self.says_size = True
        self.cut_at = []  # bytes after which the next answers break off
        self.status_of_next = []  # statuses of the next GETs
        self.refuse_head = None  # (status, X-Error-Code)
        self.pause_s = 0.0
        self.hangs_after = None  # bytes after which an answer hangs
        self.goes_on = threading.Event()
        self.gets = []  # ranges asked for
        self.tokens = []
        self.address = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *args):  # noqa: A002 - the base class names it so
        pass

    def answer(self, status, headers, body=b""):
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self):
        hub = self.server
        hub.tokens.append(self.headers.get("Authorization"))
        if hub.refuse_head is not None:
            status, code = hub.refuse_head
            self.answer(status, {"X-Error-Code": code, "X-Repo-Commit": COMMIT})
            return
        if self.path != FILE:
            self.answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            return
        headers = {
            "X-Repo-Commit": COMMIT,
            "X-Linked-Etag": f'"{hub.etag}"',
            "ETag": '"of the pointer"',
            "Location": f"http://localhost:{hub.server_port}/store/net",
        }
        if hub.says_size:
            headers["X-Linked-Size"] = str(len(hub.content))
        self.answer(302, headers)

    def do_GET(self):
        hub = self.server
        if self.path != "/store/net":  # the hub's client also asks for things that are optional
            self.answer(404, {})
            return
        asked = self.headers.get("Range")
        hub.gets.append(asked)
        hub.tokens.append(self.headers.get("Authorization"))
        if hub.status_of_next:
            status = hub.status_of_next.pop(0)
            if status != 200:
                self.answer(status, {})
                return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        body, total = hub.content[start:], len(hub.content)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hub.etag}"')
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.end_headers()
        time.sleep(hub.pause_s)
        if hub.hangs_after is not None:
            self.wfile.write(body[: hub.hangs_after])
            self.wfile.flush()
            hub.goes_on.wait(60)
            self.close_connection = True
            return
        end = hub.cut_at.pop(0) - start if hub.cut_at else len(body)
        self.wfile.write(body[:end])
        if end < len(body):
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    server = Hub()
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.02), daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("ANIMARAY_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("ANIMARAY_WEIGHTS", raising=False)
    monkeypatch.delenv("ANIMARAY_OFFLINE", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    # What a cut loses is at most one chunk; it is 10 MiB, more than this whole file.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def entry(**changes) -> WeightsEntry:
    fields = {
        "id": "test/net",
        "purpose": "a test",
        "file": "sub/net.bin",
        "source": "huggingface:owner/name/sub/net.bin",
        "size_bytes": len(CONTENT),
        "sha256": DIGEST,
        "licence": "MIT",
        "commercial_use": True,
        "needed_by": ("test",),
    }
    return WeightsEntry(**(fields | changes))


@pytest.fixture
def pull(monkeypatch, tmp_path):
    """Return a function that registers an entry and pulls it; it also lists what is in place."""

    def run(**changes):
        monkeypatch.setitem(WEIGHTS, "test/net", entry(**changes))
        return weights.pull_weights("test/net")

    run.folder = tmp_path / "cache" / "weights" / "sub"
    run.downloads = tmp_path / "cache" / "downloads"
    return run


def nothing_in_place(pull):
    return list(pull.folder.glob("*")) == []


def test_file_arrives_whole_through_the_redirect(hub, pull, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert pull().read_bytes() == CONTENT
    assert hub.gets == [None]
    # The token goes to the hub, never to the content store it redirects to.
    assert hub.tokens == ["Bearer hf_secret", None]
    assert list(pull.downloads.iterdir()) == []
    assert pull().read_bytes() == CONTENT
    assert len(hub.gets) == 1


def test_cut_connection_is_resumed_within_one_call(hub, pull):
    hub.cut_at = [100_000]
    assert pull().read_bytes() == CONTENT
    assert hub.gets == [None, "bytes=100000-"]


def test_next_call_goes_on_where_a_failed_one_stopped(hub, pull):
    hub.cut_at, hub.status_of_next = [70_000], [200, 500]
    with pytest.raises(WeightsError, match=r"Downloading `test/net` .* failed: .*500") as caught:
        pull()
    assert caught.value.reason == "download"
    assert "\n" not in str(caught.value)
    assert nothing_in_place(pull)
    assert [file.stat().st_size for file in pull.downloads.iterdir()] == [70_000]
    assert pull().read_bytes() == CONTENT
    assert hub.gets == [None, "bytes=70000-", "bytes=70000-"]


def test_part_of_another_version_is_not_continued(hub, pull):
    hub.content, hub.etag = CONTENT[::-1], hashlib.sha256(CONTENT[::-1]).hexdigest()
    hub.cut_at, hub.status_of_next = [70_000], [200, 500]
    with pytest.raises(WeightsError):
        pull(sha256=None)
    hub.content, hub.etag = CONTENT, DIGEST
    assert pull(sha256=None).read_bytes() == CONTENT
    assert hub.gets[-1] is None


def test_other_hash_is_refused_before_the_download(hub, pull):
    with pytest.raises(WeightsError, match=r"offers a file with SHA-256 .* has 1111") as caught:
        pull(sha256="1" * 64)
    assert caught.value.reason == "hash"
    with pytest.raises(WeightsError, match=r"offers a file of 307,200 bytes, .* has 5") as caught:
        pull(size_bytes=5)
    assert caught.value.reason == "size"
    assert hub.gets == []


def test_wrong_bytes_under_the_right_label_are_thrown_away(hub, pull):
    hub.content = b"\xff" + CONTENT[1:]
    with pytest.raises(WeightsError, match=r"is not `test/net`.*expected") as caught:
        pull()
    assert caught.value.reason == "hash"
    assert nothing_in_place(pull)
    assert list(pull.downloads.iterdir()) == []
    hub.content = CONTENT
    assert pull().read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("status", "code", "reason", "message"),
    [
        (404, "EntryNotFound", "not_found", "owner/name has no file sub/net.bin at revision main"),
        (404, "RevisionNotFound", "not_found", "owner/name has no file sub/net.bin at revision"),
        (404, "RepoNotFound", "not_found", "shows no repository owner/name"),
        (403, "GatedRepo", "gated", "only to those who accepted the licence of owner/name"),
    ],
)
def test_refusals_of_the_hub_say_what_to_do(hub, pull, status, code, reason, message):
    hub.refuse_head = (status, code)
    with pytest.raises(WeightsError, match=message) as caught:
        pull()
    assert caught.value.reason == reason
    assert caught.value.fix
    assert "\n" not in str(caught.value)
    assert nothing_in_place(pull)


def test_registered_revision_is_asked_for(hub, pull):
    with pytest.raises(WeightsError, match=f"at revision {COMMIT}"):
        pull(revision=COMMIT)


def test_unreachable_hub_is_reported(pull, hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(WeightsError, match="Connection refused") as caught:
        pull()
    assert caught.value.reason == "download"


def test_too_small_disk_is_noticed_before_the_first_byte(hub, pull, monkeypatch):
    monkeypatch.setattr(weights_download, "free_bytes", lambda _: 1000)
    with pytest.raises(WeightsError, match=r"needs 307,200 more bytes .* has 1,000 free") as caught:
        pull()
    assert caught.value.reason == "disk"
    assert hub.gets == []


def test_plain_address_is_resumed_where_a_hash_vouches_for_the_part(hub, pull):
    hub.cut_at = [70_000]
    source = f"{hub.address}/store/net"
    with pytest.raises(WeightsError, match="cut after 70,000 of 307,200 bytes") as caught:
        pull(source=source)
    assert caught.value.reason == "download"
    assert nothing_in_place(pull)
    assert pull(source=source).read_bytes() == CONTENT
    assert hub.gets == [None, "bytes=70000-"]


def test_plain_address_without_a_hash_starts_anew(hub, pull):
    hub.cut_at = [70_000]
    source = f"{hub.address}/store/net"
    with pytest.raises(WeightsError, match="cut after"):
        pull(source=source, sha256=None)
    assert pull(source=source, sha256=None).read_bytes() == CONTENT
    assert hub.gets == [None, None]


PULL = """
import sys, json
from animaray.platform.weights import download as weights_download
from animaray.platform.weights import store as weights
from animaray.platform.errors import WeightsError
weights.WEIGHTS["test/net"] = weights.WeightsEntry(**json.loads(sys.argv[1]))
weights_download.CHUNK_BYTES = 10_000
if len(sys.argv) > 2:
    weights_download.free_bytes = lambda folder: 1 << 40
try:
    print(weights.pull_weights("test/net"))
except WeightsError as error:
    print(error.reason, error)
    sys.exit(4)
"""


def arguments(*more, **changes) -> list[str]:
    row = entry(**changes)
    fields = {name: getattr(row, name) for name in row.__dataclass_fields__}
    return [sys.executable, "-W", "ignore", "-c", PULL, json.dumps(fields), *more]


def run(command, **options):
    return subprocess.run(  # noqa: S603 - our own interpreter
        command, capture_output=True, text=True, timeout=60, check=False, **options
    )


def can_mount() -> bool:
    return run(["unshare", "-rm", "true"]).returncode == 0


def test_disk_that_fills_up_keeps_what_came_for_the_next_try(hub, pull, tmp_path):
    if not can_mount():
        pytest.skip("needs the right to mount a file system of its own (unshare -rm)")
    cache, kept = tmp_path / "cache", tmp_path / "kept"
    cache.mkdir()
    script = (
        f"mount -t tmpfs -o size=128k tmpfs {cache} && "
        '"$@"; code=$?; '
        f"find {cache} -type f -size +1k -exec ls -l {{}} + > {kept}; exit $code"
    )
    done = run(["unshare", "-rm", "sh", "-c", script, "sh", *arguments("no-look-ahead")])
    assert done.returncode == 4, done.stderr
    assert done.stdout.startswith("disk The disk of ")
    assert "filled up while `test/net` was downloaded (No space left on device)" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    lines = kept.read_text().splitlines()
    assert len(lines) == 1
    assert "/downloads/" in lines[0]
    # Without the look-ahead switched off the same disk is refused before the first byte.
    asked = len(hub.gets)
    done = run(["unshare", "-rm", "sh", "-c", script, "sh", *arguments()])
    assert done.stdout.startswith("disk `test/net` needs 307,200 more bytes")
    assert len(hub.gets) == asked


def test_file_size_limit_counts_as_a_full_disk(hub, pull):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = run(arguments(), preexec_fn=limit, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode == 4, done.stderr
    assert done.stdout.startswith("disk The disk of ")
    assert nothing_in_place(pull)
    assert pull().read_bytes() == CONTENT
    assert hub.gets == [None, "bytes=100000-"]


def test_two_processes_at_once_download_once(hub, pull):
    hub.pause_s = 1.0
    two = [
        subprocess.Popen(arguments(), stdout=subprocess.PIPE, text=True)  # noqa: S603 - ours
        for _ in "ab"
    ]
    outputs = [process.communicate(timeout=60)[0].strip() for process in two]
    assert [process.returncode for process in two] == [0, 0]
    assert outputs == [str(pull.folder / "net.bin")] * 2
    assert Path(outputs[0]).read_bytes() == CONTENT
    assert hub.gets == [None]


def test_killed_process_leaves_what_came_for_the_next_one(hub, pull):
    source = f"{hub.address}/store/net"
    hub.hangs_after = 150_000
    process = subprocess.Popen(arguments(source=source))  # noqa: S603 - ours
    deadline = time.monotonic() + 60
    while sum(part.stat().st_size for part in pull.downloads.glob("*")) < 100_000:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    hub.goes_on.set()
    assert nothing_in_place(pull)
    hub.hangs_after = None
    assert pull(source=source).read_bytes() == CONTENT
    first, second = hub.gets
    assert first is None
    assert int(second.removeprefix("bytes=").rstrip("-")) >= 100_000
    assert list(pull.downloads.iterdir()) == []


def test_progress_counts_bytes_from_where_an_earlier_try_stopped(hub, pull, capsys, monkeypatch):
    monkeypatch.setattr("animaray.platform.progress.PLAIN_INTERVAL_S", 0.0)
    hub.cut_at = [70_000]
    source = f"{hub.address}/store/net"
    with pytest.raises(WeightsError):
        pull(source=source)
    assert capsys.readouterr().err == ""
    weights.pull_weights("test/net", quiet=False)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "test/net: started 0 bytes of 307.2 kB after 0 s"
    assert lines[1].startswith("test/net: running 70.0 kB of 307.2 kB")
    assert lines[-1].startswith("test/net: done 307.2 kB of 307.2 kB")
    weights.pull_weights("test/net", quiet=False)
    assert capsys.readouterr().err == ""
