"""The animator's training on the tiny model: batches, one process, two DeepSpeed workers."""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray.train
import torch
from ray import cloudpickle

from animaray.datasets.encoded_clips import open_encoded_clips
from animaray.models.networks.animator import Animator
from animaray.models.networks.animator_config import AnimatorConfig
from animaray.platform.errors import ConfigError, DatasetError, RunError
from animaray.training.animator import (
    AnimatorTask,
    AnimatorTrainingConfig,
    load_initial_animator,
    make_animator_task,
    open_table,
    select_trainable,
    train_animator,
)
from animaray.training.animator_batches import AnimatorBatches, face_mask, make_item
from animaray.training.batch_order import Window, WindowConfig
from animaray.training.launch import launch
from animaray.training.recipes import animator_tiny_cpu
from animaray.training.run_folder import RunFolder
from animaray.training.train_loop import Topology, run_training


def _config(dataset: Path, run_dir: Path, **changes: object) -> AnimatorTrainingConfig:
    recipe = replace(animator_tiny_cpu(), policy=None)  # encoded clips only, never curated
    return replace(recipe, data_dir=str(dataset), run_dir=str(run_dir), **changes)


PLAIN = replace(AnimatorConfig.tiny(), warped_reference=None)


def _losses(folder: RunFolder) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in folder.read_metrics() if "loss" in line}


def test_an_item_holds_its_window_and_the_reference_frame(encoded_dataset: Path) -> None:
    clip = open_encoded_clips(encoded_dataset).load("clip-0")
    window = Window(clip_index=0, frame_indices=(4, 5, 6, 7), reference_index=1, is_mirrored=False)
    item = make_item(clip, window, PLAIN)
    np.testing.assert_array_equal(item.latents[0].numpy(), clip.latents[4:8].astype(np.float32))
    conditioning = item.conditioning
    np.testing.assert_array_equal(conditioning.reference_latents[0], clip.latents[1])
    np.testing.assert_array_equal(conditioning.image_embedding[0], clip.image_embeddings[1])
    # Frame 1 has no identity of its own, so the clip's mean stands in.
    np.testing.assert_array_equal(conditioning.identity_embedding[0], clip.identity_embedding)
    assert conditioning.pose_images.shape == (1, 4, 3, 32, 32)
    assert conditioning.pose_images.min() >= -1.0
    # The box 8..15 px covers the second latent (downscale 8) and is known in frames 0..4 only.
    expected = torch.zeros(4, 1, 4, 4)
    expected[0, 0, 1, 1] = 1.0
    assert torch.equal(face_mask(clip, [4, 5, 6, 7]), expected)


def test_the_same_item_number_gives_the_same_batch(encoded_dataset: Path) -> None:
    table = open_encoded_clips(encoded_dataset)
    makers = [
        AnimatorBatches(table, WindowConfig(num_frames=4), PLAIN, seed=3, reference_noise=0.02)
        for _ in range(2)
    ]
    first, second = (maker.make(range(5, 8)) for maker in makers)
    assert torch.equal(first.latents, second.latents)
    assert torch.equal(first.conditioning.reference_latents, second.conditioning.reference_latents)
    assert not torch.equal(first.latents, makers[0].make(range(8, 11)).latents)


def test_models_that_take_the_warped_reference_get_it(encoded_dataset: Path) -> None:
    task = AnimatorTask(
        _config(encoded_dataset, encoded_dataset), open_encoded_clips(encoded_dataset)
    )
    first, again = task.make_batch(range(2)), task.make_batch(range(2))
    warped = first.conditioning.warped_reference
    assert warped is not None
    assert warped.shape == (2, 4, 6, 4, 4)
    assert torch.equal(warped, again.conditioning.warped_reference)
    assert torch.equal(first.take(1).conditioning.warped_reference, warped[1:])
    assert warped[:, :, 4:].min() >= 0
    assert warped[:, :, 4:].max() <= 1
    plain = AnimatorBatches(
        open_encoded_clips(encoded_dataset),
        WindowConfig(num_frames=4),
        PLAIN,
        seed=0,
        reference_noise=0.0,
    )
    assert plain.make(range(1)).conditioning.warped_reference is None


def test_weights_without_the_warped_reference_start_with_the_warp(
    encoded_dataset: Path, tmp_path: Path
) -> None:
    without = replace(AnimatorConfig.tiny(), warped_reference=None)
    animator = Animator(without)
    animator.save_pretrained(tmp_path / "without")
    config = _config(encoded_dataset, tmp_path / "run", init_from=str(tmp_path / "without"))
    grown = load_initial_animator(config)
    assert grown.config == AnimatorConfig.tiny()
    batch = AnimatorTask(config, open_encoded_clips(encoded_dataset)).make_batch(range(1))
    with torch.no_grad():
        found = grown(batch.latents, torch.full((1,), 50.0), batch.conditioning)
    warped = batch.conditioning.warped_reference[:, :, :4]
    torch.testing.assert_close(found, warped, atol=1e-2, rtol=0)
    for name, weight in animator.pose_net.state_dict().items():
        assert torch.equal(weight, grown.pose_net.state_dict()[name])


