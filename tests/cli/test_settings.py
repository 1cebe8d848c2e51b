"""Settings at every door: what was typed wins, and what is printed is taken again."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from animaray.cli.main import app, run
from animaray.evaluation.evaluate import EvaluateConfig
from animaray.models.perception.profiles import PROFILES
from animaray.pipelines.curation.config import CurationConfig
from animaray.pipelines.encode.config import EncodeConfig
from animaray.platform.config import config_from_dict, config_to_dict, resolve_config
from animaray.platform.errors import ConfigError
from animaray.platform.setting_values import dotted_keys
from animaray.training.recipes import RECIPES

TRAINING_DOORS = [["train", name.partition("_")[0], "--recipe", name] for name in RECIPES]
DOORS = [
    ["curate", "run", "videos"],
    ["evaluate", "--data", "d", "--weights", "w"],
    ["serve", "--weights", "w"],
    *(["dataset", "encode", "--profile", profile] for profile in PROFILES),
    *TRAINING_DOORS,
]
"""Every command that prints a configuration, with what it needs to have one."""


def _printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert run([*arguments, "--print-config"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def _door(arguments: Sequence[str]) -> list[str]:
    """Return the command's words without what it was given."""
    return list(arguments[: 1 if arguments[0] in {"evaluate", "serve"} else 2])


def test_every_command_that_prints_a_configuration_is_tested_here() -> None:
    found = {
        tuple(path)
        for path, command in _commands(typer.main.get_command(app), [])
        if any("--print-config" in parameter.opts for parameter in command.params)
    }
    assert found == {tuple(_door(door)) for door in DOORS}


def _commands(command: typer.core.TyperCommand, path: list[str]) -> list:
    below = getattr(command, "commands", {})
    inner = [item for name, sub in below.items() for item in _commands(sub, [*path, name])]
    return inner or [(path, command)]


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door[-1])
def test_printed_configuration_is_taken_again(
    door: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    printed = _printed(capsys, *door)
    file = tmp_path / "printed.json"
    file.write_text(json.dumps(printed))
    # Without the door's own arguments and recipe: the file alone says everything.
    assert _printed(capsys, *_door(door), "--config", str(file)) == printed


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_keeps_its_folders_until_others_are_typed(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    door = ["train", name.partition("_")[0], "--recipe", name]
    recipe = RECIPES[name]()
    printed = _printed(capsys, *door)
    assert (printed["data_dir"], printed["run_dir"]) == (recipe.data_dir, recipe.run_dir)
    file = tmp_path / "mine.yaml"
    file.write_text("data_dir: 2024-11-30\nrun_dir: from-file\n")
    asked = [*door, "--config", str(file), "--set", "run_dir=from-set"]
    printed = _printed(capsys, *asked)
    assert (printed["data_dir"], printed["run_dir"]) == ("2024-11-30", "from-set")
    printed = _printed(capsys, *asked, "--out", "run #2", "--data", "null")
    assert (printed["data_dir"], printed["run_dir"]) == ("null", "run #2")


def test_typed_options_of_curate_beat_the_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "mine.json"
    file.write_text(
        '{"sources": ["a"], "output_dir": "o", "profile": "paper", "policy": "lax", "limit": 2,'
        ' "acquire": {"allow_private_hosts": true}}'
    )
    printed = _printed(capsys, "curate", "run", "--config", str(file))
    assert (printed["sources"], printed["output_dir"], printed["profile"]) == (["a"], "o", "paper")
    assert (printed["policy"], printed["limit"]) == ("lax", 2)
    assert printed["acquire"]["allow_private_hosts"] is True
    printed = _printed(
        capsys, "curate", "run", "b", "c #1", "--config", str(file), "--out", "null", "--profile",
        "generated", "--policy", "strict", "--limit", "1", "--no-allow-private-hosts",
    )  # fmt: skip
    assert (printed["sources"], printed["output_dir"]) == (["b", "c #1"], "null")
    assert (printed["profile"], printed["policy"], printed["limit"]) == ("generated", "strict", 1)
    assert printed["acquire"]["allow_private_hosts"] is False


@pytest.mark.parametrize(
    ("door", "option", "shown"),
    [
        (["curate", "run"], "--out", str(CurationConfig(sources=("x",)).output_dir)),
        (["curate", "run"], "--profile", CurationConfig(sources=("x",)).profile),
        (["curate", "run"], "--policy", CurationConfig(sources=("x",)).policy),
        (["evaluate"], "--out", str(config_to_dict(resolve_config(
            EvaluateConfig, typed={"data_dir": "d", "weights_dir": "w"}))["out_dir"])),
        (["train", "aligner"], "--data", RECIPES["aligner_demo_cpu"]().data_dir),
        (["train", "aligner"], "--out", RECIPES["aligner_demo_cpu"]().run_dir),
        (["train", "animator"], "--data", RECIPES["animator_demo_cpu"]().data_dir),
        (["train", "animator"], "--out", RECIPES["animator_demo_cpu"]().run_dir),
    ],
)  # fmt: skip
def test_help_shows_the_default_that_works(door: list[str], option: str, shown: str) -> None:
    command = {
        tuple(path): command for path, command in _commands(typer.main.get_command(app), [])
    }[tuple(door)]
    (parameter,) = (one for one in command.params if option in one.opts)
    assert parameter.default is None
    assert parameter.show_default.removeprefix("the recipe's: ") == shown


@pytest.mark.parametrize(
    "text", ["policy=*", "policy=[", "policy=2024-11-30", "policy=a\x00b.yaml"]
)
@pytest.mark.parametrize("door", [DOORS[0], DOORS[1]], ids=["curate", "evaluate"])
def test_odd_text_is_no_unexpected_error(
    door: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*door, "--print-config", "--set", text]) in {0, 2}
    assert "Unexpected" not in capsys.readouterr().err


_KINDS = {
    "curate": (CurationConfig, {"sources": ("x",)}),
    "evaluate": (EvaluateConfig, {"data_dir": "d", "weights_dir": "w"}),
    "encode": (EncodeConfig, {}),
    "aligner": (RECIPES["aligner_demo_cpu"](), {}),
    "animator": (RECIPES["animator_8xa100"](), {}),
}


@pytest.mark.parametrize("name", _KINDS)
@settings(deadline=None, max_examples=60, derandomize=True)
@given(data=st.data())
def test_any_override_of_any_setting_is_taken_or_refused_clearly(
    name: str, data: st.DataObject
) -> None:
    recipe, typed = _KINDS[name]
    kind = recipe if isinstance(recipe, type) else type(recipe)
    key = data.draw(st.sampled_from(sorted(dotted_keys(kind))))
    text = data.draw(
        st.text(max_size=20)
        | st.sampled_from(["0", "-1", "1e308", "null", "[]", "[0]", "true", "9" * 300, "[a, [b]]"])
    )
    try:
        config = resolve_config(recipe, overrides=[f"{key}={text}"], typed=typed)
    except ConfigError:
        return
    assert config_from_dict(kind, config_to_dict(config)) == config
