"""dlib's recogniser, read and run without dlib."""

import itertools
import json

import numpy as np
import pytest
import torch

from animaray.models.perception.face_alignment import align_face
from animaray.models.perception.face_sampling import align_frames
from animaray.models.perception.permissive.dlib_identity import (
    CROP_PX,
    DlibFaceNet,
    DlibIdentityEmbedder,
)
from animaray.models.perception.permissive.head_faces import HeadFaceDetector
from animaray.models.perception.protocols import IdentityEmbedder
from animaray.models.perception.same_person import same_person_cosine
from animaray.platform.errors import WeightsError
from animaray.platform.media.picture import read_picture
from animaray.platform.weights.store import resolve_weights


@pytest.fixture(scope="module")
def file(permissive_weights):
    return resolve_weights("permissive/identity")


@pytest.fixture(scope="module")
def embedder(file):
    return DlibIdentityEmbedder.load(file)


@pytest.fixture(scope="module")
def portrait(real_data):
    frame = read_picture(real_data / "images/p07_1.jpg")
    landmarks = np.array([(362, 177), (449, 177), (408, 229), (355, 261), (457, 260)], np.float32)
    return frame, landmarks


def crops_of(portrait, embedder):
    frame, landmarks = portrait
    return align_face(frame, landmarks, embedder.template(), CROP_PX, CROP_PX)


def test_the_network_equals_dlib_s_own(file, embedder, portrait):
    dlib = pytest.importorskip("dlib", reason="dlib-bin is not installed")
    theirs = dlib.face_recognition_model_v1(str(file))
    noise = np.random.default_rng(0).integers(0, 256, (150, 150, 3), dtype=np.uint8)
    for crop in (crops_of(portrait, embedder), noise):
        batch = torch.from_numpy(crop).permute(2, 0, 1)[None].float()
        with torch.inference_mode():
            ours = embedder.network(batch)[0].numpy()
        np.testing.assert_allclose(ours, theirs.compute_face_descriptor(crop), atol=1e-5)


def test_numbers_of_a_portrait_are_those_that_dlib_gave(embedder, portrait):
    batch = torch.from_numpy(crops_of(portrait, embedder)).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        numbers = embedder.network(batch)[0]
    theirs = torch.tensor([-0.1104, 0.1162, 0.0159, -0.0697, -0.0165, 0.0087])
    torch.testing.assert_close(numbers[:6], theirs, atol=2e-3, rtol=0)
    assert numbers.norm().item() == pytest.approx(1.431, abs=2e-3)


def test_embeddings_are_unit_and_gradients_flow_to_the_frame(embedder, portrait):
    assert isinstance(embedder, IdentityEmbedder)
    frame, landmarks = portrait
    found = embedder.embed(frame, landmarks)
    assert np.linalg.norm(found) == pytest.approx(1.0, abs=1e-5)
    frames = (torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 127.5 - 1).requires_grad_()
    crops = align_frames(
        frames, torch.from_numpy(landmarks)[None], embedder.template(), (CROP_PX, CROP_PX)
    )
    again = embedder.embed_crops(crops)[0]
    assert float(again.detach() @ torch.from_numpy(found)) > 0.99
    again[0].backward()
    assert frames.grad is not None
    assert frames.grad[0, :, 100:350, 300:500].abs().sum() > 0
    assert not frames.grad[0, :, 600:].any()


def test_damaged_files_and_other_networks_are_refused(file, tmp_path):
    whole = file.read_bytes()
    broken = {
        "cut": whole[:5_000_000],
        "empty": b"",
        "text": b"not a network " * 100,
        "sizes": whole.replace(b"\x05con_4\x01\x02", b"\x05con_4\x01\x03", 1),
    }
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match="Expected dlib's face recogniser") as error:
            DlibFaceNet(tmp_path / name)
        assert error.value.reason == "damaged"
        assert error.value.fix is not None


@pytest.mark.real
def test_people_are_told_apart(real_data, permissive_weights, embedder):
    people = json.loads((real_data / "annotations/identities.json").read_text())
    detector = HeadFaceDetector.load()
    embeddings = {}
    for name in people:
        frame = read_picture(real_data / f"images/{name}")
        embeddings[name] = embedder.embed(frame, detector.detect(frame)[0].landmarks)
    same, different = [], []
    for one, other in itertools.combinations(people, 2):
        likeness = float(embeddings[one] @ embeddings[other])
        (same if people[one] == people[other] else different).append(likeness)
    # 17 pairs of one person (least 0.63), 214 of two people (most 0.40).
    assert min(same) > same_person_cosine(embedder.name) > max(different)
