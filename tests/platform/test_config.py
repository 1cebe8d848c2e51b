"""Configurations: overrides, unknown keys, round trips and fingerprints."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from animaray.platform.config import (
    config_from_dict,
    config_to_dict,
    fingerprint,
    resolve_config,
)
from animaray.platform.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class _Optimizer:
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Training:
    steps: int = 10
    optimizer: _Optimizer = field(default_factory=_Optimizer)
    start: Path | None = None


def test_dotted_override_changes_one_setting() -> None:
    config = resolve_config(_Training(), overrides=["optimizer.lr=5e-4", "steps=3"])
    assert config == _Training(steps=3, optimizer=_Optimizer(lr=5e-4))


def test_override_beats_file(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("steps: 7\noptimizer: {lr: 0.5}\n")
    config = resolve_config(_Training(), file=file, overrides=["steps=8"])
    assert (config.steps, config.optimizer.lr) == (8, 0.5)


def test_unknown_key_names_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Unknown setting `optimizer.lrr`.*`optimizer.lr`"):
        resolve_config(_Training(), overrides=["optimizer.lrr=1"])
    file = tmp_path / "my.yaml"
    file.write_text("stepz: 7\n")
    with pytest.raises(ConfigError, match=r"`stepz` in .*my.yaml"):
        config_from_dict(_Training, {"stepz": 7}, origin=str(file))


def test_wrong_type_names_the_setting_and_the_value() -> None:
    with pytest.raises(ConfigError, match=r"`steps` .*got 'many'"):
        resolve_config(_Training(), overrides=["steps=many"])


def test_malformed_override_and_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Expected `key=value`"):
        resolve_config(_Training(), overrides=["steps"])
    with pytest.raises(ConfigError, match="Cannot read the config file"):
        resolve_config(_Training(), file=tmp_path / "absent.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="must hold a mapping"):
        resolve_config(_Training(), file=tmp_path / "list.yaml")


def test_round_trip_keeps_the_value_and_the_fingerprint() -> None:
    config = _Training(steps=4, start=Path("here"))
    again = config_from_dict(_Training, config_to_dict(config))
    assert again == config
    assert fingerprint(again) == fingerprint(config) != fingerprint(_Training())
