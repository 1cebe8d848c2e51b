"""A small encoded dataset of random numbers, of the tiny animator's sizes."""

from pathlib import Path

import numpy as np
import pytest

from animaray.datasets.commit_log import CommitLog
from animaray.datasets.encoded_clips import EncodedClip, write_encoded_clips
from animaray.datasets.encoded_index import EncodedCommits, join_shelved
from animaray.platform.stores import open_store

ENCODER_ID = "random-32x32"


def random_clip(index: int, *, num_frames: int = 10) -> EncodedClip:
    rng = np.random.default_rng(index)
    identity = rng.standard_normal((num_frames, 16)).astype(np.float32)
    identity /= np.linalg.norm(identity, axis=1, keepdims=True)
    return EncodedClip(
        clip_id=f"clip-{index}",
        source_id=f"source-{index}",
        is_mirrored=False,
        fps=8.0,
        width_px=32,
        height_px=32,
        latents=rng.standard_normal((num_frames, 4, 4, 4)).astype(np.float16),
        image_embeddings=rng.standard_normal((num_frames, 32)).astype(np.float32),
        identity_embedding=identity[0],
        identity_embeddings=identity,
        identity_valid=np.arange(num_frames) % 2 == 0,
        keypoints=rng.uniform(0, 32, (num_frames, 18, 2)).astype(np.float32),
        keypoint_confidence=np.ones((num_frames, 18), dtype=np.float32),
        face_boxes=np.tile(np.array([8, 8, 15, 15], dtype=np.float32), (num_frames, 1)),
        face_box_valid=np.arange(num_frames) < 5,
    )


@pytest.fixture
def encoded_dataset(tmp_path: Path) -> Path:
    """Return a dataset folder with six encoded clips."""
    root = tmp_path / "dataset"
    clips = [random_clip(index) for index in range(6)]
    store = open_store(root)
    shards = [write_encoded_clips(store, ENCODER_ID, part) for part in (clips[:3], clips[3:])]
    EncodedCommits(CommitLog(store), ENCODER_ID).commit(join_shelved(shards))
    return root
