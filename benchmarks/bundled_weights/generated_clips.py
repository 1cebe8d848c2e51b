"""Encode clips of the generated world straight into a table of encoded clips, without video files.

For pretraining the shipped animator: the pixels go through the same frozen networks as curated
clips; only the way over H.264 and the filters is left out.
"""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8

from animaray.datasets.commit_log import CommitLog
from animaray.datasets.encoded_clips import EncodedClip, write_encoded_clips
from animaray.datasets.encoded_index import (
    EncodedCommits,
    Shelved,
    join_shelved,
    read_index,
    skipped_clip,
)
from animaray.datasets.world.clips import RenderedClip, render_clip, sample_clip_spec
from animaray.models.perception.generated.codec import GeneratedCodec
from animaray.models.perception.generated.faces import GeneratedFaceDetector
from animaray.models.perception.generated.identity import GeneratedIdentityEmbedder
from animaray.models.perception.generated.image_encoder import GeneratedImageEncoder
from animaray.models.perception.generated.pose import GeneratedPoseEstimator
from animaray.models.perception.protocols import (
    FaceDetector,
    PoseEstimator,
)
from animaray.models.subjects.encoding import embed_faces
from animaray.pipelines.encode.config import EncodeConfig
from animaray.pipelines.encode.encode_clip import ClipEncoders, FittedClip, encode_together
from animaray.platform.progress import StageProgress
from animaray.platform.stores import open_store
from animaray.platform.terminal import leave_terminal

ENCODER_ID = "generated-world"
_WORLD_SIZE = (384, 384)


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratedEncoders:
    """The frozen networks of the generated world."""

    of_clips: ClipEncoders
    """Those that curated clips go through, too."""
    pose_estimator: PoseEstimator | None
    """None: keypoints are the truth of the world."""
    face_detector: FaceDetector | None
    """None: boxes and landmarks are the truth of the world."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratedClips:
    """Which clips to render."""

    num_clips: int
    """How many."""
    first_seed: int = 1_000_000
    """Seed of the first; the demo's own clips use small seeds, so that people differ."""
    num_frames: int = 16
    """Frames of each."""
    fps: float = 8.0
    """Frames per second."""
    width_px: int = 192
    """Width of the training frame."""
    height_px: int = 192
    """Height of the training frame."""
    clips_per_shard: int = 25
    """Clips of one file: what a killed run renders again at most."""


def write_generated_clips(
    root: Path,
    clips: GeneratedClips,
    *,
    uses_truth: bool,
    num_processes: int,
    progress: StageProgress,
) -> None:
    """Render, encode and commit all clips that the dataset folder does not have yet.

    Args:
        root: Dataset folder; it gets nothing but a table of encoded clips.
        clips: Which clips.
        uses_truth: Take keypoints and faces from the world instead of the generated networks.
        num_processes: Processes that render and encode.
        progress: Row to advance by clip.
    """
    log = CommitLog(root)
    commits = EncodedCommits(log, ENCODER_ID)
    index = read_index(log.store, log.snapshot(), ENCODER_ID)
    done = set(index["clip_id"].to_pylist())
    seeds = [clips.first_seed + index for index in range(clips.num_clips)]
    missing = [seed for seed in seeds if clip_name(seed) not in done]
    progress.advance(len(seeds) - len(missing))
    size = clips.clips_per_shard
    shards = [missing[start : start + size] for start in range(0, len(missing), size)]
    if not shards:
        return
    with ProcessPoolExecutor(
        num_processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_process,
        initargs=(uses_truth,),
    ) as pool:
        tasks = [pool.submit(_write_shard, root, clips, shard) for shard in shards]
        for task, shard in zip(tasks, shards, strict=True):
            commits.commit(task.result())
            progress.advance(len(shard))


def load_encoders(*, uses_truth: bool) -> GeneratedEncoders:
    """Load the shipped networks; the truth of the world stands in for detectors only if asked."""
    return GeneratedEncoders(
        of_clips=ClipEncoders(
            codec=GeneratedCodec.load(),
            image_encoder=GeneratedImageEncoder.load(),
            identity_embedder=GeneratedIdentityEmbedder.load(),
        ),
        pose_estimator=None if uses_truth else GeneratedPoseEstimator(),
        face_detector=None if uses_truth else GeneratedFaceDetector(),
    )


_PROCESS_ENCODERS: list[GeneratedEncoders] = []
"""The encoders of this process; loaded once by its initializer."""


def _start_process(uses_truth: bool) -> None:  # noqa: FBT001 - called by the pool
    leave_terminal()
    torch.set_num_threads(1)
    _PROCESS_ENCODERS.append(load_encoders(uses_truth=uses_truth))


