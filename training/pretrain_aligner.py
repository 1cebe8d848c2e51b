"""Pretrain the shipped pose aligner on generated motion, without drawing a picture.

    python -m animaray.training.pretrain_aligner --out build/aligner --clips 1500 --minutes 8

Skeletons of many generated people move for a few seconds each; the loop of `animaray train aligner`
runs in this process. The same command again resumes; weights are in build/aligner/run/weights.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from animaray.datasets.world.cameras import Similarity
from animaray.datasets.world.faces import face_points
from animaray.datasets.world.motions import MOTION_KINDS, sample_motion
from animaray.datasets.world.people import sample_person
from animaray.datasets.world.postures import posture_to_pose
from animaray.datasets.world.rendering import Stage, place_person
from animaray.platform.progress import stage_progress
from animaray.training.aligner import AlignerTask
from animaray.training.aligner_pairs import PoseClips, make_pose_clips
from animaray.training.recipes import aligner_pretrain_cpu
from animaray.training.run_folder import RunFolder
from animaray.training.train_loop import LoopSettings, Topology, run_training

_SIZE_PX = 1000
_FRAMES = 20
_FPS = 4.0
_FACE_JOINTS = [0, 14, 15, 16, 17]
_SEEN, _UNSEEN = 0.95, 0.1


def generated_pose_clips(num_clips: int, first_seed: int) -> PoseClips:
    """Return keypoints of people in motion, each a few seconds long, in a square picture.

    Args:
        num_clips: How many.
        first_seed: Seed of the first clip.
    """
    points, confidences = [], []
    for seed in range(first_seed, first_seed + num_clips):
        clip = generated_pose_clip(seed)
        points.append(clip[0])
        confidences.append(clip[1])
    groups = [f"person-{index}" for index in range(num_clips)]
    return make_pose_clips(points, confidences, [1.0] * num_clips, groups)


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
    with stage_progress("skeletons", options.clips) as progress:
        clips = generated_pose_clips(options.clips, first_seed=2_000_000)
        progress.advance(options.clips)
    recipe = aligner_pretrain_cpu()
    config = dataclasses.replace(
        recipe,
        data_dir="generated motion",
        run_dir=str(options.out / "run"),
        loop=dataclasses.replace(recipe.loop, max_minutes=options.minutes),
    )
    folder = RunFolder.claim(Path(config.run_dir), config)
    task = AlignerTask(config, clips)
    settings = LoopSettings(optimizer=config.optimizer, loop=config.loop, scale=config.scale)
    run_training(task, settings, folder, Topology())


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of everything written")
    parser.add_argument("--clips", type=int, default=1500, help="moving people")
    parser.add_argument("--minutes", type=float, default=8.0, help="time of training")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
