import json
import math
import os
import struct
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from animaray.platform.errors import WeightsError
from animaray.platform.storage import sha256_file
from animaray.platform.weights import store as weights
from animaray.platform.weights.store import WEIGHTS, WeightsEntry

ROOT = Path(__file__).resolve().parents[2]
CONTENT = b"sixteen bytes...  and two more"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format, *args):  # noqa: A002 - the base class names it so
        pass


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("ANIMARAY_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("ANIMARAY_WEIGHTS", raising=False)
    monkeypatch.delenv("ANIMARAY_OFFLINE", raising=False)
    return tmp_path / "cache" / "weights"


@pytest.fixture
def server(tmp_path) -> Iterator[tuple[str, Path]]:
    folder = tmp_path / "public"
    folder.mkdir()
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=partial(http.serve_forever, poll_interval=0.02), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}", folder
    http.shutdown()
    http.server_close()
    thread.join()


def register(monkeypatch, **changes) -> WeightsEntry:
    fields = {
        "id": "test/net",
        "purpose": "a test",
        "file": "net.bin",
        "source": "https://example.invalid/net.bin",
        "size_bytes": None,
        "sha256": None,
        "licence": "MIT",
        "commercial_use": True,
        "needed_by": ("test",),
    }
    entry = WeightsEntry(**(fields | changes))
    monkeypatch.setitem(WEIGHTS, entry.id, entry)
    return entry


def test_every_row_is_complete_and_its_key_is_its_id():
    for weights_id, entry in WEIGHTS.items():
        assert weights_id == entry.id
        assert entry.purpose
        assert entry.licence
        assert not Path(entry.file).is_absolute()
        known = ("https://", "huggingface:", "converted:https://", "index:")
        assert entry.source.startswith(known) or entry.source == "bundled"
        assert set(entry.needed_by) <= {"generated", "permissive", "paper"}
        assert entry.sha256 is None or len(entry.sha256) == 64


def test_files_of_one_folder_do_not_collide():
    files = [entry.file for entry in WEIGHTS.values()]
    assert len(files) == len(set(files))


def test_non_commercial_licences_are_marked():
    for entry in WEIGHTS.values():
        words = entry.licence.lower()
        if "non-commercial" in words or "-nc" in words or "none stated" in words:
            assert not entry.commercial_use, entry.id


def test_confirmed_rows_have_what_was_confirmed():
    for entry in WEIGHTS.values():
        if entry.is_confirmed and entry.source != "bundled":
            assert entry.download_bytes, entry.id
            assert entry.download_sha256, entry.id
        if not entry.is_confirmed:
            assert "unverified" in entry.licence, entry.id
    unknown = [entry.id for entry in WEIGHTS.values() if not entry.is_confirmed]
    assert unknown == ["paper/stable-animator/arcface"]


# Stable Video Diffusion's own U-Net is the published one without the adapter.
FILES_OF_KEYS = {
    "paper/stable-video-diffusion/unet": ("unet", 2, lambda key: ".processor." not in key),
    "paper/stable-video-diffusion/vae": ("vae", 2, lambda key: True),  # noqa: ARG005
    "paper/stable-video-diffusion/image_encoder": ("image_encoder", 2, lambda key: True),  # noqa: ARG005
}


