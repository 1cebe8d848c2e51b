import functools
import hashlib
import http.server
import json
import threading
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from animaray.cli.main import run
from animaray.models.networks.animator import Animator
from animaray.models.networks.animator_config import AnimatorConfig
from animaray.platform.weights import package_index
from animaray.platform.weights.store import WEIGHTS, WeightsEntry, profile_entries


@pytest.fixture
def weights(tmp_path):
    """Return a weights folder of the published form, without frozen parts."""
    config = AnimatorConfig.tiny()
    face_encoder = replace(config.face_encoder, identity_scale=1.0)
    config = replace(
        config, reference_attention=None, warped_reference=None, face_encoder=face_encoder
    )
    Animator(config).save_pretrained(tmp_path / "weights")
    return tmp_path / "weights"


def test_export_writes_the_published_layout(weights, tmp_path, capsys):
    assert run(["weights", "export", str(weights), "--out", str(tmp_path / "out"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["absent"] == ["vae", "image_encoder"]
    exported = torch.load(tmp_path / "out" / "Animation" / "pose_net.pth", weights_only=True)
    stored = load_file(weights / "pose_net" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(exported[key], stored[key]) for key in stored)


def test_import_names_what_is_missing_and_leaves_nothing(weights, tmp_path, capsys, monkeypatch):
    assert run(["weights", "export", str(weights), "--out", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    arguments = ["weights", "import", str(tmp_path / "out"), "--out", str(tmp_path / "in")]
    assert run(arguments) == 4
    error = capsys.readouterr().err
    assert "vae/diffusion_pytorch_model.safetensors, image_encoder/model.safetensors" in error
    assert not (tmp_path / "in").exists()
    # Without a source the folder of `weights pull` is taken.
    monkeypatch.setenv("ANIMARAY_WEIGHTS", str(tmp_path / "nowhere"))
    assert run(["weights", "import", "--out", str(tmp_path / "in")]) == 4
    assert f"There is no folder {tmp_path / 'nowhere'}" in capsys.readouterr().err


def test_wrong_size_is_refused(tmp_path, capsys):
    out = str(tmp_path / "in")
    assert run(["weights", "import", str(tmp_path), "--out", out, "--size", "wide"]) == 2
    err = capsys.readouterr().err
    assert "--size takes WIDTHxHEIGHT in pixels, as in 576x1024, got `wide`" in err


def test_list_says_what_is_confirmed(capsys):
    assert run(["weights", "list", "--json"]) == 0
    rows = {row["id"]: row for row in json.loads(capsys.readouterr().out)["weights"]}
    assert rows["paper/stable-animator/unet"]["confirmed"] is True
    assert "huggingface.co/FrancisRing" in rows["paper/stable-animator/unet"]["confirmed_by"]
    assert rows["paper/stable-animator/arcface"]["confirmed"] is False


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format, *args):  # noqa: A002 - the base class names it so
        pass


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """Register three files of profile `paper`: two on a loopback server, one that is absent."""
    public = tmp_path / "public"
    public.mkdir()
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Quiet, directory=str(public))
    )
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("ANIMARAY_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("ANIMARAY_WEIGHTS", raising=False)
    for name in [name for name in WEIGHTS if "paper" in WEIGHTS[name].needed_by]:
        monkeypatch.delitem(WEIGHTS, name)
    for part in "abc":
        content = part.encode() * 1000
        if part != "b":
            (public / part).write_bytes(content)
        entry = WeightsEntry(
            id=f"paper/{part}",
            purpose="a test",
            file=f"{part}.bin",
            source=f"http://127.0.0.1:{server.server_port}/{part}",
            size_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            licence="MIT",
            commercial_use=part != "c",
            needed_by=("paper",),
        )
        monkeypatch.setitem(WEIGHTS, entry.id, entry)
    yield public
    server.shutdown()
    server.server_close()


def test_pull_takes_several_ids_and_a_profile(registry, tmp_path, capsys):
    assert run(["weights", "pull", "paper/c", "paper/a", "paper/c"]) == 0
    shown = capsys.readouterr()
    assert "paper/c: started 0 bytes of 1.0 kB after 0 s" in shown.err
    assert "paper/c: done 1.0 kB of 1.0 kB" in shown.err
    assert "(MIT; no commercial use)" in shown.err
    assert sorted(path.name for path in (tmp_path / "cache" / "weights").iterdir()) == [
        "a.bin",
        "c.bin",
    ]
    (registry / "b").write_bytes(b"b" * 1000)
    assert run(["weights", "pull", "--profile", "paper", "--json"]) == 0
    shown = capsys.readouterr()
    assert list(json.loads(shown.out)["pulled"]) == ["paper/a", "paper/b", "paper/c"]
    assert "paper/a: started" not in shown.err


def test_pull_goes_on_past_a_file_that_cannot_be_had(registry, tmp_path, capsys):
    assert run(["weights", "pull", "--profile", "paper", "--json"]) == 4
    shown = capsys.readouterr()
    answer = json.loads(shown.out)
    assert list(answer["pulled"]) == ["paper/a", "paper/c"]
    assert "404" in answer["failed"]["paper/b"]
    assert "1 of 3 files could not be had: paper/b." in shown.err
    assert [path.name for path in (tmp_path / "cache" / "downloads").iterdir()] == []


def test_wheel_that_cannot_be_had_is_tried_once_for_all_its_files(
    registry, tmp_path, capsys, monkeypatch
):
    asked = []
    monkeypatch.setattr(package_index, "_all_settings", lambda: asked.append(1) or iter(()))
    for part in "de":
        entry = replace(
            WEIGHTS["paper/a"],
            id=f"paper/{part}",
            file=f"{part}.net",
            source=f"index:nets==1:{part}.net",
            distribution="nets-1.tar.gz",
            archive_bytes=9,
            archive_sha256="1" * 64,
        )
        monkeypatch.setitem(WEIGHTS, entry.id, entry)
    assert run(["weights", "pull", "paper/d", "paper/e", "paper/a", "--json"]) == 4
    shown = capsys.readouterr()
    answer = json.loads(shown.out)
    assert list(answer["pulled"]) == ["paper/a"]
    assert list(answer["failed"]) == ["paper/d", "paper/e"]
    assert "paper/d from nets-1.tar.gz of the package index (MIT)" in shown.err
    assert asked == [1]


def test_doctor_names_the_command_that_fetches_a_profile(registry, tmp_path, capsys, monkeypatch):
    assert run(["doctor", "--json"]) == 0
    tasks = {row["task"]: row for row in json.loads(capsys.readouterr().out)["tasks"]}
    real = tasks["move a photo"]
    assert "permissive/identity" in real["state"]
    assert real["fix"] == "animaray weights pull --profile permissive"
    assert tasks["encode and train on real videos"]["fix"] == (
        "animaray weights pull permissive/codec_encoder permissive/codec_decoder "
        "--profile permissive"
    )
    for entry in profile_entries("permissive"):
        monkeypatch.delitem(WEIGHTS, entry.id)
    assert run(["doctor", "--json"]) == 0
    tasks = {row["task"]: row for row in json.loads(capsys.readouterr().out)["tasks"]}
    assert tasks["move a photo"]["state"] == "ready"
    fix = tasks["encode and train on real videos"]["fix"]
    assert fix == "animaray weights pull permissive/codec_encoder permissive/codec_decoder"


def test_pull_of_nothing_or_of_unknown_names_is_refused(registry, capsys):
    assert run(["weights", "pull"]) == 2
    assert "Nothing to pull. Name ids of `animaray weights list`" in capsys.readouterr().err
    assert run(["weights", "pull", "paper/moon"]) == 2
    assert run(["weights", "pull", "--profile", "moon"]) == 2
    assert "Unknown profile `moon`" in capsys.readouterr().err
