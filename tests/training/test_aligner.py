"""The aligner's pairs and training, on walking stick figures; no Ray."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from animaray.datasets.commit_log import CommitLog
from animaray.datasets.reader import CurationDataset
from animaray.models.alignment.aligner import AlignerConfig, PoseAligner
from animaray.models.alignment.misalignment import MisalignmentConfig
from animaray.models.pose.layouts import MIRROR, VISIBLE_CONFIDENCE
from animaray.pipelines.policy.policies import LAX
from animaray.pipelines.policy.verdicts import reapply_policy
from animaray.platform.errors import ConfigError, DatasetError
from animaray.training.aligner import AlignerTask, evaluate_alignment, load_initial_aligner
from animaray.training.aligner_pairs import (
    PairConfig,
    PoseClips,
    draw_pairs,
    read_pose_clips,
    split_clips,
)
from animaray.training.configs import LoopConfig
from animaray.training.recipes import aligner_demo_cpu
from animaray.training.run_folder import RunFolder
from animaray.training.train_loop import Topology, run_training
from benchmarks.bundled_weights.aligner import generated_pose_clip
from benchmarks.bundled_weights.pose_clips import make_pose_clips
from benchmarks.scale.many_clips import ManyClips, write_many_clips

REST = np.array(
    [
        [0.50, 0.15], [0.50, 0.25], [0.43, 0.25], [0.40, 0.38], [0.38, 0.50], [0.57, 0.25],
        [0.60, 0.38], [0.62, 0.50], [0.45, 0.50], [0.45, 0.68], [0.45, 0.86], [0.55, 0.50],
        [0.55, 0.68], [0.55, 0.86], [0.48, 0.13], [0.52, 0.13], [0.46, 0.14], [0.54, 0.14],
    ]
)  # fmt: skip
NO_CHANGES = PairConfig(
    misalignment=MisalignmentConfig(
        max_rotation_rad=0.0, min_scale=1.0, max_scale=1.0, max_translation=0.0
    ),
    mirror_probability=0.0,
    reframe_probability=0.0,
    bone_jitter=0.0,
    stretch=0.0,
    sway=0.0,
    noise=0.0,
    miss_probability=0.0,
)


def _clips(num_clips: int) -> PoseClips:
    """Return figures that wave their arms and step, each with its own place and size."""
    rng = np.random.default_rng(0)
    points, confidences = [], []
    for _ in range(num_clips):
        phase = np.linspace(0, 6, 20)[:, None]
        figure = np.tile(REST, (20, 1, 1))
        figure[:, [3, 4], 1] -= 0.2 * np.sin(phase + rng.uniform(0, 6)) ** 2
        figure[:, [6, 7], 0] += 0.1 * np.sin(phase + rng.uniform(0, 6))
        figure[:, [9, 10], 0] += 0.08 * np.sin(phase + rng.uniform(0, 6))
        points.append((figure - 0.5) * rng.uniform(0.7, 1.0) + 0.5 + rng.normal(0, 0.03, 2))
        confidences.append(np.ones((20, 18)))
    return make_pose_clips(
        points,
        confidences,
        [1.0] * num_clips,
        [f"source-{index // 2}" for index in range(num_clips)],
    )


def test_unchanged_pairs_are_two_frames_of_one_clip() -> None:
    clips = _clips(3)
    pairs = draw_pairs(clips, 64, NO_CHANGES, torch.Generator().manual_seed(0))
    torch.testing.assert_close(pairs.driving, pairs.target)
    assert not torch.equal(pairs.reference, pairs.target)
    for reference, target in zip(pairs.reference, pairs.target, strict=True):
        owners = [
            int(((clips.keypoints - pose).abs().amax((1, 2)) < 1e-6).nonzero()[0]) // 20
            for pose in (reference, target)
        ]
        assert owners[0] == owners[1]


def test_mirrored_pairs_swap_left_and_right() -> None:
    clips = _clips(1)
    generator = torch.Generator().manual_seed(0)
    plain = draw_pairs(clips, 4, NO_CHANGES, generator)
    generator = torch.Generator().manual_seed(0)
    mirrored = draw_pairs(clips, 4, replace(NO_CHANGES, mirror_probability=1.0), generator)
    expected = plain.target[:, list(MIRROR)].clone()
    expected[..., 0] = 1.0 - expected[..., 0]
    torch.testing.assert_close(mirrored.target, expected)


def test_close_framings_hide_keypoints_and_lower_their_confidence() -> None:
    config = replace(NO_CHANGES, reframe_probability=1.0)
    pairs = draw_pairs(_clips(4), 256, config, torch.Generator().manual_seed(0))
    hidden = pairs.visible == 0
    assert 0.1 < hidden.float().mean() < 0.9
    assert (pairs.driving_confidence[hidden] < 0.3).all()
    assert (pairs.driving_confidence[~hidden] >= 0.3).all()
    assert (pairs.visible.sum(-1) >= config.min_visible).all()


def test_pairs_come_from_the_generator_alone() -> None:
    first, second = (
        draw_pairs(_clips(3), 8, PairConfig(), torch.Generator().manual_seed(5)) for _ in range(2)
    )
    assert torch.equal(first.driving, second.driving)


def test_held_out_clips_share_no_source_with_training_clips() -> None:
    training, held_out = split_clips(_clips(10), 0.2, seed=0)
    assert len(training.groups) == 8
    assert len(held_out.groups) == 2
    assert not set(training.groups) & set(held_out.groups)
    with pytest.raises(DatasetError, match="At least two source videos"):
        split_clips(_clips(2), 0.2, seed=0)


def test_a_fresh_aligner_is_as_good_as_the_closed_form() -> None:
    config = AlignerConfig(width=16, num_heads=2)
    figures = evaluate_alignment(PoseAligner(config).eval(), _clips(2), PairConfig())
    assert figures["learned_frame"] == pytest.approx(figures["procrustes_frame"], abs=2e-3)
    assert figures["procrustes_clip"] < 0.2 * figures["none"]


def test_training_beats_the_closed_form_on_held_out_clips(tmp_path: Path) -> None:
    recipe = aligner_demo_cpu()
    config = replace(
        recipe,
        init_from=None,
        aligner=AlignerConfig(width=32, num_heads=2),
        loop=LoopConfig(num_steps=400, log_every_steps=40, checkpoint_every_steps=400),
        optimizer=replace(recipe.optimizer, lr=2e-3, ema_decay=0.95),
        scale=replace(recipe.scale, num_workers=1, global_batch_size=64, micro_batch_size=64),
        pairs=replace(PairConfig(), reframe_probability=0.2),
    )
    task = AlignerTask(config, _clips(10))
    folder = RunFolder.claim(tmp_path, config)
    run_training(task, config, folder, Topology())
    aligner = PoseAligner.from_pretrained(folder.weights_dir)
    figures = evaluate_alignment(aligner, task.held_out, config.pairs)
    assert figures["learned_frame"] < 0.9 * figures["procrustes_frame"]
    last = folder.read_metrics()[-1]
    assert last["dis_learned_frame"] == pytest.approx(figures["learned_frame"])


def _without_kept_clips(root: Path) -> CurationDataset:
    reapply_policy(root, replace(LAX, name="none", min_short_side_px=1e6))
    return CurationDataset.open(root)


def test_poses_read_in_one_pass_are_those_of_each_clip(tmp_path: Path) -> None:
    root = tmp_path / "dataset"
    size = ManyClips(
        num_clips=60, clips_per_source=3, sources_per_commit=4, num_frames=3, with_media=True
    )
    write_many_clips(root, size)
    reapply_policy(root, LAX)
    withdrawn = CurationDataset.open(root).clips()[0]["source_id"]
    CommitLog(root).withdraw([withdrawn], "asked to")
    dataset = CurationDataset.open(root)
    found = read_pose_clips(dataset, "lax")
    wanted = []
    for clip_id in dataset.clip_ids("lax"):
        clip, tracks = dataset.clip(clip_id), dataset.tracks(clip_id)
        is_seen = tracks.keypoint_confidence >= VISIBLE_CONFIDENCE
        is_usable = is_seen.sum(axis=1) >= 4
        if is_usable.sum() >= 2:
            points = tracks.keypoints[is_usable] / float(clip["height"])
            wanted.append((clip, points, tracks.keypoint_confidence[is_usable]))
    assert len(wanted) > 20
    assert found.groups == tuple(clip["source_id"] for clip, _, _ in wanted)
    assert withdrawn not in found.groups
    for place, (clip, points, confidence) in enumerate(wanted):
        own = slice(found.first[place], found.first[place] + found.length[place])
        assert found.aspect[place] == np.float32(clip["width"] / clip["height"])
        np.testing.assert_array_equal(found.keypoints[own], points)
        np.testing.assert_array_equal(found.confidence[own], confidence)
    with pytest.raises(DatasetError, match="two frames with a pose"):
        read_pose_clips(_without_kept_clips(root), "none")


def test_bundled_aligner_beats_the_closed_form_on_people_it_has_not_seen() -> None:
    unseen = [generated_pose_clip(seed) for seed in range(5)]
    clips = make_pose_clips(
        [points for points, _ in unseen],
        [confidence for _, confidence in unseen],
        [1.0] * len(unseen),
        [str(number) for number in range(len(unseen))],
    )
    aligner = load_initial_aligner(aligner_demo_cpu()).eval()
    figures = evaluate_alignment(aligner, clips, PairConfig())
    assert figures["learned_clip"] < 0.9 * figures["procrustes_clip"]
    assert figures["learned_frame"] < 0.9 * figures["procrustes_frame"]


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    PoseAligner(AlignerConfig(width=16, num_heads=2)).save_pretrained(tmp_path)
    config = replace(aligner_demo_cpu(), init_from=str(tmp_path))
    with pytest.raises(ConfigError, match="have another architecture"):
        load_initial_aligner(config)


def test_shares_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"pairs.miss_probability must be in"):
        PairConfig(miss_probability=2.0)
    with pytest.raises(ConfigError, match="held_out_share must be in"):
        replace(aligner_demo_cpu(), held_out_share=0.0)
