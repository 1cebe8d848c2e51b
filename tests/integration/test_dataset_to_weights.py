"""A curated dataset is encoded on Ray Data, trained on Ray Train, and gives a weights folder."""

import io
import json
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from animaray.cli.main import run
from animaray.datasets.commit_log import CommitLog
from animaray.datasets.encoded_clips import open_encoded_clips
from animaray.datasets.reader import CurationDataset
from animaray.datasets.shards import write_media_shard, write_shard
from animaray.datasets.splits import held_out_sources, read_trained_sources
from animaray.datasets.world.clips import RenderedClip, render_clip, sample_clip_spec
from animaray.models.networks.animator import Animator
from animaray.models.networks.animator_config import AnimatorConfig
from animaray.models.perception.profiles import load_codec, load_image_encoder, load_perception
from animaray.models.pose.layouts import LEFT_HAND, NUM_FURTHER_POINTS, RIGHT_HAND
from animaray.pipelines.encode.config import EncodeConfig
from animaray.pipelines.encode.encode import encode_dataset
from animaray.pipelines.encode.encode_clip import ClipEncoders, encode_together, fit_clip
from animaray.platform.errors import DatasetError
from animaray.platform.media.video import encode_mp4
from animaray.training.animator import train_animator
from animaray.training.recipes import animator_tiny_cpu

FPS = 8.0
SIZE_PX = 128
NUM_FRAMES = 12
FURTHER_ON = np.zeros(NUM_FURTHER_POINTS, np.int64)
FURTHER_ON[LEFT_HAND], FURTHER_ON[RIGHT_HAND] = 7, 4


