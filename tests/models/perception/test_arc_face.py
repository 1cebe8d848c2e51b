import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from animaray.models.perception.paper.arc_face import ArcFaceEmbedder, iresnet_config
from animaray.models.perception.paper.iresnet import IResNet, IResNetConfig
from animaray.models.perception.protocols import IdentityEmbedder, RawIdentityEmbedder
from animaray.platform.errors import WeightsError

TINY = IResNetConfig(blocks=(1, 2), widths=(4, 8), embedding_dim=16)


@pytest.fixture
def embedder():
    torch.manual_seed(1)
    network = IResNet(TINY)
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2.0)
    return ArcFaceEmbedder(network)


@pytest.fixture
def face():
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 255, (160, 160, 3), dtype=np.uint8)
    # The template itself, moved by (20, 10): the crop is a plain cut-out.
    return frame, ArcFaceEmbedder(IResNet(TINY)).template() + np.float32([20, 10])


def test_it_is_an_embedder(embedder):
    assert isinstance(embedder, IdentityEmbedder)
    assert isinstance(embedder, RawIdentityEmbedder)


def test_raw_output_is_the_networks_on_the_aligned_crop(embedder, face):
    frame, landmarks = face
    crop = torch.from_numpy(frame[10:122, 20:132].copy()).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        expected = embedder.network(crop)[0]
        swapped = embedder.network(crop.flip(1))[0]
    raw = embedder.embed_raw(frame, landmarks)
    np.testing.assert_allclose(raw, expected, atol=1e-4)
    np.testing.assert_allclose(embedder.embed_raw(frame, landmarks, "bgr"), swapped, atol=1e-4)
    assert not np.allclose(expected, swapped, atol=1e-3)
    np.testing.assert_allclose(embedder.embed(frame, landmarks), raw / np.linalg.norm(raw))
    np.testing.assert_allclose(embedder.embed_crops(crop)[0], raw / np.linalg.norm(raw), atol=1e-5)


def test_gradients_flow_to_the_crops(embedder):
    crops = (torch.rand(1, 3, 112, 112) * 2 - 1).requires_grad_()
    embedder.embed_crops(crops)[0, 0].backward()
    assert crops.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in embedder.parameters())


@pytest.mark.parametrize("name", ["glintr100_torch.pth", "model.safetensors"])
def test_sizes_and_weights_come_from_the_file(tmp_path, embedder, name):
    state = embedder.network.state_dict()
    if name.endswith(".pth"):
        torch.save(state, tmp_path / name)
    else:
        save_file(state, tmp_path / name)
    loaded = ArcFaceEmbedder.load(tmp_path / name)
    assert loaded.network.config == TINY
    assert all(torch.equal(v, state[k]) for k, v in loaded.network.state_dict().items())


def test_other_files_are_refused(tmp_path, embedder):
    with pytest.raises(WeightsError, match="Expected the state dict of an IResNet"):
        iresnet_config({"weight": (1,)}, Path("a.pth"))
    state = embedder.network.state_dict()
    del state["layer2.1.bn1.bias"]
    torch.save(state, tmp_path / "cut.pth")
    with pytest.raises(WeightsError, match=r"do not fit: 1 missing: layer2\.1\.bn1\.bias"):
        ArcFaceEmbedder.load(tmp_path / "cut.pth")
    with pytest.raises(WeightsError, match="there is no such file"):
        ArcFaceEmbedder.load(tmp_path / "absent.onnx")


def test_published_sizes_are_recognised(golden_data):
    shapes = {
        key: tuple(shape)
        for key, shape in json.loads((golden_data / "keys_face_extractor_r100.json").read_text())[
            "keys"
        ].items()
    }
    assert iresnet_config(shapes, Path("a.pth")) == IResNetConfig()
