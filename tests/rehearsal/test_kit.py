"""The rehearsal's files have the published form, and their detectors see generated people."""

import json
import zipfile

import numpy as np
import onnxruntime
import pytest
import torch

from animaray.cli.main import run
from animaray.datasets.world.clips import render_clip, sample_clip_spec
from animaray.models.perception.checkpoint_files import open_state, shapes_of
from animaray.models.perception.paper.dwpose import DwposeEstimator
from animaray.models.perception.paper.scrfd import ScrfdFaceDetector
from animaray.models.perception.profiles import load_perception
from animaray.platform.weights.store import profile_entries, resolve_weights, verify_weights
from benchmarks.rehearsal.random_networks import random_network
from benchmarks.rehearsal.sizes import FULL, SMALL

BACKBONE = "stable-video-diffusion-img2vid-xt"


@pytest.fixture
def kit(rehearsal_kit, monkeypatch):
    monkeypatch.setenv("ANIMARAY_WEIGHTS", str(rehearsal_kit))
    return rehearsal_kit


@pytest.fixture(scope="module")
def drawn():
    """Return a picture of one person, full length, and where it is."""
    clip = render_clip(
        sample_clip_spec(4, num_frames=1, framing="full", camera_kind="static", motion_kind="idle")
    )
    return clip.frames_uint8[0], clip.truth.frames[0].persons[0]


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("pose_net", "pose_net"),
        ("face_encoder", "face_encoder"),
        ("vae", "vae"),
        ("image_encoder", "image_encoder"),
        ("arc_face", "face_extractor_r100"),
    ],
)  # the U-Net's table: tests/models/interop/test_sizes.py
def test_full_size_has_the_published_keys(golden_data, name, table):
    with torch.device("meta"):
        found = shapes_of(random_network(name, FULL).state_dict())
    published = json.loads((golden_data / f"keys_{table}.json").read_text())["keys"]
    assert found == {key: tuple(shape) for key, shape in published.items()}


def test_files_have_the_published_names_and_precisions(rehearsal_kit):
    names = {str(path.relative_to(rehearsal_kit)) for path in rehearsal_kit.rglob("*.*")}
    assert {f"Animation/{name}.pth" for name in ("unet", "pose_net", "face_encoder")} <= names
    assert {"DWPose/yolox_l.onnx", "DWPose/dw-ll_ucoco_384.onnx", "antelopev2.zip"} <= names
    parts = {
        "unet": "diffusion_pytorch_model.fp16.safetensors",
        "vae": "diffusion_pytorch_model.fp16.safetensors",
        "image_encoder": "model.fp16.safetensors",
    }
    for part, name in parts.items():
        stored = open_state(rehearsal_kit / BACKBONE / part / name)
        assert {value.dtype for value in stored.values()} == {torch.float16}, part
    unet = open_state(rehearsal_kit / "Animation" / "unet.pth")
    assert {value.dtype for value in unet.values()} == {torch.float32}
    assert sum(".processor.id_to_" in key for key in unet) == 8
    with zipfile.ZipFile(rehearsal_kit / "antelopev2.zip") as archive:
        assert archive.namelist() == [
            "antelopev2/glintr100.onnx",
            "antelopev2/scrfd_10g_bnkps.onnx",
        ]


@pytest.mark.parametrize(
    ("name", "takes", "gives"),
    [
        ("DWPose/yolox_l.onnx", [1, 3, 640, 640], [[1, 8400, 85]]),
        ("DWPose/dw-ll_ucoco_384.onnx", [1, 3, 384, 288], [[1, 133, 576], [1, 133, 768]]),
        ("antelopev2/glintr100.onnx", ["None", 3, 112, 112], [["None", 512]]),
        (
            "antelopev2/scrfd_10g_bnkps.onnx",
            [1, 3, 640, 640],
            [[count, columns] for columns in (1, 4, 10) for count in (12800, 3200, 800)],
        ),
    ],
)
def test_onnx_signatures_are_the_published_ones(rehearsal_kit, name, takes, gives):
    session = onnxruntime.InferenceSession(
        str(rehearsal_kit / name), providers=["CPUExecutionProvider"]
    )
    assert [each.shape for each in session.get_inputs()] == [takes]
    assert [each.shape for each in session.get_outputs()] == gives


def test_the_face_detectors_stand_in_looks(rehearsal_kit, drawn):
    picture, person = drawn
    detector = ScrfdFaceDetector(rehearsal_kit / "antelopev2" / "scrfd_10g_bnkps.onnx")
    (face,) = detector.detect(picture)
    assert face.score > 0.6
    width = person.face_box[2] - person.face_box[0]
    assert np.abs(face.landmarks - person.landmarks).max() < 0.2 * width
    # A larger frame around it, and nobody.
    wide = np.pad(picture, ((0, 0), (300, 0), (0, 0)), mode="edge")
    (moved,) = detector.detect(wide)
    assert np.abs(moved.landmarks - face.landmarks - [300, 0]).max() < 0.2 * width
    assert detector.detect(np.full_like(picture, 120)) == []


def test_the_pose_stand_ins_see_body_hands_and_face(rehearsal_kit, drawn):
    picture, person = drawn
    folder = rehearsal_kit / "DWPose"
    estimator = DwposeEstimator(folder / "yolox_l.onnx", folder / "dw-ll_ucoco_384.onnx")
    (found,) = estimator.estimate(picture)
    body, further = found.keypoints, found.further_points
    size = float(np.ptp(person.keypoints, axis=0).max())
    seen = person.keypoint_visible
    assert np.abs(body - person.keypoints)[seen].max() < 0.08 * size
    assert found.keypoint_confidence[seen].min() > 0.3
    feet, face, *hands = np.split(further, [6, 74, 95])
    assert not feet[:, 2].any()
    for hand, wrist in zip(hands, body[[7, 4]], strict=True):
        assert hand[:, 2].min() > 0.3
        assert np.linalg.norm(hand[:, :2] - wrist, axis=1).max() < 0.15 * size
        assert np.ptp(hand[:, :2], axis=0).min() > 2
    assert np.abs(face[:, :2].mean(axis=0) - body[0]).max() < 0.05 * size
    assert estimator.estimate(np.full_like(picture, 120)) == []


def test_raw_embeddings_are_as_long_as_arcfaces(kit, drawn):
    picture, person = drawn
    embedder = load_perception("paper").identity_embedder
    raw = embedder.embed_raw(picture, person.landmarks.astype(np.float32))
    assert raw.shape == (512,)
    assert 10 < float(np.linalg.norm(raw)) < 60  # published ones: about 22


def test_every_file_of_profile_paper_is_found_and_called_a_stand_in(kit, capsys):
    entries = profile_entries("paper")
    for entry in entries:
        verify_weights(entry.id)
    assert run(["weights", "list", "--profile", "paper", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["weights"]
    assert {row["state"] for row in rows} == {"ok"}
    ours = [row for row in rows if row["id"].startswith("paper/")]
    assert len(ours) == 10
    assert all("a stand-in of benchmarks/rehearsal" in row["purpose"] for row in ours)
    assert not any(row["confirmed"] for row in ours)
    assert resolve_weights("paper/pose") == kit / "DWPose" / "dw-ll_ucoco_384.onnx"


def test_small_and_full_kits_differ_in_sizes_only():
    assert SMALL.unet.num_face_tokens == FULL.unet.num_face_tokens
    assert SMALL.face_encoder.identity_dim == FULL.face_encoder.identity_dim == 512
    assert len(SMALL.pose_net.stage_widths) == len(FULL.pose_net.stage_widths)