def _tracks(clip_id: str, clip: RenderedClip) -> dict[str, object]:
    """Return a row of the tracks table from the world's truth; faces on every second frame."""
    embedder = load_perception("generated").identity_embedder
    people = [frame.persons[0] for frame in clip.truth.frames]
    faces = list(range(0, NUM_FRAMES, 2))
    embeddings = [
        embedder.embed(clip.frames_uint8[index], people[index].landmarks.astype(np.float32))
        for index in faces
    ]
    return {
        "clip_id": clip_id,
        "pts_s": [index / FPS for index in range(NUM_FRAMES)],
        "frame_index": list(range(NUM_FRAMES)),
        "pose_layout": "whole_body_134",
        # Hands, face and feet of dots on the body's own points, the hands on the wrists.
        "further_points": np.concatenate(
            [
                np.pad(person.keypoints[FURTHER_ON], ((0, 0), (0, 1)), constant_values=0.5).ravel()
                for person in people
            ]
        ).tolist(),
        "keypoints": np.concatenate([person.keypoints.ravel() for person in people]).tolist(),
        "keypoint_confidence": np.concatenate(
            [person.keypoint_visible.astype(float) for person in people]
        ).tolist(),
        "num_persons": [1] * NUM_FRAMES,
        "face_frames": faces,
        "face_boxes": np.concatenate([people[index].face_box for index in faces]).tolist(),
        "face_landmarks": np.concatenate(
            [people[index].landmarks.ravel() for index in faces]
        ).tolist(),
        "face_scores": [0.9] * len(faces),
        # The last sampled face is not valid, so nothing is known after the one before it.
        "face_valid": [True] * (len(faces) - 1) + [False],
        "identity_embeddings": np.concatenate(embeddings).tolist(),
        "identity_dim": embedder.embedding_dim,
    }


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset folder with three kept clips of the generated world."""
    root = tmp_path_factory.mktemp("curated")
    videos, tracks, clips, verdicts = {}, [], [], []
    for seed in range(3):
        spec = sample_clip_spec(
            seed, num_frames=NUM_FRAMES, fps=FPS, size=(SIZE_PX, SIZE_PX), motion_kind="idle",
            framing="half", scene_kind="room", camera_kind="static",
        )  # fmt: skip
        clip, clip_id, source_id = render_clip(spec), f"clip-{seed}", f"source-{seed}"
        videos[clip_id] = encode_mp4(clip.frames_uint8, FPS)
        tracks.append(_tracks(clip_id, clip))
        clips.append(
            {
                "clip_id": clip_id, "source_id": source_id, "width": SIZE_PX, "height": SIZE_PX,
                "fps": FPS, "num_frames": NUM_FRAMES,
            }
        )  # fmt: skip
        verdicts.append(
            {"clip_id": clip_id, "source_id": source_id, "policy": "standard", "keep": True}
        )
    media, groups = write_media_shard(root, videos)
    for row in clips:
        row |= {"media_file": media.path, "media_row_group": groups[row["clip_id"]]}
    files = [
        media,
        write_shard(root, "tracks", tracks),
        write_shard(root, "clips", clips),
        write_shard(root, "verdicts", verdicts, folder="verdicts/standard"),
    ]
    CommitLog(root).commit(files)
    return root


def _encode(root: Path) -> dict[str, Any]:
    command = [
        "dataset", "encode", str(root), "--profile", "generated", "--size", "64x64", "--workers",
        "1", "--set", "clips_per_shard=2", "--set", "mirrored_copies=true", "--json",
    ]  # fmt: skip
    with redirect_stdout(io.StringIO()) as printed:
        assert run(command) == 0
    return json.loads(printed.getvalue())


@pytest.fixture(scope="module")
def encoded(curated: Path, local_ray: None) -> Path:
    """Return the same folder with encoded clips; encoding is asked for twice."""
    first, again = _encode(curated), _encode(curated)
    assert (first["num_encoded"], first["num_found"], first["skipped"]) == (3, 0, {})
    assert (again["num_encoded"], again["num_found"]) == (0, 3)
    assert again["encoder_id"] == first["encoder_id"]
    return curated


@pytest.mark.ray
def test_encoded_clips_hold_what_the_clip_shows(encoded: Path) -> None:
    table = open_encoded_clips(encoded)
    assert table.clip_ids == ["clip-0", "clip-1", "clip-2"]
    clip = table.load("clip-1")
    tracks = CurationDataset.open(encoded).tracks("clip-1")
    assert clip.latents.shape == (NUM_FRAMES, 4, 8, 8)
    # 128 px become 64 px: pixel centres map by (x + 0.5) / 2 - 0.5.
    np.testing.assert_allclose(clip.keypoints, (tracks.keypoints + 0.5) / 2 - 0.5, atol=1e-3)
    assert np.flatnonzero(clip.identity_valid).tolist() == [0, 2, 4, 6, 8]
    assert clip.face_box_valid.tolist() == [True] * 9 + [False] * 3
    np.testing.assert_allclose(
        clip.face_boxes[1], (clip.face_boxes[0] + clip.face_boxes[2]) / 2, atol=1e-3
    )
    assert np.linalg.norm(clip.identity_embedding) == pytest.approx(1.0, abs=1e-5)
    codec = load_codec("generated")
    assert codec.latent_channels == clip.latents.shape[1]


@pytest.mark.parametrize(("curated_with", "num_measured"), [("generated", 0), ("permissive", 5)])
def test_identities_of_another_profile_are_measured_anew(
    curated: Path, monkeypatch: pytest.MonkeyPatch, curated_with: str, num_measured: int
) -> None:
    embedder = load_perception("generated").identity_embedder
    measured = []
    monkeypatch.setattr(
        type(embedder), "embed", lambda *_: measured.append(1) or np.eye(128, dtype=np.float32)[0]
    )
    encoders = ClipEncoders(
        codec=load_codec("generated"),
        image_encoder=load_image_encoder("generated"),
        identity_embedder=embedder,
    )
    config = EncodeConfig(profile="generated", width_px=64, height_px=64)
    dataset = CurationDataset.open(curated)
    fitted = fit_clip(dataset, "clip-0", config, curated_with=curated_with)
    (clip,) = encode_together(fitted, encoders, config)
    assert len(measured) == num_measured
    assert (clip.identity_embedding[0] > 0.99) == bool(num_measured)


def test_text_is_left_out_of_the_training_frame_or_the_clip_is(
    curated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoders = ClipEncoders(
        codec=load_codec("generated"),
        image_encoder=load_image_encoder("generated"),
        identity_embedder=load_perception("generated").identity_embedder,
    )
    config = EncodeConfig(profile="generated", width_px=64, height_px=64, crop_text=True)
    stored = CurationDataset.clip

    def encode(**text: object) -> np.ndarray:
        monkeypatch.setattr(CurationDataset, "clip", lambda *told: {**stored(*told), **text})
        dataset = CurationDataset.open(curated)
        fitted = fit_clip(dataset, "clip-0", config, curated_with=None)
        (clip,) = encode_together(fitted, encoders, config)
        return clip.keypoints

    with pytest.raises(DatasetError, match="was not looked for"):
        encode()
    whole = encode(text_state="ok", text_boxes=None)
    # The left twentieth holds a watermark: what remains is larger in the frame.
    beside = encode(text_state="ok", text_boxes=[0.0, 0.0, 0.05, 1.0])
    assert np.ptp(beside[..., 0]) > np.ptp(whole[..., 0])
    with pytest.raises(DatasetError, match="the person would be cut, too"):
        encode(text_state="ok", text_boxes=[0.0, 0.5, 1.0, 0.6])


@pytest.mark.ray
def test_mirrored_copies_are_mirror_images(encoded: Path) -> None:
    table = open_encoded_clips(encoded)
    clip, mirrored = table.load("clip-0"), table.load("clip-0", is_mirrored=True)
    # The right wrist (4) becomes the left one (7), mirrored in a picture 64 px wide.
    np.testing.assert_allclose(mirrored.keypoints[:, 7, 0], 63 - clip.keypoints[:, 4, 0], atol=1e-3)
    assert clip.further_points is not None
    assert mirrored.further_points is not None
    np.testing.assert_allclose(clip.further_points[..., :2], clip.keypoints[:, FURTHER_ON])
    np.testing.assert_allclose(mirrored.further_points[..., :2], mirrored.keypoints[:, FURTHER_ON])
    assert (mirrored.further_points[..., 2] == 0.5).all()
    widths = [boxes[:, 2] - boxes[:, 0] for boxes in (clip.face_boxes, mirrored.face_boxes)]
    np.testing.assert_allclose(widths[0], widths[1], atol=1e-3)


@pytest.mark.ray
def test_training_writes_a_weights_folder(encoded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(encoded.parent)  # paths may be relative; workers start in another folder
    tiny = AnimatorConfig.tiny()
    model = replace(
        tiny,
        unet=replace(tiny.unet, cross_attention_dim=256),
        face_encoder=replace(
            tiny.face_encoder, identity_dim=128, image_embedding_dim=256, cross_attention_dim=256
        ),
        width_px=64,
        height_px=64,
    )
    recipe = animator_tiny_cpu()
    config = replace(
        recipe,
        data_dir=encoded.name,
        run_dir="run",
        animator=model,
        window=replace(recipe.window, mirror_probability=0.5),
        loop=replace(recipe.loop, num_steps=2),
        scale=replace(recipe.scale, num_workers=1, strategy="ddp"),
    )
    result = train_animator(config)
    assert result.step == 2
    # One of three sources is held out, by the rule that the evaluation follows.
    held_out = held_out_sources([f"source-{seed}" for seed in range(3)], 0.2, 0)
    trained = read_trained_sources(result.weights_dir)
    assert (len(trained), trained & held_out) == (2, set())
    assert [line["step"] for line in result.metrics if "loss" in line] == [1, 2]
    assert Animator.from_pretrained(result.weights_dir).config == model
    perception = json.loads((result.weights_dir / "perception.json").read_text())
    assert perception == {"profile": "generated"}


@pytest.mark.ray
def test_a_policy_that_keeps_nothing_is_refused(curated: Path, tmp_path: Path) -> None:
    root = tmp_path / "empty"
    clips = [{"clip_id": "a", "source_id": "s"}]
    verdicts = [{"clip_id": "a", "source_id": "s", "policy": "standard", "keep": False}]
    files = [
        write_shard(root, "clips", clips),
        write_shard(root, "verdicts", verdicts, folder="verdicts/standard"),
    ]
    CommitLog(root).commit(files)
    with pytest.raises(DatasetError, match="keeps no clip"):
        encode_dataset(EncodeConfig(data_dir=str(root)))
