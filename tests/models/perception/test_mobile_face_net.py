import itertools
import json

import numpy as np
import onnxruntime
import pytest
import torch

from animaray.models.perception.face_alignment import align_face
from animaray.models.perception.face_sampling import align_frames
from animaray.models.perception.permissive.mobile_face_net import (
    MobileFaceNet,
    MobileFaceNetEmbedder,
)
from animaray.models.perception.permissive.yunet import YuNetFaceDetector
from animaray.models.perception.protocols import IdentityEmbedder
from animaray.platform.errors import WeightsError
from animaray.platform.media.picture import read_picture


def test_architecture_has_the_published_size():
    # 0.99 M numbers in the paper for 112x112 crops and 128 dimensions; 7x6 kernel here.
    num_parameters = sum(parameter.numel() for parameter in MobileFaceNet().parameters())
    assert 0.98e6 < num_parameters < 1.02e6


def test_embeddings_are_unit_and_blind_to_mirroring():
    embedder = MobileFaceNetEmbedder().eval()
    assert isinstance(embedder, IdentityEmbedder)
    crops = torch.rand(2, 3, 112, 96) * 2 - 1
    with torch.no_grad():
        embeddings, mirrored = embedder.embed_crops(crops), embedder.embed_crops(crops.flip(-1))
    torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(2))
    torch.testing.assert_close(embeddings, mirrored)


def test_gradients_flow_to_the_crops():
    crops = (torch.rand(1, 3, 112, 96) * 2 - 1).requires_grad_()
    MobileFaceNetEmbedder().eval().embed_crops(crops)[0, 0].backward()
    assert crops.grad.abs().sum() > 0


def test_files_of_another_kind_are_refused(tmp_path):
    file = tmp_path / "face_id.ckpt"
    file.write_bytes(b"garbage")
    with pytest.raises(WeightsError, match="cannot be read"):
        MobileFaceNetEmbedder.load(file)
    torch.save({"weights": {}}, file)
    with pytest.raises(WeightsError, match=r"key net_state_dict in .*; it has weights"):
        MobileFaceNetEmbedder.load(file)
    torch.save({"net_state_dict": {"conv1.conv.weight": torch.zeros(1)}}, file)
    with pytest.raises(WeightsError, match="does not hold the weights of MobileFaceNet"):
        MobileFaceNetEmbedder.load(file)
    torch.save([1, 2], file)
    with pytest.raises(WeightsError, match="Expected a mapping of tensors"):
        MobileFaceNetEmbedder.load(file)


@pytest.mark.real
def test_network_equals_its_onnx_conversion(real_weights):
    embedder = MobileFaceNetEmbedder.load()
    session = onnxruntime.InferenceSession(
        str(real_weights / "face_id.onnx"), providers=["CPUExecutionProvider"]
    )
    crops = torch.rand(3, 3, 112, 96) * 2 - 1
    expected = session.run(None, {"image": crops.numpy()})[0]
    found = embedder.network(crops).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())


@pytest.mark.real
def test_people_are_told_apart(real_data, real_weights):
    people = json.loads((real_data / "annotations/identities.json").read_text())
    detector, embedder = YuNetFaceDetector.load(), MobileFaceNetEmbedder.load()
    embeddings = {}
    for name in people:
        frame = read_picture(real_data / f"images/{name}")
        embeddings[name] = embedder.embed(frame, detector.detect(frame)[0].landmarks)
    same, different = [], []
    for one, other in itertools.combinations(people, 2):
        likeness = float(embeddings[one] @ embeddings[other])
        (same if people[one] == people[other] else different).append(likeness)
    # 17 pairs of one person (least 0.64), 214 of two people (most 0.33).
    assert len(same) + len(different) == 231
    assert min(same) > 0.44
    assert max(different) < 0.35


@pytest.mark.real
def test_differentiable_path_gives_the_same_embedding(real_data, real_weights):
    frame = read_picture(real_data / "images/p07_1.jpg")
    landmarks = YuNetFaceDetector.load().detect(frame)[0].landmarks
    embedder = MobileFaceNetEmbedder.load()
    expected = embedder.embed(frame, landmarks)
    frames = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 127.5 - 1
    crops = align_frames(frames, torch.from_numpy(landmarks)[None], embedder.template(), (112, 96))
    found = embedder.embed_crops(crops)[0].numpy()
    assert float(found @ expected) > 0.999
    assert align_face(frame, landmarks, embedder.template(), 112, 96).shape == (112, 96, 3)
