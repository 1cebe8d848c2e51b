import json

import pytest
import torch
from safetensors.torch import load_file

from animaray.cli.main import run
from animaray.models.networks.animator import Animator
from animaray.models.networks.animator_config import AnimatorConfig


@pytest.fixture
def weights(tmp_path):
    """Return a weights folder of the published form, without frozen parts."""
    from dataclasses import replace

    config = AnimatorConfig.tiny()
    face_encoder = replace(config.face_encoder, identity_scale=1.0)
    config = replace(
        config, reference_attention=None, moved_reference=None, face_encoder=face_encoder
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
    assert "Expected --size WIDTHxHEIGHT such as 576x1024, got 'wide'" in capsys.readouterr().err


def test_list_says_what_is_confirmed(capsys):
    assert run(["weights", "list", "--json"]) == 0
    rows = {row["id"]: row for row in json.loads(capsys.readouterr().out)["weights"]}
    assert rows["paper/stable-animator/unet"]["confirmed"] is True
    assert "huggingface.co/FrancisRing" in rows["paper/stable-animator/unet"]["confirmed_by"]
    assert rows["paper/stable-animator/arcface"]["confirmed"] is False
