"""Files that are not what their names say are refused by name, and nothing half-written stays."""

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from animaray.cli.main import run
from animaray.models.interop.importing import ImportOptions, import_backbone, import_published
from animaray.models.interop.layout import BACKBONE_FOLDER
from animaray.models.interop.new_folder import new_folder
from animaray.models.networks.pose_net import PoseNetConfig
from animaray.platform.errors import WeightsError
from benchmarks.rehearsal.random_networks import random_network
from benchmarks.rehearsal.sizes import SMALL as SIZES

SMALL = ImportOptions(width_px=64, height_px=64)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:6c46bde1\nsize 6201376518\n"
STOCK_UNET = f"{BACKBONE_FOLDER}/unet/diffusion_pytorch_model.fp16.safetensors"


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def make_pointer(file):
    file.write_bytes(POINTER)


def empty(file):
    file.write_bytes(b"")


def other_keys(file):
    state = {"conv.weight": torch.zeros(2, 2)}
    if file.suffix == ".safetensors":
        save_file(state, file)
    else:
        torch.save(state, file)


class Bomb:
    def __reduce__(self):
        return os.system, ("true",)


def pickled_code(file):
    torch.save({"conv.weight": torch.zeros(1), "x": Bomb()}, file)


def import_all(source, out):
    """Import what holds the file: the authors' model, or the stock U-Net alone."""
    import_published(source, out, SMALL)
    import_backbone(source / BACKBONE_FOLDER, out.with_name("start"), SMALL)


CUT = "cut off|cannot be read"
POINTS = "a 79-byte Git-LFS pointer, not the weights"
OTHER = "do not fit|Expected the state dict"
CODE = "it holds code|not a readable safetensors file"
ANIMATION, VAE, IMAGE_ENCODER = (
    ("Animation/unet.pth", "Animation/pose_net.pth", "Animation/face_encoder.pth"),
    f"{BACKBONE_FOLDER}/vae/diffusion_pytorch_model.fp16.safetensors",
    f"{BACKBONE_FOLDER}/image_encoder/model.fp16.safetensors",
)
ARC_FACE = "Animation/glintr100_torch.pth"


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        *((name, cut, CUT) for name in (ANIMATION[0], ARC_FACE, VAE, STOCK_UNET)),
        *((name, make_pointer, POINTS) for name in (ANIMATION[1], IMAGE_ENCODER, STOCK_UNET)),
        *((name, other_keys, OTHER) for name in (*ANIMATION, ARC_FACE, VAE, STOCK_UNET)),
        *((name, pickled_code, CODE) for name in (ANIMATION[2], ARC_FACE, VAE)),
        (ANIMATION[0], empty, r"is empty \(0 bytes\)"),
    ],
)
def test_wrong_files_are_refused_by_name(own_published, tmp_path, name, spoil, message):
    file = own_published / name
    spoil(file)
    with pytest.raises(WeightsError, match=message) as caught:
        import_all(own_published, tmp_path / "out")
    assert file.name in str(caught.value)
    assert "\n" not in str(caught.value)
    left = {"source", "out"} if name == STOCK_UNET else {"source"}
    assert {path.name for path in tmp_path.iterdir()} == left


def test_recogniser_that_is_a_pointer_is_named(own_published, tmp_path):
    (own_published / "Animation" / "glintr100_torch.pth").unlink()
    make_pointer(own_published / "antelopev2" / "glintr100.onnx")
    with pytest.raises(WeightsError, match=r"glintr100\.onnx is a 79-byte Git-LFS pointer"):
        import_published(own_published, tmp_path / "out", SMALL)


def test_networks_of_another_width_are_named(own_published, tmp_path):
    wider = replace(SIZES, pose_net=PoseNetConfig(out_channels=64))
    state = random_network("pose_net", wider).state_dict()
    torch.save(state, own_published / "Animation" / "pose_net.pth")
    with pytest.raises(WeightsError, match=r"different sizes: .*pose_net.out_channels.* got 64"):
        import_published(own_published, tmp_path / "out", SMALL)


def test_the_command_names_the_file_and_its_remedy(own_published, tmp_path, capsys):
    make_pointer(own_published / "Animation" / "unet.pth")
    assert run(["weights", "import", str(own_published), "--out", str(tmp_path / "out")]) == 4
    shown = capsys.readouterr().err
    assert "unet.pth is a 79-byte Git-LFS pointer, not the weights" in shown
    assert "`git lfs pull`" in shown
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_ctrl_c_leaves_nothing(published, tmp_path):
    def stop(name):
        if name.startswith("vae"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_published(published, tmp_path / "out", SMALL, on_file=stop)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_import_left_is_removed_and_a_running_one_is_not(tmp_path):
    script = textwrap.dedent(
        f"""
        import sys, time
        from pathlib import Path
        from animaray.models.interop.new_folder import new_folder
        with new_folder(Path({str(tmp_path / "out")!r})) as folder:
            (folder / "half").write_bytes(b"half")
            print("ready", flush=True)
            time.sleep(60)
        """
    )
    other = subprocess.Popen(  # noqa: S603 - our own script
        [sys.executable, "-c", script], stdout=subprocess.PIPE
    )
    try:
        assert other.stdout.readline() == b"ready\n"
        (half,) = tmp_path.iterdir()
        with new_folder(tmp_path / "out") as folder:
            assert half.is_dir()
            (folder / "whole").touch()
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
        other.stdout.close()
    (tmp_path / "out" / "whole").unlink()
    with new_folder(tmp_path / "out"):
        assert not half.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
