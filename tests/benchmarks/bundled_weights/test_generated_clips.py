"""Encoded clips of the generated world, through the shipped networks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from animaray.datasets.encoded_clips import EncodedClip
from animaray.models.diffusion.sampler_config import SamplerConfig
from animaray.models.networks.animator import Animator
from animaray.models.networks.animator_config import AnimatorConfig
from animaray.models.perception.generated.codec import GeneratedCodec
from animaray.platform.errors import DatasetError
from animaray.training.animator_batches import collate, make_item
from animaray.training.batch_order import Window
from benchmarks.bundled_weights.aligner import (
    generated_pose_clip,
    pretraining_clips,
    read_motions,
    recorded_pose_clip,
)
from benchmarks.bundled_weights.generated_clips import (
    GeneratedClips,
    encode_generated,
    load_encoders,
)
from benchmarks.bundled_weights.sample_sheet import write_sample_sheet

CLIPS = GeneratedClips(num_clips=1, num_frames=3, width_px=96, height_px=96)


@pytest.fixture(scope="module")
def clip() -> EncodedClip:
    """Return the first clip of a few seeds whose face is seen."""
    encoders = load_encoders(uses_truth=True)
    encoded = (encode_generated(seed, CLIPS, encoders) for seed in range(10))
    return next(found for found in encoded if found is not None)


def test_a_generated_clip_has_all_arrays(clip: EncodedClip) -> None:
    assert clip.latents.shape == (3, 4, 12, 12)
    assert 0.2 < clip.latents.astype(np.float32).std() < 3.0
    assert clip.identity_valid.any()
    assert np.linalg.norm(clip.identity_embedding) == pytest.approx(1.0, abs=1e-5)
    neck = clip.keypoints[:, 1]
    assert ((neck > 0) & (neck < 96)).all()
    boxes = clip.face_boxes[clip.face_box_valid]
    assert (boxes[:, 2] > boxes[:, 0]).all()
    assert (boxes.mean(axis=1) < 96).all()


def test_the_latents_decode_to_the_picture(clip: EncodedClip) -> None:
    # The head is where the face box says: the decoded box differs from the picture's corner.
    codec = GeneratedCodec.load()
    frames = codec.decode(torch.from_numpy(clip.latents.astype(np.float32)))
    assert frames.shape == (3, 3, 96, 96)
    assert frames.abs().max() < 1.5
    assert frames.std() > 0.1


def test_a_sample_sheet_is_written_and_measured(clip: EncodedClip, tmp_path: Path) -> None:
    tiny = AnimatorConfig.tiny()
    config = replace(
        tiny,
        unet=replace(tiny.unet, cross_attention_dim=256),
        face_encoder=replace(
            tiny.face_encoder, identity_dim=128, image_embedding_dim=256, cross_attention_dim=256
        ),
        width_px=96,
        height_px=96,
    )
    window = Window(clip_index=0, frame_indices=(0, 1), reference_index=2, is_mirrored=False)
    codec = GeneratedCodec.load()
    batch = collate([make_item(clip, window, config, codec)])
    psnr = write_sample_sheet(
        tmp_path / "sheet.png",
        Animator(config).eval(),
        codec,
        batch,
        SamplerConfig(num_inference_steps=2, sigma_max=80.0, guidance_scale=1.0),
    )
    assert 3.0 < psnr < 40.0
    assert (tmp_path / "sheet.png").stat().st_size > 1000


def test_generated_skeletons_stand_in_the_picture_and_move() -> None:
    points, confidence = generated_pose_clip(5)
    again, _ = generated_pose_clip(5)
    np.testing.assert_array_equal(points, again)
    head, ankles = points[:, 0, 1], points[:, [10, 13], 1].max(axis=1)
    assert (head < ankles).all()  # y grows downwards
    assert np.abs(np.diff(points, axis=0)).max() > 1e-3
    assert set(np.unique(confidence)) <= {0.1, 0.95}
    clips = pretraining_clips(3, [], 0)
    assert clips.length.tolist() == [20, 20, 20]
    assert len(set(clips.groups)) == 3


def test_recorded_motion_is_seen_upright_and_whole_by_a_still_camera(tmp_path: Path) -> None:
    standing = np.zeros((60, 18, 3), np.float32)
    standing[:, 0], standing[:, 1] = [0, 1.7, 0.1], [0, 1.5, 0]
    standing[:, 2], standing[:, 5] = [-0.2, 1.5, 0], [0.2, 1.5, 0]
    standing[:, 8], standing[:, 11] = [-0.1, 0.9, 0], [0.1, 0.9, 0]
    standing += np.linspace(0, 4, 60)[:, None, None] * np.array([1, 0, 0])  # walks away sideways
    np.savez(tmp_path / "motion.npz", free_a=standing, other_b=standing)
    (motion,) = read_motions(tmp_path / "motion.npz", "free_")
    rng = np.random.default_rng(0)
    views = [recorded_pose_clip(motion, rng) for _ in range(20)]
    for view in views:
        assert ((view > 0) & (view < 1)).all()
        assert (view[:, 0, 1] < view[:, 8, 1]).all()  # y grows downwards
    facing = np.mean([view[:, 2, 0] < view[:, 5, 0] for view in views])
    assert facing > 0.5  # most people face the camera: their right shoulder is on the left
    clips = pretraining_clips(1, [motion], 2)
    assert clips.groups == ("person-0", "motion-0", "motion-0")
    with pytest.raises(DatasetError, match="no motion of a second or more whose name begins"):
        read_motions(tmp_path / "motion.npz", "bn_")
