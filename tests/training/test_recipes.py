"""Every recipe builds, survives YAML and JSON, and says what it is for."""

import json
from pathlib import Path

import pytest
import torch

from animaray.models.networks.animator import Animator
from animaray.models.networks.animator_config import AnimatorConfig
from animaray.pipelines.encode.config import encode_recipe
from animaray.platform.config import config_from_dict, config_to_dict, resolve_config
from animaray.platform.errors import ConfigError
from animaray.platform.weights.store import BUNDLED_ANIMATOR
from animaray.training.aligner import BUNDLED_ALIGNER
from animaray.training.batch_order import BatchLayout
from animaray.training.configs import (
    AnimatorTrainingConfig,
    LoopConfig,
    OptimizerConfig,
    ScaleConfig,
)
from animaray.training.recipes import RECIPES, animator_8xa100

DIFFERENCES = Path(__file__).parents[2] / "docs" / "published_differences.md"


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_round_trips_through_json(name: str) -> None:
    config = RECIPES[name]()
    data = json.loads(json.dumps(config_to_dict(config)))
    assert config_from_dict(type(config), data) == config


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_says_its_purpose_and_its_batches_divide(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.__name__ == name
    assert recipe.__doc__
    scale = recipe().scale
    layout = BatchLayout(
        global_batch_size=scale.global_batch_size,
        micro_batch_size=scale.micro_batch_size,
        world_size=scale.num_workers,
    )
    assert layout.num_micro_steps >= 1


def test_published_recipe_has_the_published_values() -> None:
    config = animator_8xa100()
    assert (config.optimizer.lr, config.optimizer.betas) == (1e-5, (0.9, 0.999))
    assert (config.optimizer.weight_decay, config.optimizer.schedule) == (0.01, "constant")
    assert config.trainable == "published"
    assert config.animator == AnimatorConfig.published()
    assert config.loss.noise_levels.distribution == "cosine_interpolated"
    assert config.loss.conditioning_dropout == 0.1
    assert (config.window.num_frames, config.window.max_stride) == (16, 4)
    assert (config.scale.num_workers, config.scale.micro_batch_size) == (8, 1)
    assert (config.loss.face_weight_power, config.loss.sigma_data) == (1, 1.0)
    # 20 epochs of 5,000 clips.
    assert config.loop.num_steps * config.scale.global_batch_size == 20 * 5_000
    two = RECIPES["animator_2x8xa100"]()
    assert two.loop.num_steps * two.scale.global_batch_size == 20 * 5_000
    assert two.scale.num_workers == 16


def test_the_published_reference_has_noise_on_its_pixels_and_nowhere_else() -> None:
    config = animator_8xa100()
    assert config.animator.noise_aug_strength == 0.02
    assert config.reference_noise == 0.0
    assert encode_recipe("paper").reference_noise == 0.02
    for name in ("animator_demo_cpu", "animator_permissive_cpu"):
        small = RECIPES[name]()
        assert (small.animator.noise_aug_strength, small.reference_noise) == (0.0, 0.02)


@pytest.mark.parametrize(
    ("name", "workers", "threads", "strategy", "minutes"),
    [
        ("aligner_demo_cpu", 2, 1, "ddp", 1.5),
        ("animator_demo_cpu", 2, 1, "deepspeed", 6.0),
        ("animator_permissive_cpu", 2, 1, "deepspeed", 6.0),
        ("animator_1gpu", 1, 4, "ddp", None),
        ("animator_8xa100", 8, 4, "deepspeed", None),
        ("animator_2x8xa100", 16, 4, "deepspeed", None),
    ],
)
def test_recipes_take_the_machines_and_minutes_that_they_name(
    name: str, workers: int, threads: int, strategy: str, minutes: float | None
) -> None:
    config = RECIPES[name]()
    scale = config.scale
    assert (scale.num_workers, scale.threads_per_worker, scale.strategy) == (
        workers, threads, strategy,
    )  # fmt: skip
    assert scale.use_gpu == ("gpu" in name or "a100" in name)
    if minutes is not None or "pretrain" not in name:
        assert config.loop.max_minutes == minutes


def test_recipes_start_where_they_say() -> None:
    starts = {name: RECIPES[name]().init_from for name in RECIPES}
    assert starts["aligner_demo_cpu"] == BUNDLED_ALIGNER
    assert starts["animator_demo_cpu"] == BUNDLED_ANIMATOR
    assert {name for name, start in starts.items() if start is not None} == {
        "aligner_demo_cpu", "animator_demo_cpu",
    }  # fmt: skip


def test_the_sums_in_the_docstrings_add_up() -> None:
    aligner = RECIPES["aligner_8xa100"]()
    pairs = aligner.loop.num_steps * aligner.scale.global_batch_size
    assert pairs == pytest.approx(50 * 9_000_000, rel=0.01)
    assert pytest.approx(1.3e9, rel=0.01) == 9_000_000 * 18 * 2 * 4
    demo = RECIPES["animator_demo_cpu"]()
    assert (demo.animator.width_px, demo.animator.height_px) == (192, 192)
    assert (demo.window.num_frames, demo.scale.zero_stage) == (8, 2)
    tiny = RECIPES["animator_tiny_cpu"]()
    assert (tiny.animator.width_px, tiny.animator.height_px) == (32, 32)
    with torch.device("meta"):
        sizes = [weight.numel() for weight in Animator(tiny.animator).parameters()]
    assert 100_000 < sum(sizes) < 1_000_000
    assert RECIPES["animator_1gpu"]().trainable == "published"


def test_every_difference_that_the_recipe_sets_stands_in_the_table() -> None:
    document = DIFFERENCES.read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in document.splitlines()
        if line.startswith("| ") and not line.startswith("| item")
    ]
    assert all(len(row) == 4 and all(row) for row in rows)
    assert "docs/published_differences.md" in (animator_8xa100.__doc__ or "")
    config = animator_8xa100()
    ours = {row[0]: row[2] for row in rows}
    # What the table says of our side is what the recipe does.
    assert f"norm {config.optimizer.max_grad_norm:g}" in ours["gradient clipping"]
    assert f"decay {config.optimizer.ema_decay}" in ours["exported weights"]
    assert f"{config.held_out_share:.0%}" in ours["held-out videos"]
    assert config.scale.precision in ours["precision of training"]
    assert config.scale.strategy in ours["data parallelism"].lower()
    assert f"`{config.activation_checkpointing}`" in ours["activation checkpointing"]
    assert f"`{config.window.sampling}`" in ours["window of a clip"]
    assert f"1 to {config.window.max_stride}" in ours["window of a clip"]
    assert f"{config.animator.fps:g} frames per second" in ours["frame rate"]
    assert f"{config.animator.width_px}x{config.animator.height_px}" in ours["sizes"]
    assert ("keep_aspect=true" in ours["aspect of frames"]) == config.animator.keep_aspect


def test_a_dotted_override_reaches_a_nested_setting() -> None:
    config = resolve_config(animator_8xa100(), overrides=["optimizer.lr=2e-5", "init_from=x"])
    assert isinstance(config, AnimatorTrainingConfig)
    assert config.optimizer.lr == 2e-5
    assert config.init_from == "x"


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"optimizer.lr must be above 0"):
        OptimizerConfig(lr=0.0)
    with pytest.raises(ConfigError, match=r"optimizer.ema_decay must be in"):
        OptimizerConfig(ema_decay=1.0)
    with pytest.raises(ConfigError, match=r"loop.num_steps must be at least 1"):
        LoopConfig(num_steps=0)
    with pytest.raises(ConfigError, match=r"scale.num_workers must be at least 1"):
        ScaleConfig(num_workers=0)
