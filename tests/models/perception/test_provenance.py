import hashlib
import re

import cv2
import numpy as np
import pytest

from animaray.models.perception import provenance as provenance
from animaray.models.perception.permissive.optical_flow import OpticalFlowConfig, OpticalFlowTracker
from animaray.models.perception.profiles import load_perception
from animaray.models.perception.provenance import provenance_of
from animaray.models.perception.same_person import (
    comparable_cosines,
    embedder_of,
    same_person_cosine,
)
from animaray.platform.weights.store import resolve_weights


def test_a_name_comes_with_the_hash_of_its_weights():
    found = provenance_of("generated/face_detector generated/identity", OpticalFlowConfig())
    parts = dict(part.split("@") for part in found.split())
    assert list(parts) == ["generated/face_detector", "generated/identity", "settings"]
    data = resolve_weights("generated/identity").read_bytes()
    assert parts["generated/identity"] == hashlib.sha256(data).hexdigest()[:12]
    assert embedder_of(found) == f"generated/identity@{parts['generated/identity']}"


def test_other_weights_or_settings_make_another_producer(tmp_path, monkeypatch):
    first = provenance_of("generated/pose", OpticalFlowConfig())
    assert provenance_of("generated/pose", OpticalFlowConfig()) == first
    other = provenance_of("generated/pose", OpticalFlowConfig(window_px=23))
    assert other.split()[0] == first.split()[0]
    assert other != first
    (tmp_path / "pose").write_bytes(b"retrained")
    monkeypatch.setattr(provenance, "resolve_weights", lambda _: tmp_path / "pose")
    assert provenance_of("generated/pose", OpticalFlowConfig()).split()[0] != first.split()[0]


def test_two_files_give_one_hash_and_inner_files_are_found(tmp_path, monkeypatch):
    for name in ("scrfd_10g_bnkps.onnx", "glintr100.onnx"):
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(provenance, "resolve_weights", lambda _: tmp_path)
    scrfd, arcface = (
        part.split("@")[1] for part in provenance_of("paper/scrfd paper/arcface", None).split()
    )
    assert scrfd == hashlib.sha256(b"scrfd_10g_bnkps.onnx").hexdigest()[:12]
    assert arcface == hashlib.sha256(b"glintr100.onnx").hexdigest()[:12]
    monkeypatch.setattr(provenance, "resolve_weights", lambda _: tmp_path / "glintr100.onnx")
    (pose,) = provenance_of("paper/dwpose", None).split()
    assert re.fullmatch(r"paper/dwpose@[0-9a-f]{12}", pose)


def test_opencv_is_known_by_its_version_and_strangers_by_name():
    name = OpticalFlowTracker().name
    assert provenance_of(name, None) == f"{name}@{cv2.__version__}"
    assert provenance_of("scripted", None) == "scripted"
    assert embedder_of("drawn") == "drawn"


def test_the_limit_of_one_person_follows_the_recogniser():
    assert same_person_cosine("development/mobile_face_net@0123") == 0.4
    limit = same_person_cosine("permissive/dlib_identity@0123")
    assert limit == 0.61
    cosines = np.array([-1.0, limit, 1.0])
    found = comparable_cosines(cosines, "permissive/dlib_identity")
    assert found[1:].tolist() == pytest.approx([0.4, 1.0])
    np.testing.assert_array_equal(comparable_cosines(cosines, "generated/identity"), cosines)


@pytest.mark.parametrize("profile", ["generated"])
def test_every_network_of_a_profile_is_registered(profile):
    perception = load_perception(profile)
    for network in (
        perception.face_detector,
        perception.identity_embedder,
        perception.pose_estimator,
    ):
        assert "@" in provenance_of(network.name, None)


def test_networks_of_the_permissive_profile_are_registered(permissive_weights):
    test_every_network_of_a_profile_is_registered("permissive")
