import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from animaray.models.perception import profiles
from animaray.models.perception.files import (
    check_perception_files,
    reads_earlier_files,
)
from animaray.models.perception.profiles import (
    PROFILES,
    load_codec,
    load_image_encoder,
    load_perception,
)
from animaray.models.pose.layouts import FACE
from animaray.platform.errors import ConfigError, WeightsError
from animaray.platform.media.picture import read_picture
from animaray.platform.weights.store import weights_state


@pytest.fixture
def no_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("ANIMARAY_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("ANIMARAY_WEIGHTS", raising=False)


def need_generated(*parts: str) -> None:
    for part in parts:
        state = weights_state(f"generated/{part}")
        if state.state != "ok":
            pytest.skip(state.problem)


def test_profiles_are_three():
    assert PROFILES == ("generated", "permissive", "paper")


@pytest.mark.parametrize("load", [load_perception, load_codec, load_image_encoder])
def test_unknown_profiles_are_refused(load):
    with pytest.raises(ConfigError, match="profile `best`; known are generated, permissive, paper"):
        load("best")


def test_missing_file_of_the_permissive_profile_is_named(no_weights):
    with pytest.raises(WeightsError, match=r"pose_detection") as error:
        load_perception("permissive")
    assert error.value.reason == "missing"
    with pytest.raises(WeightsError, match=r"weights pull permissive/codec_encoder"):
        load_codec("permissive")


def test_missing_file_of_the_paper_profile_is_named(no_weights):
    with pytest.raises(WeightsError, match=r"weights pull paper/antelopev2"):
        load_perception("paper")
    with pytest.raises(WeightsError, match=r"weights pull paper/stable-video-diffusion/vae"):
        load_codec("paper")
    with pytest.raises(WeightsError, match=r"pull paper/stable-video-diffusion/image_encoder"):
        load_image_encoder("paper")


def test_nothing_heavy_is_imported_before_it_is_asked_for():
    code = (
        "import sys; import animaray.models.perception.profiles;"
        "print([m for m in ('onnxruntime', 'huggingface_hub') if m in sys.modules])"
    )
    answer = subprocess.run(  # noqa: S603 - our own fixed code
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


def test_threads_are_set_only_when_asked(monkeypatch):
    before_torch, before_cv2 = torch.get_num_threads(), cv2.getNumThreads()
    try:
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        assert profiles._use_threads(None) == 3
        monkeypatch.setenv("OMP_NUM_THREADS", "many")
        assert profiles._use_threads(None) == 1
        assert torch.get_num_threads() == before_torch
        assert profiles._use_threads(1) == 1
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (1, 1)
    finally:
        torch.set_num_threads(before_torch)
        cv2.setNumThreads(before_cv2)
    with pytest.raises(ConfigError, match="num_threads >= 1, got 0"):
        profiles._use_threads(0)


def test_hands_and_faces_are_seen_only_where_they_are_asked_for(real_data, permissive_weights):
    picture = read_picture(real_data / "images/p07_1.jpg")
    frame = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    check_perception_files("permissive", "whole_body_134")
    wanting = load_perception("permissive", pose_layout="whole_body_134").pose_estimator
    (person,) = wanting.estimate(frame)
    assert person.further_points is not None
    assert person.further_points[FACE, 2].min() > 0.5
    (body,) = load_perception("permissive").pose_estimator.estimate(frame)
    assert body.further_points is None
    np.testing.assert_array_equal(body.keypoints, person.keypoints)


def test_profile_generated_has_no_hands():
    with pytest.raises(ConfigError, match="sees bodies only"):
        load_perception("generated", pose_layout="whole_body_134")


def test_permissive_profile_sees_a_person(real_data, permissive_weights):
    perception = load_perception("permissive")
    frame = read_picture(real_data / "images/p07_1.jpg")
    faces = perception.face_detector.detect(frame)
    people = perception.pose_estimator.estimate(frame)
    embedding = perception.identity_embedder.embed(frame, faces[0].landmarks)
    assert len(faces) == 1
    assert len(people) == 1
    assert np.linalg.norm(embedding) == pytest.approx(1.0, abs=1e-5)
    # Face and pose agree: the nose keypoint lies in the face's box.
    left, top, right, bottom = faces[0].box
    assert left < people[0].keypoints[0, 0] < right
    assert top < people[0].keypoints[0, 1] < bottom


@pytest.mark.real
def test_files_of_earlier_versions_still_see_and_it_is_said(no_weights, real_weights, caplog):
    assert reads_earlier_files()
    check_perception_files("permissive")
    perception = load_perception("permissive")
    assert perception.face_detector.name == "permissive/yunet"
    assert perception.identity_embedder.name == "development/mobile_face_net"
    assert perception.pose_estimator.name == "permissive/mediapipe_pose"
    assert "files of an earlier version" in caplog.text


@pytest.mark.real
def test_a_profile_s_own_files_come_before_those_of_earlier_versions(
    real_weights, permissive_weights
):
    assert not reads_earlier_files()
    assert load_perception("permissive").identity_embedder.name == "permissive/dlib_identity"


def test_a_damaged_file_is_not_passed_over_for_an_earlier_one(no_weights, tmp_path, monkeypatch):
    (tmp_path / "pose_detection.tflite").write_bytes(b"cut")
    monkeypatch.setenv("ANIMARAY_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError) as error:
        check_perception_files("permissive")
    assert error.value.reason != "missing"


@pytest.mark.real
def test_permissive_codec_loads(real_weights):
    assert load_codec("permissive").latent_channels == 32


def test_generated_profile_loads():
    need_generated("face_detector", "identity", "pose", "codec", "image_encoder")
    perception = load_perception("generated")
    assert perception.profile == "generated"
    assert load_codec("generated").latent_channels == 4
    # The permissive profile has no image encoder of its own.
    assert load_image_encoder("permissive").name == load_image_encoder("generated").name
