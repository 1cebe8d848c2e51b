"""The imported weights at work: a picture and a driving clip to frames, in profile paper."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from animaray.models.animation.pipeline import AnimationOptions, AnimationPipeline
from animaray.models.face.optimization_config import FaceOptimizationConfig
from animaray.models.perception.paper.arc_face import ArcFaceEmbedder
from animaray.models.perception.paper.insightface_analysis import is_installed
from animaray.platform.errors import ConfigError
from animaray.platform.weights.whole_files import WEIGHTS_FILE
from benchmarks.rehearsal import scripted_detectors

OPTIONS = AnimationOptions(
    seed=3,
    face_optimization=False,
    num_inference_steps=2,
    window_frames=3,
    window_overlap=2,
)
PERSON = (200.0, 20.0, 440.0, 620.0)
FACE = np.array([[305, 60], [335, 60], [320, 75], [308, 90], [332, 90]], float)


@pytest.fixture(scope="module")
def marker_pipeline(weights_folder, marker_perception):
    embedder = ArcFaceEmbedder.load(weights_folder / "identity" / WEIGHTS_FILE)
    perception = replace(marker_perception, profile="paper", identity_embedder=embedder)
    return AnimationPipeline.from_pretrained(weights_folder, perception)


@pytest.fixture
def frames(marker_picture):
    return np.stack([marker_picture(96, 72, left=left) for left in (20, 24, 28, 32)])


def test_picture_and_driving_clip_give_frames(marker_pipeline, marker_picture, frames):
    reference = marker_pipeline.prepare_reference(marker_picture())
    motion = marker_pipeline.estimate_motion(frames)
    first, second = (marker_pipeline.animate(reference, motion, OPTIONS) for _ in "ab")
    assert first.frames_uint8.shape == (4, 64, 64, 3)
    assert first.frames_uint8.std() > 0
    assert np.array_equal(first.frames_uint8, second.frames_uint8)


@pytest.mark.parametrize("mode", ["fast", "published"])
def test_face_optimization_steers_through_the_imported_vae_and_recogniser(
    marker_pipeline, marker_picture, frames, mode
):
    reference = marker_pipeline.prepare_reference(marker_picture())
    motion = marker_pipeline.estimate_motion(frames[:2])
    options = replace(
        OPTIONS,
        face_optimization=mode,
        face_optimization_config=FaceOptimizationConfig(start_step=0, num_steps=1),
        num_inference_steps=1,
        window_frames=2,
        window_overlap=1,
    )
    animation = marker_pipeline.animate(reference, motion, options)
    (step,) = animation.face_optimization
    assert len(step.losses) > 1
    assert np.isfinite(step.losses).all()
    assert step.losses[-1] < step.losses[0]


def test_face_encoder_gets_the_raw_embedding_and_clip_the_whole_picture(
    marker_pipeline, marker_picture
):
    picture = marker_picture(120, 90)
    reference = marker_pipeline.prepare_reference(picture)
    embedder = marker_pipeline.perception.identity_embedder
    raw = embedder.embed_raw(picture, reference.face.landmarks)
    np.testing.assert_array_equal(reference.identity.raw, raw)
    assert np.linalg.norm(raw) != pytest.approx(1, abs=0.1)
    np.testing.assert_allclose(reference.identity_embedding, raw / np.linalg.norm(raw))
    whole = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        expected = marker_pipeline.image_encoder.encode(whole)
    torch.testing.assert_close(reference.image_embedding, expected)
    other = np.eye(512, dtype=np.float32)[0]
    changed = reference.with_identity(other)
    np.testing.assert_allclose(changed.identity.raw, other * np.linalg.norm(raw), rtol=1e-5)


def test_without_a_face_the_face_encoder_gets_zeros(marker_pipeline, marker_picture):
    reference = marker_pipeline.prepare_reference(marker_picture(), no_face=True)
    assert reference.identity.face_encoder_input("raw").shape == (512,)
    assert not reference.identity.face_encoder_input("raw").any()


def test_exchanged_colours_reach_only_the_face_encoder(
    marker_pipeline, marker_picture, monkeypatch
):
    right = marker_pipeline.prepare_reference(marker_picture())
    config = replace(marker_pipeline.animator.config, identity_input="raw_bgr")
    monkeypatch.setattr(marker_pipeline.animator, "config", config)
    exchanged = marker_pipeline.prepare_reference(marker_picture())
    np.testing.assert_array_equal(right.identity_embedding, exchanged.identity_embedding)
    assert not np.allclose(right.identity.raw, exchanged.identity.raw, rtol=0.01)


def test_recogniser_without_raw_output_is_refused(
    weights_folder, marker_perception, marker_picture
):
    pipeline = AnimationPipeline.from_pretrained(weights_folder, marker_perception)
    with pytest.raises(ConfigError, match="raw output, which marker does not give"):
        pipeline.prepare_reference(marker_picture())


def test_profile_paper_runs_from_registered_and_imported_files(
    weights_folder, tmp_path, monkeypatch
):
    monkeypatch.setenv("ANIMARAY_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("animaray.platform.weights.store._quick_problem", lambda *_: None)
    box = [*(FACE.min(axis=0) - 20), *(FACE.max(axis=0) + 20)]
    scripted_detectors.write_scrfd(
        tmp_path / "antelopev2" / "scrfd_10g_bnkps.onnx", [(0.9, 16, box, FACE)]
    )
    scripted_detectors.write_dwpose(tmp_path, PERSON)
    pipeline = AnimationPipeline.from_pretrained(weights_folder)
    names = [
        part.name
        for part in (
            pipeline.codec,
            pipeline.image_encoder,
            pipeline.perception.face_detector,
            pipeline.perception.identity_embedder,
            pipeline.perception.pose_estimator,
        )
    ]
    assert names == [
        "stable-video-diffusion/vae",
        "stable-video-diffusion/image_encoder",
        "paper/insightface" if is_installed() else "paper/scrfd",
        "paper/arcface",
        "paper/dwpose",
    ]
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (4, 640, 640, 3), dtype=np.uint8)
    reference = pipeline.prepare_reference(pictures[0])
    np.testing.assert_allclose(reference.face.landmarks, FACE, atol=0.01)
    animation = pipeline.animate(reference, pipeline.estimate_motion(pictures), OPTIONS)
    assert animation.frames_uint8.shape == (4, 64, 64, 3)
    assert np.isfinite(animation.keypoints).all()
