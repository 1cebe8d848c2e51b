"""The authors' package and ours agree on stand-in files, and the package never fetches any."""

import builtins
import socket

import numpy as np
import pytest
import torch

from animaray.models.perception import profiles
from animaray.models.perception.paper import insightface_analysis, scrfd
from animaray.models.perception.paper.arc_face import ArcFaceEmbedder
from animaray.models.perception.paper.insightface_analysis import InsightFaceAnalysis
from animaray.models.perception.paper.scrfd import ScrfdFaceDetector
from animaray.models.perception.protocols import FaceDetector, IdentityEmbedder
from animaray.platform.errors import MachineError, WeightsError
from benchmarks.rehearsal import onnx_iresnet, scripted_detectors

FACE = np.array([[300, 100], [360, 100], [330, 140], [305, 170], [355, 170]], np.float32)
BOX = [270, 70, 390, 200]


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def antelope(tmp_path):
    folder = tmp_path / "weights" / "antelopev2"
    folder.mkdir(parents=True)
    scripted_detectors.write_scrfd(folder / "scrfd_10g_bnkps.onnx", [(0.9, 32, BOX, FACE)])
    onnx_iresnet.write_onnx(onnx_iresnet.random_iresnet(), folder / "glintr100.onnx")
    return folder


@pytest.mark.filterwarnings("ignore:`estimate` is deprecated:FutureWarning")
def test_the_package_and_our_networks_agree(antelope, no_network):
    pytest.importorskip("insightface", reason="the optional package insightface is absent")
    theirs = InsightFaceAnalysis(antelope)
    assert isinstance(theirs, FaceDetector)
    frame = np.random.default_rng(0).integers(0, 256, (640, 640, 3), dtype=np.uint8)
    (found,) = theirs.detect(frame)
    (ours,) = ScrfdFaceDetector(antelope / "scrfd_10g_bnkps.onnx").detect(frame)
    np.testing.assert_allclose(found.landmarks, ours.landmarks, atol=1e-2)
    np.testing.assert_allclose(found.box, ours.box, atol=1e-2)
    embedder = ArcFaceEmbedder.load(antelope / "glintr100.onnx")
    assert isinstance(embedder, IdentityEmbedder)
    assert theirs.embedding_dim == embedder.embedding_dim
    one, other = (each.embed(frame, found.landmarks) for each in (theirs, embedder))
    assert float(one @ other) > 0.9999
    # ... and ours passes gradients.
    crops = torch.rand(1, 3, 112, 112, requires_grad=True)
    embedder.embed_crops(crops).sum().backward()
    assert crops.grad is not None


@pytest.mark.parametrize("is_there", [True, False])
def test_profile_paper_takes_the_package_where_it_is_installed(
    antelope, monkeypatch, no_network, is_there
):
    if is_there:
        pytest.importorskip("insightface", reason="the optional package insightface is absent")
    else:
        monkeypatch.setattr(insightface_analysis, "is_installed", lambda: False)
    monkeypatch.setattr(insightface_analysis, "resolve_weights", lambda _: antelope)
    monkeypatch.setattr(scrfd, "resolve_weights", lambda _: antelope)
    (antelope / "glintr100.onnx").unlink()  # finding faces needs no recogniser
    detector = profiles._insightface_or_scrfd(1, "cpu")
    assert detector.name == ("paper/insightface" if is_there else "paper/scrfd")
    assert len(detector.detect(np.zeros((640, 640, 3), np.uint8))) == 1


def test_a_missing_folder_is_not_fetched(tmp_path, no_network):
    with pytest.raises(WeightsError, match="there is no such folder"):
        InsightFaceAnalysis(tmp_path / "antelopev2")


def test_half_a_folder_is_refused(antelope, no_network):
    pytest.importorskip("insightface", reason="the optional package insightface is absent")
    (antelope / "glintr100.onnx").unlink()
    with pytest.raises(WeightsError, match="holds no ONNX file for recognition"):
        InsightFaceAnalysis(antelope)


def test_without_the_package_it_says_so(antelope, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.split(".")[0] == "insightface":
            raise ImportError("No module named 'insightface'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MachineError, match="insightface cannot be imported"):
        InsightFaceAnalysis(antelope)
