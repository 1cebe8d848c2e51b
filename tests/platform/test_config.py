"""Configurations: precedence, text that stays text, unknown keys, round trips, fingerprints."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
class _Draft:
    std: float = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class _Training:
    steps: int = 10
    minutes: float | None = None
    optimizer: _Optimizer = field(default_factory=_Optimizer)
    draft: _Draft | None = None
    start: Path | None = None
    name: str = "first"
    method: Literal["none", "fit"] | None = None
    stage: Literal[1, 2] = 1
    is_mirrored: bool = False
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    weights_dir: Path
    port: int = 8500


def _set(*assignments: str) -> _Training:
    return resolve_config(_Training(), overrides=assignments)


def test_dotted_override_changes_one_setting() -> None:
    config = _set("optimizer.lr=5e-4", "steps=3")
    assert config == _Training(steps=3, optimizer=_Optimizer(lr=5e-4))


def test_typed_option_beats_override_beats_file_beats_recipe(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("steps: 7\nname: file\nstart: file\noptimizer: {lr: 0.5}\n")
    config = resolve_config(
        _Training(stage=2),
        file=file,
        overrides=["steps=8", "name=override"],
        typed={"steps": 9, "start": None, "optimizer.betas": (0.1, 0.2)},
    )
    assert (config.steps, config.name, config.start) == (9, "override", Path("file"))
    assert (config.optimizer, config.stage) == (_Optimizer(lr=0.5, betas=(0.1, 0.2)), 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name=run #2", {"name": "run #2"}),
        ("name=2024-11-30", {"name": "2024-11-30"}),
        ("name=*", {"name": "*"}),
        ("name=", {"name": ""}),
        ("name=null", {"name": "null"}),
        ("name=a=b: {c", {"name": "a=b: {c"}),
        ("start=1:30", {"start": Path("1:30")}),
        ("start=null", {"start": None}),
        ("minutes=null", {"minutes": None}),
        ("minutes=2", {"minutes": 2.0}),
        ("method=none", {"method": "none"}),
        ("method=null", {"method": None}),
        ("stage=2", {"stage": 2}),
        ("is_mirrored=True", {"is_mirrored": True}),
        ("sources=[2024, a b, 'c, d', \"null\"]", {"sources": ("2024", "a b", "c, d", "null")}),
        ("draft.std=2", {"draft": _Draft(std=2.0)}),
        ("optimizer.betas=[0, 1e-2]", {"optimizer": _Optimizer(betas=(0.0, 0.01))}),
    ],
)
def test_text_is_read_by_the_type_of_its_setting(text: str, expected: dict) -> None:
    assert _set(text) == _Training(**expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps=many", r"`steps` must be a whole number, got 'many' \(--set steps\)"),
        ("steps=3.0", r"`steps` must be a whole number, got '3.0'"),
        ("steps=null", r"`steps` must be a whole number, got 'null'"),
        ("minutes=nan", r"`minutes` must be a number or null, got 'nan'"),
        ("minutes=1e999", r"`minutes` must be a number or null, got '1e999'"),
        ("is_mirrored=1", r"`is_mirrored` must be true or false, got '1'"),
        ("method=fast", r"`method` must be one of none, fit or null, got 'fast'"),
        ("stage=3", r"`stage` must be one of 1, 2, got '3'"),
        ("start=", r"`start` must be a path or null, got ''"),
        ("sources=a", r"`sources` must be a list like \[text, \.\.\.\], got 'a'"),
        ("sources=[*", r"`sources` must be a list"),
        ("sources=[[a]]", r"`sources\[0\]` must be text"),
        ("optimizer.betas=[1]", r"`optimizer.betas` must be a list like \[a number, a number\]"),
        ("optimizer.betas=[1, x]", r"`optimizer.betas\[1\]` must be a number, got 'x'"),
        ("optimizer=1", r"`optimizer` must be a group of settings \(such as `optimizer.lr`\)"),
        ("steps.more=1", r"`steps` must be a whole number, got \{'more'"),
        ("optimizer.lrr=1", r"Unknown setting `optimizer.lrr` .*`optimizer.lr`"),
        ("lr=1", r"Unknown setting `lr` .*Did you mean `optimizer.lr`"),
        ("optimizer..lr=1", r"Unknown setting `optimizer.`"),
        ("steps", "Expected `key=value`"),
        ("=3", "Expected `key=value`"),
    ],
)
def test_wrong_override_names_setting_type_and_value(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _set(text)


@settings(deadline=None)
@given(
    key=st.sampled_from(
        ["steps", "minutes", "optimizer.betas", "start", "name", "sources", "stage"]
    )
    | st.text(max_size=12),
    text=st.text() | st.text("[]{}*&!|>%@`'\"\\,:#-?0123456789.eE+_ntrue\n\t~<", max_size=12),
)
def test_any_override_text_is_taken_or_refused_clearly(key: str, text: str) -> None:
    try:
        config = _set(f"{key}={text}")
    except ConfigError:
        return
    if key == "name":
        assert config.name == text
    assert config_from_dict(_Training, json.loads(json.dumps(config_to_dict(config)))) == config


def test_unquoted_file_text_stays_text_too(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("name: 2024-11-30\nstart: ~\nsources: [off, 012, 'null']\nminutes: 1e1\n")
    config = resolve_config(_Training(start=Path("here")), file=file)
    assert (config.name, config.start, config.minutes) == ("2024-11-30", None, 10.0)
    assert config.sources == ("off", "012", "null")
    file.write_text("# nothing yet\n")
    assert resolve_config(_Training(), file=file) == _Training()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n", "must hold a mapping"),
        ("steps: '3'\n", r"`steps` must be a whole number, got '3' \(.*my.yaml\)"),
        ('{"steps": 3.5}', r"`steps` must be a whole number, got 3.5"),
        ('{"name": 3}', r"`name` must be text, got 3"),
        ('{"minutes": NaN}', r"`minutes` must be a number or null, got nan"),
        ("name: ~\n", r"`name` must be text, got None"),
        ("steps: 1\nsteps: 2\n", "not valid YAML: `steps` stands there twice"),
        ("sources: &a [*a]\n", "not valid YAML: an alias stands inside"),
        ("name: [\n", "not valid YAML"),
        ("name: \udcff\n", "not valid YAML"),
        ("stepz: 7\n", r"`stepz` in .*my.yaml.*`steps`"),
        ('{"schema_version": 2}', "schema_version 2; this version reads 1"),
    ],
)
def test_wrong_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "my.yaml"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=message):
        resolve_config(_Training(), file=file)


def test_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Cannot read the config file"):
        resolve_config(_Training(), file=tmp_path / "absent.yaml")


def test_a_class_stands_for_its_defaults_and_says_what_it_needs() -> None:
    config = resolve_config(_Job, typed={"weights_dir": Path("run #2")})
    assert config == _Job(weights_dir=Path("run #2"))
    with pytest.raises(ConfigError, match="Setting `weights_dir` is needed"):
        resolve_config(_Job, overrides=["port=1"])


def test_round_trip_keeps_the_value_and_the_fingerprint() -> None:
    config = _Training(steps=4, start=Path("here"))
    again = config_from_dict(_Training, config_to_dict(config))
    assert again == config
    assert fingerprint(again) == fingerprint(config) != fingerprint(_Training())
