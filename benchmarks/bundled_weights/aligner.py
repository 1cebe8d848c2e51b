r"""Pretrain the shipped pose aligner on generated and real motion, without drawing a picture.

    python -m benchmarks.bundled_weights.aligner --out build/aligner --clips 1500 --minutes 20 \
        --motion motion.npz --motion-prefix cmu_ --motion-clips 1500

Skeletons of many generated people, and of recorded people seen by random cameras, move for a few
seconds each; the loop of `animaray train aligner` runs in this process. The same command again
resumes; weights are in build/aligner/run/weights.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32

from animaray.datasets.world.cameras import Similarity
from animaray.datasets.world.faces import face_points
from animaray.datasets.world.motions import MOTION_KINDS, sample_motion
from animaray.datasets.world.people import sample_person
from animaray.datasets.world.postures import posture_to_pose
from animaray.datasets.world.rendering import Stage, place_person
from animaray.platform.errors import DatasetError
from animaray.platform.progress import stage_progress
from animaray.training.aligner import AlignerTask, AlignerTrainingConfig
from animaray.training.aligner_pairs import PoseClips
from animaray.training.configs import LoopConfig
from animaray.training.recipes import aligner_demo_cpu
from animaray.training.run_folder import RunFolder
from animaray.training.train_loop import Topology, run_training
from benchmarks.bundled_weights.pose_clips import make_pose_clips

_FIRST_SEED = 2_000_000
_SIZE_PX = 1000
_FRAMES = 20
_FPS = 4.0
_FACE_JOINTS = [0, 14, 15, 16, 17]
_SEEN, _UNSEEN = 0.95, 0.1
_MOTION_FPS = 30
_LONGEST_CLIP_S = 8.0
_FACING_SHARE = 0.6
_HIPS, _SHOULDERS = (8, 11), (2, 5)


def pretraining_clips(
    num_generated: int, motions: Sequence[Float32[np.ndarray, "_ 18 3"]], num_recorded: int
) -> PoseClips:
    """Return keypoints of people in motion, each a few seconds long, in a square picture.

    Args:
        num_generated: Generated people.
        motions: Recorded 3-D motions, see `read_motions`.
        num_recorded: Views of recorded motions; each shows a random one, the longer the likelier.
    """
    points, confidences, groups = [], [], []
    for index in range(num_generated):
        clip, confidence = generated_pose_clip(_FIRST_SEED + index)
        points.append(clip)
        confidences.append(confidence)
        groups.append(f"person-{index}")
    share = np.array([len(motion) for motion in motions], dtype=np.float64)
    rng = np.random.default_rng(_FIRST_SEED)
    for _ in range(num_recorded):
        chosen = int(rng.choice(len(motions), p=share / share.sum()))
        points.append(recorded_pose_clip(motions[chosen], rng))
        confidences.append(np.full((_FRAMES, 18), _SEEN))
        groups.append(f"motion-{chosen}")
    return make_pose_clips(points, confidences, [1.0] * len(points), groups)


def read_motions(path: Path, prefix: str) -> list[Float32[np.ndarray, "_ 18 3"]]:
    """Return recorded motions: 18 keypoints in metres, y up, 30 frames a second.

    Args:
        path: An .npz file with one array (frames, 18, 3) for each motion.
        prefix: Only motions whose name begins so: files mix licences.

    Raises:
        DatasetError: No motion has that prefix and a second of length.
    """
    with np.load(path) as pack:
        motions = [pack[name].astype(np.float32) for name in pack if name.startswith(prefix)]
    motions = [motion for motion in motions if len(motion) >= _MOTION_FPS]
    if not motions:
        raise DatasetError(
            f"{path} holds no motion of a second or more whose name begins with {prefix!r}.",
            fix="Give another --motion-prefix.",
        )
    return motions


def recorded_pose_clip(
    motion: Float32[np.ndarray, "_ 18 3"], rng: np.random.Generator
) -> Float[np.ndarray, "frames 18 2"]:
    """Return keypoints (picture heights) of a recorded motion seen by a random still camera.

    The person turns and moves but does not walk away: a clip whose camera stands still shows them
    all the time. Which keypoints are seen is decided by the random framing of each pair.

    Args:
        motion: Keypoints in metres, y up.
        rng: Source of all randomness.
    """
    length = min(len(motion), round(_LONGEST_CLIP_S * _MOTION_FPS))
    start = int(rng.integers(len(motion) - length + 1))
    frames = np.sort(rng.choice(length, _FRAMES, replace=length < _FRAMES))
    clip = motion[start + frames].astype(np.float64)
    ground = clip[:, _HIPS].mean(axis=1, keepdims=True) * [1.0, 0.0, 1.0]
    clip = clip - ground
    across = clip[0, _SHOULDERS[1]] - clip[0, _SHOULDERS[0]]
    turn = rng.normal(0.0, 0.6) if rng.random() < _FACING_SHARE else rng.uniform(-np.pi, np.pi)
    yaw = np.arctan2(across[2], across[0]) + turn
    pitch, distance = rng.uniform(-0.1, 0.2), rng.uniform(2.5, 7.0)
    x = np.cos(yaw) * clip[..., 0] + np.sin(yaw) * clip[..., 2]
    depth = -np.sin(yaw) * clip[..., 0] + np.cos(yaw) * clip[..., 2]
    y = clip[..., 1] - clip[..., 1].mean()
    height = np.cos(pitch) * y - np.sin(pitch) * depth
    depth = np.sin(pitch) * y + np.cos(pitch) * depth
    seen = np.stack([x, -height], axis=-1) / (distance - depth)[..., None]
    low, high = seen.min(axis=(0, 1)), seen.max(axis=(0, 1))
    fitted = (seen - (low + high) / 2) * (rng.uniform(0.7, 0.92) / float((high - low).max()))
    return fitted + 0.5


def generated_pose_clip(
    seed: int,
) -> tuple[Float[np.ndarray, "frames 18 2"], Float[np.ndarray, "frames 18"]]:
    """Return keypoints (picture heights) and confidences of one moving person."""
    rng = np.random.default_rng([91, seed])
    person = sample_person(seed)
    kind = MOTION_KINDS[int(rng.integers(len(MOTION_KINDS)))]
    motion = sample_motion(kind, seed)
    yaw_offset = float(rng.normal(0.0, 0.5)) if rng.random() < 0.8 else float(rng.uniform(-3, 3))
    motion = dataclasses.replace(motion, yaw_offset_rad=yaw_offset)
    stage = Stage(
        size=(_SIZE_PX, _SIZE_PX),
        metre_px=0.72 * _SIZE_PX / 1.75,
        ground=complex(_SIZE_PX / 2, 0.93 * _SIZE_PX),
    )
    points = np.zeros((_FRAMES, 18, 2))
    confidence = np.full((_FRAMES, 18), _SEEN)
    for frame in range(_FRAMES):
        pose = posture_to_pose(motion.posture(frame / _FPS), person.body)
        body, head = place_person(person, pose, stage, Similarity())
        points[frame] = np.stack([body.points.real, body.points.imag], axis=1)
        points[frame, _FACE_JOINTS], is_seen = face_points(head)
        confidence[frame, _FACE_JOINTS] = np.where(is_seen, _SEEN, _UNSEEN)
    return points / _SIZE_PX, confidence


def main(arguments: Sequence[str] | None = None) -> None:
    """Move skeletons, train."""
    options = _parse(arguments)
    torch.set_num_threads(options.threads)
    motions = [] if options.motion is None else read_motions(options.motion, options.motion_prefix)
    num_recorded = options.motion_clips if motions else 0
    with stage_progress("skeletons", options.clips + num_recorded) as progress:
        clips = pretraining_clips(options.clips, motions, num_recorded)
        progress.advance(options.clips + num_recorded)
    recipe = aligner_pretrain_cpu()
    config = dataclasses.replace(
        recipe,
        data_dir="generated and recorded motion" if motions else "generated motion",
        run_dir=str(options.out / "run"),
        loop=dataclasses.replace(recipe.loop, max_minutes=options.minutes),
    )
    folder = RunFolder.claim(Path(config.run_dir), config)
    task = AlignerTask(config, clips)
    run_training(task, config, folder, Topology())


def aligner_pretrain_cpu() -> AlignerTrainingConfig:
    """Train the demo's aligner from the closed form on generated motion: one core, ten minutes."""
    demo = aligner_demo_cpu()
    return dataclasses.replace(
        demo,
        init_from=None,
        held_out_share=0.01,
        optimizer=dataclasses.replace(demo.optimizer, warmup_steps=50, ema_decay=0.995),
        loop=LoopConfig(num_steps=2000, log_every_steps=50, checkpoint_every_steps=500, seed=1),
        scale=dataclasses.replace(demo.scale, num_workers=1, micro_batch_size=256),
    )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of everything written")
    parser.add_argument("--clips", type=int, default=1500, help="generated moving people")
    parser.add_argument("--motion", type=Path, help=".npz of recorded motions (frames, 18, 3)")
    parser.add_argument("--motion-prefix", default="", help="only motions whose name begins so")
    parser.add_argument("--motion-clips", type=int, default=1500, help="views of recorded motions")
    parser.add_argument("--minutes", type=float, default=8.0, help="time of training")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
