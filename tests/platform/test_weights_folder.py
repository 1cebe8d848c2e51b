"""A wrong weights folder is refused before anything is started."""

import json
import struct
from pathlib import Path

import pytest

from animaray.platform.errors import WeightsError
from animaray.platform.weights.whole_files import require_whole_folder

NETWORKS = ("unet", "pose_net", "face_encoder")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("model_index.json", "perception.json"):
        (tmp_path / name).write_text('{"profile": "generated"}')
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    for network in NETWORKS:
        part = tmp_path / network
        part.mkdir()
        (part / "config.json").write_text("{}")
        (part / "diffusion_pytorch_model.safetensors").write_bytes(
            struct.pack("<Q", len(header)) + header + bytes(8)
        )
    return tmp_path


def test_whole_folder_passes(folder: Path) -> None:
    require_whole_folder(folder)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="There is no weights folder"):
        require_whole_folder(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["model_index.json", "perception.json", "unet/config.json"])
def test_missing_description_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(WeightsError, match=f"not a whole weights folder: {Path(name).name}"):
        require_whole_folder(folder)


def test_description_that_is_not_json_is_named(folder: Path) -> None:
    (folder / "model_index.json").write_text("version https://git-lfs")
    with pytest.raises(WeightsError, match=r"model_index\.json is not JSON"):
        require_whole_folder(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", r"-byte Git-LFS pointer"),
        (b"\x80\x04\x95" + bytes(100), "is not a readable safetensors file"),
        (b"", r"is empty \(0 bytes\)"),
        (struct.pack("<Q", 5) + b"{abc}" + bytes(8), "is not a readable safetensors file"),
        (struct.pack("<Q", 9) + b'{"a":"b"}' + bytes(8), "is not a readable safetensors file"),
    ],
)
def test_damaged_weights_are_named(folder: Path, content: bytes | None, message: str) -> None:
    file = folder / "pose_net" / "diffusion_pytorch_model.safetensors"
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        require_whole_folder(folder)


def test_weights_that_are_cut_short_are_named(folder: Path) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(WeightsError, match="cut off"):
        require_whole_folder(folder)
