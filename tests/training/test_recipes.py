"""Every recipe builds, survives YAML and JSON, and says what it is for."""

import json

import pytest

from animaray.models.networks.animator_config import AnimatorConfig
from animaray.platform.config import config_from_dict, config_to_dict, resolve_config
from animaray.platform.errors import ConfigError
from animaray.training.batch_order import BatchLayout
from animaray.training.configs import (
    AnimatorTrainingConfig,
    LoopConfig,
    OptimizerConfig,
    ScaleConfig,
)
from animaray.training.recipes import RECIPES, animator_8xa100


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
