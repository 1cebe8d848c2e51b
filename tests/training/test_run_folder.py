from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from animaray.platform.errors import ConfigError, RunError
from animaray.training.configs import LoopConfig, ScaleConfig
from animaray.training.run_folder import RunFolder, require_shared_folder, write_shared_token


@dataclass(frozen=True, kw_only=True, slots=True)
class SomeTrainingConfig:
    width: int = 8
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(num_steps=10))
    scale: ScaleConfig = field(default_factory=ScaleConfig)


def test_the_same_configuration_reopens_the_folder(tmp_path: Path) -> None:
    RunFolder.claim(tmp_path, SomeTrainingConfig())
    assert RunFolder.claim(tmp_path, SomeTrainingConfig()).root == tmp_path


def test_another_configuration_is_refused_with_the_difference(tmp_path: Path) -> None:
    RunFolder.claim(tmp_path, SomeTrainingConfig())
    with pytest.raises(RunError, match=r"another configuration: width was 8, is now 9\."):
        RunFolder.claim(tmp_path, SomeTrainingConfig(width=9))


def test_length_and_number_of_workers_may_change(tmp_path: Path) -> None:
    config = SomeTrainingConfig()
    RunFolder.claim(tmp_path, config)
    longer = replace(
        config, loop=LoopConfig(num_steps=20), scale=replace(config.scale, num_workers=4)
    )
    assert RunFolder.claim(tmp_path, longer).root == tmp_path


def test_a_torn_line_of_metrics_is_ignored_and_later_steps_are_dropped(tmp_path: Path) -> None:
    folder = RunFolder.claim(tmp_path, SomeTrainingConfig())
    for step in (1, 2, 3):
        folder.append_metrics({"step": step})
    with folder.metrics_path.open("a") as file:
        file.write('{"step": 4, "lo')
    assert [line["step"] for line in folder.read_metrics()] == [1, 2, 3]
    folder.rewind_metrics(2)
    assert folder.metrics_path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_status_keeps_facts_until_a_new_start(tmp_path: Path) -> None:
    folder = RunFolder.claim(tmp_path, SomeTrainingConfig())
    assert folder.read_status() == {}
    folder.write_status("starting", kind="some")
    folder.write_status("running", step=3)
    status = folder.read_status()
    assert (status["state"], status["kind"], status["step"]) == ("running", "some", 3)
    folder.write_status("starting")
    assert "step" not in folder.read_status()


def test_a_folder_that_is_not_shared_is_refused(tmp_path: Path) -> None:
    token = write_shared_token(tmp_path / "driver")
    require_shared_folder(tmp_path / "driver", token)
    with pytest.raises(ConfigError, match="not the same folder on every machine"):
        require_shared_folder(tmp_path / "worker", token)
