"""A small curated dataset of two generated people, and an untrained pipeline for it."""

from pathlib import Path

import numpy as np
import pytest

from animaray.datasets.commit_log import CommitLog
from animaray.datasets.shards import write_media_shard, write_shard
from animaray.datasets.world.clips import render_clip, sample_clip_spec
from animaray.models.animation.pipeline import AnimationPipeline
from animaray.models.networks.animator import Animator
from animaray.models.networks.animator_config import AnimatorConfig
from animaray.models.perception.profiles import load_codec, load_image_encoder, load_perception
from animaray.models.perception.protocols import Perception
from animaray.platform.media.video import encode_mp4

NUM_FRAMES, FPS = 12, 16.0
NAMES = ("anna", "bert")


@pytest.fixture(scope="session")
def perception() -> Perception:
    return load_perception("generated")


@pytest.fixture(scope="session")
def pipeline(perception: Perception) -> AnimationPipeline:
    return AnimationPipeline(
        Animator(AnimatorConfig.generated()),
        None,
        load_codec("generated"),
        load_image_encoder("generated"),
        perception,
    )


@pytest.fixture(scope="session")
def dataset_root(tmp_path_factory: pytest.TempPathFactory, perception: Perception) -> Path:
    root = tmp_path_factory.mktemp("evaluation") / "dataset"
    videos, clips, tracks, verdicts = {}, [], [], []
    for seed, name in enumerate(NAMES):
        spec = sample_clip_spec(seed, num_frames=NUM_FRAMES, framing="half", camera_kind="static")
        frames = render_clip(spec).frames_uint8
        clip_id = f"clip_{name}"
        videos[clip_id] = encode_mp4(frames, FPS)
        clips.append({
            "clip_id": clip_id, "input_id": name, "source_id": f"src_{name}",
            "file_name": f"{name}.mp4", "width": frames.shape[2], "height": frames.shape[1],
            "fps": FPS, "num_frames": NUM_FRAMES,
        })  # fmt: skip
        tracks.append(_tracks(clip_id, frames, perception))
        verdicts.append({
            "clip_id": clip_id, "source_id": f"src_{name}", "policy": "standard",
            "policy_fingerprint": "f", "state": "keep", "keep": True, "reasons": [],
            "reason_codes": [],
        })  # fmt: skip
    media, groups = write_media_shard(root, videos)
    for clip in clips:
        clip |= {"media_file": media.path, "media_row_group": groups[clip["clip_id"]]}
    files = [
        media,
        write_shard(root, "clips", clips),
        write_shard(root, "tracks", tracks),
        write_shard(root, "verdicts", verdicts, folder="verdicts/standard"),
    ]
    CommitLog(root).commit(files, inputs=list(NAMES))
    return root


def _tracks(clip_id: str, frames: np.ndarray, perception: Perception) -> dict[str, object]:
    poses = [perception.pose_estimator.estimate(frame)[0] for frame in frames]
    face = perception.face_detector.detect(frames[0])[0]
    identity = perception.identity_embedder.embed(frames[0], face.landmarks)
    return {
        "clip_id": clip_id,
        "pts_s": [index / FPS for index in range(NUM_FRAMES)],
        "frame_index": list(range(NUM_FRAMES)),
        "keypoints": np.concatenate([pose.keypoints.ravel() for pose in poses]).tolist(),
        "keypoint_confidence": np.concatenate([p.keypoint_confidence for p in poses]).tolist(),
        "num_persons": [1] * NUM_FRAMES,
        "face_frames": [0], "face_boxes": face.box.tolist(),
        "face_landmarks": face.landmarks.ravel().tolist(), "face_scores": [face.score],
        "face_valid": [True], "identity_embeddings": identity.tolist(),
        "identity_dim": len(identity),
    }  # fmt: skip