def test_windows_longer_than_every_clip_are_refused(encoded_dataset: Path) -> None:
    with pytest.raises(DatasetError, match="None of 6 encoded clips has the 11 frames"):
        AnimatorBatches(
            open_encoded_clips(encoded_dataset),
            WindowConfig(num_frames=11),
            PLAIN,
            seed=0,
            reference_noise=0.0,
        )


def test_a_dataset_encoded_for_another_model_is_refused(encoded_dataset: Path) -> None:
    config = _config(encoded_dataset, encoded_dataset, animator=AnimatorConfig.generated())
    with pytest.raises(DatasetError, match=r"width_px 32 \(the animator needs 192\)"):
        open_table(config)


def test_a_model_that_is_shown_hands_refuses_clips_without(encoded_dataset: Path) -> None:
    animator = replace(AnimatorConfig.tiny(), pose_layout="whole_body_134")
    with pytest.raises(DatasetError, match="which 5 of 5 encoded clips") as error:
        open_table(_config(encoded_dataset, encoded_dataset, animator=animator))
    assert error.value.reason == "no_further_points"


def test_a_table_without_noise_on_the_reference_does_not_fit_a_model_that_wants_it(
    encoded_dataset: Path,
) -> None:
    animator = replace(AnimatorConfig.tiny(), noise_aug_strength=0.02)
    config = replace(
        _config(encoded_dataset, encoded_dataset), animator=animator, reference_noise=0.0
    )
    with pytest.raises(DatasetError, match=r"strength 0 .the animator needs 0.02") as no:
        open_table(config)
    assert "--set reference_noise=0.02" in (no.value.fix or "")
    with pytest.raises(ConfigError, match="would get noise twice"):
        replace(config, reference_noise=0.02)


def test_published_training_freezes_the_unet_but_for_its_attentions() -> None:
    animator = Animator(AnimatorConfig.tiny())
    select_trainable(animator, "published")
    trained = {name for name, weight in animator.named_parameters() if weight.requires_grad}
    assert any(name.startswith("pose_net.") for name in trained)
    assert any(name.startswith("face_encoder.") for name in trained)
    assert all("attentions" in name for name in trained if name.startswith("unet."))


def test_weights_of_another_architecture_are_refused(encoded_dataset: Path, tmp_path: Path) -> None:
    other = replace(AnimatorConfig.tiny(), fps=4.0)
    Animator(other).save_pretrained(tmp_path / "other")
    config = _config(encoded_dataset, tmp_path / "run", init_from=str(tmp_path / "other"))
    with pytest.raises(ConfigError, match="have another architecture"):
        load_initial_animator(config)


def killing_task(config: AnimatorTrainingConfig) -> AnimatorTask:
    """Build the task; the first time, the second worker is killed while the third step is made."""
    rank, marker = ray.train.get_context().get_world_rank(), Path(config.run_dir) / "killed"
    task = make_animator_task(config)
    make_batch = task.make_batch

    def make_or_die(positions: range):
        if rank == 1 and positions.start >= 9 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return make_batch(positions)

    task.make_batch = make_or_die
    return task


@pytest.mark.ray
def test_two_deepspeed_workers_of_which_one_is_killed_equal_one_process(
    encoded_dataset: Path, tmp_path: Path, local_ray: None
) -> None:
    # Both see the same items in passes of one item, so losses differ by rounding only.
    alone = _config(encoded_dataset, tmp_path / "alone")
    alone = replace(alone, scale=replace(alone.scale, num_workers=1, strategy="ddp"))
    folder = RunFolder.claim(tmp_path / "alone", alone)
    run_training(make_animator_task(alone), alone, folder, Topology())
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    pair = _config(encoded_dataset, tmp_path / "pair")
    result = launch(killing_task, pair)
    assert (tmp_path / "pair" / "killed").exists()
    assert result.step == 6
    expected = _losses(folder)
    found = _losses(RunFolder(tmp_path / "pair"))
    assert sorted(found) == sorted(expected) == [1, 2, 3, 4, 5, 6]
    assert list(found.values()) == pytest.approx(list(expected.values()), rel=2e-3)
    first = Animator.from_pretrained(folder.weights_dir).state_dict()
    second = Animator.from_pretrained(result.weights_dir).state_dict()
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], rtol=2e-2, atol=2e-3, msg=name)

    # The same command again finds the finished run; another configuration is refused.
    assert train_animator(pair).found.endswith("finished before, at step 6")
    other = replace(pair, optimizer=replace(pair.optimizer, lr=5e-4))
    with pytest.raises(RunError, match=r"optimizer.lr was 0.001, is now 0.0005"):
        train_animator(other)

    # The run goes on in one process without DeepSpeed, as if nothing had changed.
    longer = {"loop": replace(pair.loop, num_steps=8), "scale": alone.scale}
    for root in (tmp_path / "alone", tmp_path / "pair"):
        config = replace(pair, run_dir=str(root), **longer)
        folder = RunFolder.claim(root, config)
        run_training(make_animator_task(config), config, folder, Topology())
    expected, found = (_losses(RunFolder(tmp_path / name)) for name in ("alone", "pair"))
    assert sorted(found) == list(range(1, 9))
    assert [found[7], found[8]] == pytest.approx([expected[7], expected[8]], rel=5e-3)
