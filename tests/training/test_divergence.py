"""A run whose steps grow until its loss overflows, and what becomes of it."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from animaray.platform.config import resolve_config
from animaray.platform.errors import RunError
from animaray.platform.storage import read_json
from animaray.training.checkpoints import latest_checkpoint
from animaray.training.configs import LoopConfig, OptimizerConfig, ScaleConfig
from animaray.training.divergence import MAX_SKIPPED_IN_A_ROW
from animaray.training.run_folder import RunFolder
from animaray.training.train_loop import Measured, Topology, run_training


@dataclass(frozen=True, kw_only=True, slots=True)
class SteepTrainingConfig:
    loop: LoopConfig
    optimizer: OptimizerConfig
    scale: ScaleConfig


CONFIG = SteepTrainingConfig(
    # Each step moves the weight by the learning rate, which grows from 2 to 20: after eight steps
    # the weight is where the loss overflows.
    optimizer=OptimizerConfig(
        lr=20.0, warmup_steps=10, betas=(0.0, 0.0), weight_decay=0.0, ema_decay=0.9
    ),
    loop=LoopConfig(num_steps=40, log_every_steps=20, checkpoint_every_steps=2),
    scale=ScaleConfig(num_workers=1, strategy="ddp", global_batch_size=1),
)


class SteepObjective(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, batch: torch.Tensor, noise_seed: int) -> Measured:
        del noise_seed
        return Measured(loss=((self.weight - 2.5).square() * batch).exp().sum(), sums={})


class SteepTask:
    """Its items are 1.0, but for some bad ones."""

    def __init__(self, *, bad: range = range(0)) -> None:
        self.objective = SteepObjective()
        self._bad = bad

    def make_batch(self, positions: range) -> torch.Tensor:
        is_bad = positions.start in self._bad
        return torch.tensor([float("nan") if is_bad else 1.0])

    def to_device(self, batch: torch.Tensor, device: torch.device) -> torch.Tensor:
        return batch.to(device)

    def evaluate(self) -> dict[str, float]:
        return {}

    def export(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)


def _run(root: Path, config: SteepTrainingConfig, task: SteepTask) -> RunFolder:
    folder = RunFolder.claim(root, config)
    folder.write_status("starting")
    try:
        run_training(task, config, folder, Topology())
    except RunError as error:  # as the launcher does
        folder.write_status("failed", message=str(error), reason=error.reason)
        raise
    return folder


def _follow(config: SteepTrainingConfig, advice: str | None) -> SteepTrainingConfig:
    overrides = re.findall(r"--set (\S+?=\S+?)(?=[:\s]|$)", advice or "")
    assert overrides
    return resolve_config(config, overrides=overrides)


def test_the_advice_after_a_divergence_goes_on_in_the_same_folder(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        _run(tmp_path, CONFIG, SteepTask())
    checkpoints = tmp_path / "checkpoints"
    assert "is not finite since step 9" in caught.value.message
    # The weights after step 8 are where the loss overflows: finite, and no good to anybody.
    assert f"The last good checkpoint is {checkpoints / 'step-00000006'}." in caught.value.message
    assert "goes on from step 6" in (caught.value.fix or "")
    assert (checkpoints / "diverged-step-00000008").is_dir()
    for path in checkpoints.rglob("*.safetensors"):
        assert all(torch.isfinite(tensor).all() for tensor in load_file(path).values())

    with pytest.raises(RunError, match="belongs to another configuration"):
        RunFolder.claim(tmp_path, replace(CONFIG, scale=replace(CONFIG.scale, global_batch_size=2)))
    tamed = _follow(CONFIG, caught.value.fix)
    assert tamed.optimizer.lr == 2.0
    folder = _run(tmp_path, tamed, SteepTask())
    newest = latest_checkpoint(checkpoints)
    assert newest is not None
    assert newest.step == 40
    assert folder.read_metrics()[-1]["loss"] < 1e5
    changed = read_json(tmp_path / "config.json")["changed"]
    assert [entry["step"] for entry in changed] == [6]
    assert "optimizer.lr was 20.0, is now 2.0" in changed[0]["changes"]
    # The history of the folder is no setting: the same command again is the same run.
    RunFolder.claim(tmp_path, tamed)


def test_a_learning_rate_changes_only_after_a_divergence(tmp_path: Path) -> None:
    RunFolder.claim(tmp_path, CONFIG)
    tamed = replace(CONFIG, optimizer=replace(CONFIG.optimizer, lr=2.0))
    with pytest.raises(RunError, match=r"optimizer\.lr was 20\.0, is now 2\.0"):
        RunFolder.claim(tmp_path, tamed)


def test_a_few_bad_batches_are_skipped_and_counted(tmp_path: Path) -> None:
    calm = replace(
        CONFIG,
        optimizer=replace(CONFIG.optimizer, lr=0.1, warmup_steps=0),
        loop=LoopConfig(num_steps=20, log_every_steps=20, checkpoint_every_steps=4),
    )
    bad = range(6, 6 + MAX_SKIPPED_IN_A_ROW - 1)
    folder = _run(tmp_path / "some", calm, SteepTask(bad=bad))
    line = folder.read_metrics()[-1]
    assert line["skipped_steps"] == len(bad)
    assert line["loss"] < 200.0
    assert "not_finite" not in line
    # A resumed run goes on with the number of moves that the weights had.
    longer = replace(calm, loop=replace(calm.loop, num_steps=24))
    assert _run(tmp_path / "some", longer, SteepTask()).read_metrics()[-1]["skipped_steps"] == 4

    with pytest.raises(RunError, match="is not finite since step 7"):
        _run(tmp_path / "many", calm, SteepTask(bad=range(6, 6 + MAX_SKIPPED_IN_A_ROW)))


def test_no_checkpoint_holds_what_is_not_finite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the gradient looked well, as an engine without our check would have it."""
    task = SteepTask()

    def poison(*_: object) -> bool:
        task.objective.weight.data.fill_(float("inf"))
        return True

    monkeypatch.setattr("animaray.training.divergence.DivergenceGuard.counts", poison)
    with pytest.raises(RunError, match=r"not finite at step 2 .*There is no good checkpoint"):
        _run(tmp_path, CONFIG, task)
    assert list((tmp_path / "checkpoints").iterdir()) == []