@pytest.mark.parametrize("weights_id", FILES_OF_KEYS)
def test_size_of_safetensors_files_follows_from_their_keys(golden_data, weights_id):
    name, item_bytes, is_in = FILES_OF_KEYS[weights_id]
    keys = json.loads((golden_data / f"keys_{name}.json").read_text())["keys"]
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for key in sorted(filter(is_in, keys)):
        end = offset + math.prod(keys[key]) * item_bytes
        header[key] = {"dtype": "F16", "shape": keys[key], "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":"))
    assert WEIGHTS[weights_id].size_bytes == 8 + -(-len(text) // 8) * 8 + offset


@pytest.mark.parametrize("name", ["unet", "pose_net", "face_encoder"])
def test_size_of_published_files_agrees_with_their_keys(golden_data, name):
    table = json.loads((golden_data / f"keys_{name}.json").read_text())
    extra = WEIGHTS[f"paper/stable-animator/{name}"].size_bytes - 4 * table["num_params"]
    # torch.save spends some hundred bytes on each tensor.
    assert 300 < extra / table["num_keys"] < 500


def test_docs_table_lists_every_row():
    page = (ROOT / "docs" / "weights.md").read_text(encoding="utf-8")
    for entry in WEIGHTS.values():
        line = next((row for row in page.splitlines() if f"| `{entry.id}` |" in row), "")
        assert line, f"docs/weights.md lacks {entry.id}"
        assert f"| {'yes' if entry.commercial_use else 'no'} |" in line, line
        assert f"| {entry.confirmed_by or '**not confirmed**'} |" in line, line


def test_unknown_id_names_the_known_ones():
    with pytest.raises(WeightsError, match=r"Unknown weights id `permissive/face`.*face_detector"):
        weights.resolve_weights("permissive/face")


def test_missing_file_names_itself_and_both_ways_to_get_it():
    with pytest.raises(
        WeightsError,
        match=r"no `face_det.onnx` in ANIMARAY_WEIGHTS \(not set\).*weights pull permissive/face"
        r".*ANIMARAY_WEIGHTS=folder",
    ) as caught:
        weights.resolve_weights("permissive/face_detector")
    assert caught.value.reason == "missing"


def test_own_folder_comes_before_the_cache(tmp_path, monkeypatch, own_cache):
    register(monkeypatch)
    own_cache.mkdir(parents=True)
    (own_cache / "net.bin").write_bytes(b"cached")
    assert weights.resolve_weights("test/net") == own_cache / "net.bin"
    own = tmp_path / "own"
    own.mkdir()
    (own / "net.bin").write_bytes(b"mine")
    monkeypatch.setenv("ANIMARAY_WEIGHTS", str(own))
    assert weights.resolve_weights("test/net") == own / "net.bin"


def test_bundled_file_comes_first(tmp_path, monkeypatch, own_cache):
    bundled = tmp_path / "bundled"
    bundled.mkdir()
    (bundled / "net.bin").write_bytes(b"shipped")
    own_cache.mkdir(parents=True)
    (own_cache / "net.bin").write_bytes(b"cached")
    monkeypatch.setattr(weights, "bundled_folder", lambda: bundled)
    register(monkeypatch, source="bundled")
    assert weights.resolve_weights("test/net") == bundled / "net.bin"


def test_every_bundled_file_is_there():
    bundled = [entry.id for entry in WEIGHTS.values() if entry.source == "bundled"]
    assert "generated/aligner" in bundled
    for weights_id in bundled:
        assert weights.resolve_weights(weights_id).is_relative_to(weights.bundled_folder())


def test_bundled_folder_lies_in_the_package():
    assert weights.bundled_folder().resolve() == ROOT / "models" / "perception" / "generated"


POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:25a606a145a5b6d7271ae138fbd00eba91dad8b83222ae3f2c7ecd0f4a7b0e31\nsize 317466\n"
)


@pytest.mark.parametrize(
    ("content", "reason", "message"),
    [
        (b"", "empty", "is empty"),
        (POINTER, "pointer", f"{len(POINTER)}-byte Git-LFS pointer"),
        (b"12345", "size", r"has 5 bytes, expected 317,466"),
    ],
)
def test_files_that_are_no_weights_are_named(tmp_path, monkeypatch, content, reason, message):
    (tmp_path / "face_det.onnx").write_bytes(content)
    monkeypatch.setenv("ANIMARAY_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match=message) as caught:
        weights.resolve_weights("permissive/face_detector")
    assert caught.value.reason == reason
    state = weights.weights_state("permissive/face_detector")
    assert state.state == reason
    assert state.path == str(tmp_path / "face_det.onnx")


def safetensors_bytes(num_floats: int) -> bytes:
    header = {"w": {"dtype": "F32", "shape": [num_floats], "data_offsets": [0, 4 * num_floats]}}
    text = json.dumps(header | {"__metadata__": {"made": "here"}}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(4 * num_floats)


def test_cut_off_safetensors_is_noticed_without_a_registered_size(tmp_path, monkeypatch):
    register(monkeypatch, file="net.safetensors")
    monkeypatch.setenv("ANIMARAY_WEIGHTS", str(tmp_path))
    file = tmp_path / "net.safetensors"
    file.write_bytes(safetensors_bytes(10))
    assert weights.resolve_weights("test/net") == file
    file.write_bytes(safetensors_bytes(10)[:-1])
    with pytest.raises(WeightsError, match=r"its header says .* cut off") as caught:
        weights.resolve_weights("test/net")
    assert caught.value.reason == "truncated"
    file.write_bytes(b"not a safetensors file at all")
    with pytest.raises(WeightsError, match="not a readable safetensors") as caught:
        weights.resolve_weights("test/net")
    assert caught.value.reason == "damaged"


def test_folder_with_one_bad_file_is_refused(tmp_path, monkeypatch):
    register(monkeypatch, file="animator")
    monkeypatch.setenv("ANIMARAY_WEIGHTS", str(tmp_path))
    (tmp_path / "animator").mkdir()
    with pytest.raises(WeightsError, match="empty folder"):
        weights.resolve_weights("test/net")
    (tmp_path / "animator" / "config.json").write_text("{}")
    (tmp_path / "animator" / "unet.safetensors").write_bytes(POINTER)
    with pytest.raises(WeightsError, match=r"unet\.safetensors is a .*pointer"):
        weights.resolve_weights("test/net")
    (tmp_path / "animator" / "unet.safetensors").write_bytes(safetensors_bytes(3))
    assert weights.resolve_weights("test/net") == tmp_path / "animator"


def test_verify_compares_the_hash(tmp_path, monkeypatch):
    register(monkeypatch, sha256="0" * 64)
    monkeypatch.setenv("ANIMARAY_WEIGHTS", str(tmp_path))
    (tmp_path / "net.bin").write_bytes(CONTENT)
    assert weights.resolve_weights("test/net")
    with pytest.raises(WeightsError, match="expected 000000000000") as caught:
        weights.verify_weights("test/net")
    assert caught.value.reason == "hash"
    register(monkeypatch, sha256=sha256_file(tmp_path / "net.bin"))
    assert weights.verify_weights("test/net") == tmp_path / "net.bin"


def test_list_covers_the_registry():
    states = {name: weights.weights_state(name) for name in WEIGHTS}
    assert list(states) == list(WEIGHTS)
    missing = states["paper/cotracker3"]
    assert (missing.state, missing.path) == ("missing", None)
    assert "animaray weights pull paper/cotracker3" in missing.problem


def test_pull_fetches_checks_and_keeps(monkeypatch, server, own_cache):
    address, public = server
    (public / "net.bin").write_bytes(CONTENT)
    digest = sha256_file(public / "net.bin")
    register(monkeypatch, source=f"{address}/net.bin", size_bytes=len(CONTENT), sha256=digest)
    assert weights.pull_weights("test/net") == own_cache / "net.bin"
    assert (own_cache / "net.bin").read_bytes() == CONTENT
    # A second pull must not need the source.
    (public / "net.bin").unlink()
    assert weights.pull_weights("test/net") == own_cache / "net.bin"


def test_second_pull_reads_nothing_until_the_file_changes(monkeypatch, server, own_cache):
    address, public = server
    (public / "net.bin").write_bytes(CONTENT)
    digest = sha256_file(public / "net.bin")
    register(monkeypatch, source=f"{address}/net.bin", size_bytes=len(CONTENT), sha256=digest)
    path = weights.pull_weights("test/net")
    hashed = []
    monkeypatch.setattr(weights, "sha256_file", lambda file: hashed.append(file) or digest)
    weights.pull_weights("test/net")
    assert hashed == []
    os.utime(path, ns=(1, 1))
    weights.pull_weights("test/net")
    assert hashed == [path]
    assert weights.verify_weights("test/net") == path  # always hashes
    assert len(hashed) == 2


def test_pull_replaces_a_damaged_file(monkeypatch, server, own_cache):
    address, public = server
    (public / "net.bin").write_bytes(CONTENT)
    register(monkeypatch, source=f"{address}/net.bin", sha256=sha256_file(public / "net.bin"))
    own_cache.mkdir(parents=True)
    (own_cache / "net.bin").write_bytes(b"damaged")
    weights.pull_weights("test/net")
    assert (own_cache / "net.bin").read_bytes() == CONTENT


def test_pull_keeps_nothing_of_a_wrong_file(monkeypatch, server, own_cache):
    address, public = server
    (public / "net.bin").write_bytes(CONTENT)
    register(monkeypatch, source=f"{address}/net.bin", sha256="1" * 64)
    with pytest.raises(WeightsError, match=r"is not `test/net`.*expected 111111111111"):
        weights.pull_weights("test/net")
    assert list(own_cache.iterdir()) == []


def test_pull_reports_a_failed_download(monkeypatch, server, own_cache):
    address, _ = server
    register(monkeypatch, source=f"{address}/absent.bin")
    with pytest.raises(WeightsError, match="failed: HTTP Error 404") as caught:
        weights.pull_weights("test/net")
    assert caught.value.reason == "download"
    assert list(own_cache.iterdir()) == []


def test_pull_unpacks_an_archive_without_its_top_folder(monkeypatch, server, own_cache):
    address, public = server
    with zipfile.ZipFile(public / "pack.zip", "w") as pack:
        pack.writestr("pack/det.onnx", CONTENT)
        pack.writestr("pack/sub/rec.onnx", b"more")
    register(
        monkeypatch,
        file="pack",
        source=f"{address}/pack.zip",
        archive_bytes=(public / "pack.zip").stat().st_size,
        archive_sha256=sha256_file(public / "pack.zip"),
    )
    assert weights.pull_weights("test/net") == own_cache / "pack"
    assert (own_cache / "pack" / "det.onnx").read_bytes() == CONTENT
    assert (own_cache / "pack" / "sub" / "rec.onnx").read_bytes() == b"more"


def test_pull_refuses_an_archive_that_leads_outside(monkeypatch, server, own_cache):
    address, public = server
    with zipfile.ZipFile(public / "pack.zip", "w") as pack:
        pack.writestr("pack/../../evil.txt", b"x")
    register(monkeypatch, file="pack", source=f"{address}/pack.zip")
    with pytest.raises(WeightsError, match=r"unsafe path 'pack/\.\./\.\./evil.txt'"):
        weights.pull_weights("test/net")
    assert list(own_cache.iterdir()) == []


def test_pull_refuses_what_is_no_download_and_when_offline(monkeypatch):
    with pytest.raises(
        WeightsError, match=r"no command fetches it yet; convert https://github.com/google-ai-edge"
    ):
        weights.pull_weights("permissive/pose_detector")
    register(monkeypatch, file="absent.bin", source="bundled")
    with pytest.raises(WeightsError, match="reinstall animaray"):
        weights.pull_weights("test/net")
    register(monkeypatch, source="ftp://example.invalid/net.bin")
    with pytest.raises(WeightsError, match="scheme `ftp`, expected https"):
        weights.pull_weights("test/net")
    monkeypatch.setenv("ANIMARAY_OFFLINE", "1")
    with pytest.raises(WeightsError, match="ANIMARAY_OFFLINE is set"):
        weights.pull_weights("test/net")


@pytest.mark.real
def test_registered_hashes_are_those_of_the_files(real_data, monkeypatch):
    monkeypatch.setenv("ANIMARAY_WEIGHTS", str((real_data / "weights/pose_lm.onnx").parent))
    checked = [
        weights.verify_weights(entry.id).name
        for entry in WEIGHTS.values()
        if entry.id.startswith(("permissive/", "development/")) and entry.distribution is None
    ]
    assert sorted(checked) == [
        "face_det.onnx", "face_id.ckpt", "pose_det.onnx", "pose_lm.onnx", "vae_dec.pth",
        "vae_enc.pth",
    ]  # fmt: skip