def _write_shard(root: Path, clips: GeneratedClips, seeds: list[int]) -> Shelved:
    encoded = {seed: encode_generated(seed, clips, _PROCESS_ENCODERS[0]) for seed in seeds}
    rows = [clip for clip in encoded.values() if clip is not None]
    faceless = [
        skipped_clip(clip_name(seed), clip_name(seed), "its face is never seen")
        for seed, clip in encoded.items()
        if clip is None
    ]
    shards = [write_encoded_clips(open_store(root), ENCODER_ID, rows)] if rows else []
    return join_shelved([*shards, *faceless])


def clip_name(seed: int) -> str:
    """Return the clip id of a generated clip."""
    return f"generated-{seed}"


def encode_generated(
    seed: int, clips: GeneratedClips, encoders: GeneratedEncoders
) -> EncodedClip | None:
    """Render one clip and return it encoded, or None if its face is never seen."""
    spec = sample_clip_spec(
        seed, num_frames=clips.num_frames, fps=clips.fps, size=_WORLD_SIZE, camera_kind="static"
    )
    rendered = render_clip(spec)
    size = (clips.width_px, clips.height_px)
    frames = np.stack(
        [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in rendered.frames_uint8]
    )
    scale = np.array(size, dtype=np.float32) / np.array(_WORLD_SIZE, dtype=np.float32)
    keypoints, confidence = _keypoints(rendered, encoders.pose_estimator)
    landmarks, boxes, valid = _faces(rendered, encoders.face_detector)
    if not valid.any():
        return None
    faces = np.flatnonzero(valid)
    # Measured on the drawn picture, which is larger than the training frame.
    identities = embed_faces(
        rendered.frames_uint8[faces], landmarks[faces], encoders.of_clips.identity_embedder
    ).identities
    clip = FittedClip(
        clip_id=clip_name(seed),
        source_id=clip_name(seed),
        is_mirrored=False,
        times_s=np.arange(len(frames)) / clips.fps,
        frames_uint8=frames,
        keypoints=_fitted(keypoints, scale),
        keypoint_confidence=confidence,
        face_times_s=faces / clips.fps,
        face_boxes=_fitted(boxes[faces].reshape(-1, 2, 2), scale).reshape(-1, 4),
        face_landmarks=_fitted(landmarks[faces], scale),
        identity_embeddings=identities,
    )
    config = EncodeConfig(
        width_px=clips.width_px, height_px=clips.height_px, fps=clips.fps, max_face_gap_s=0.5
    )
    return encode_together([clip], encoders.of_clips, config)[0]


def _fitted(
    points: Float32[np.ndarray, "*items 2"], scale: Float32[np.ndarray, " 2"]
) -> Float32[np.ndarray, "*items 2"]:
    """Bring points of the drawn picture into the training frame: pixel centres lie at 0.5."""
    return ((points + 0.5) * scale - 0.5).astype(np.float32)


def _keypoints(
    rendered: RenderedClip, estimator: PoseEstimator | None
) -> tuple[Float32[np.ndarray, "frames 18 2"], Float32[np.ndarray, "frames 18"]]:
    """Return the largest person's keypoints; a frame where nobody is found has confidence 0."""
    points = np.zeros((len(rendered.frames_uint8), 18, 2), dtype=np.float32)
    confidence = np.zeros(points.shape[:2], dtype=np.float32)
    sureness = np.random.default_rng(len(points)).uniform(0.7, 1.0, (len(points), 18))
    for index, frame in enumerate(rendered.frames_uint8):
        if estimator is None:
            person = rendered.truth.frames[index].persons[0]
            points[index] = person.keypoints
            confidence[index] = person.keypoint_visible * sureness[index]
        elif people := estimator.estimate(frame):
            points[index] = people[0].keypoints
            confidence[index] = people[0].keypoint_confidence
    return points, confidence


def _faces(
    rendered: RenderedClip, detector: FaceDetector | None
) -> tuple[
    Float32[np.ndarray, "frames 5 2"], Float32[np.ndarray, "frames 4"], Bool[np.ndarray, " frames"]
]:
    """Return landmarks, boxes and where they are known."""
    num_frames = len(rendered.frames_uint8)
    landmarks = np.zeros((num_frames, 5, 2), dtype=np.float32)
    boxes = np.zeros((num_frames, 4), dtype=np.float32)
    valid = np.zeros(num_frames, dtype=np.bool_)
    for index in range(num_frames):
        frame: UInt8[np.ndarray, "height width 3"] = rendered.frames_uint8[index]
        if detector is None:
            person = rendered.truth.frames[index].persons[0]
            landmarks[index], boxes[index] = person.landmarks, person.face_box
            valid[index] = person.face_visible
        else:
            faces = [face for face in detector.detect(frame) if face.score >= 0.5]
            if faces:
                landmarks[index], boxes[index] = faces[0].landmarks, faces[0].box
                valid[index] = True
    return landmarks, boxes, valid
