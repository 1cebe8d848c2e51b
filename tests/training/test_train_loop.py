"""The loop on a linear model whose behaviour is known; no Ray, no DeepSpeed."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from animaray.platform.disk import free_bytes
from animaray.platform.errors import DiskError, RunError
from animaray.training.configs import LoopConfig, OptimizerConfig, ScaleConfig
from animaray.training.run_folder import RunFolder
from animaray.training.train_loop import (
    Measured,
    Topology,
    learning_rate,
    run_training,
)

TARGET = torch.tensor([[1.0, -2.0, 0.5]])


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearTrainingConfig:
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            num_steps=12, log_every_steps=1, checkpoint_every_steps=4
        )
    )
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(lr=0.1, ema_decay=0.9, weight_decay=0.0)
    )
    scale: ScaleConfig = field(
        default_factory=lambda: ScaleConfig(
            num_workers=1, strategy="ddp", global_batch_size=8, micro_batch_size=4
        )
    )


class LinearObjective(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1, bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(self, batch: torch.Tensor, noise_seed: int) -> Measured:
        noise = torch.randn(len(batch), 1, generator=torch.Generator().manual_seed(noise_seed))
        loss = (self.linear(batch) - batch @ TARGET.T - 0.01 * noise).square().mean()
        return Measured(loss=loss, sums={})


class LinearTask:
    """Also records which items it was asked for, and can fail at one of them."""

    def __init__(self, *, fail_at: int | None = None, scale: float = 1.0) -> None:
        self.objective = LinearObjective()
        self.seen: list[int] = []
        self._fail_at = fail_at
        self._scale = scale

    def make_batch(self, positions: range) -> torch.Tensor:
        if self._fail_at in positions:
            raise InterruptedError("killed")
        self.seen += positions
        rows = [np.random.default_rng(position).standard_normal(3) for position in positions]
        return torch.tensor(np.stack(rows), dtype=torch.float32) * self._scale

    def to_device(self, batch: torch.Tensor, device: torch.device) -> torch.Tensor:
        return batch.to(device)

    def evaluate(self) -> dict[str, float]:
        return {"error": float((self.objective.linear.weight.detach() - TARGET).norm())}

    def export(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        weight = self.objective.linear.weight.detach().contiguous()
        save_file({"weight": weight}, folder / "weights.safetensors")


def _run(root: Path, config: LinearTrainingConfig, task: LinearTask) -> RunFolder:
    folder = RunFolder.claim(root, config)
    run_training(task, config, folder, Topology())
    return folder


def _losses(folder: RunFolder) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in folder.read_metrics() if "loss" in line}


def test_training_learns_and_exports_the_averaged_weights(tmp_path: Path) -> None:
    config = replace(
        LinearTrainingConfig(),
        loop=LoopConfig(num_steps=200, log_every_steps=50, checkpoint_every_steps=100),
    )
    task = LinearTask()
    folder = _run(tmp_path, config, task)
    exported = load_file(folder.weights_dir / "weights.safetensors")["weight"]
    torch.testing.assert_close(exported, TARGET, atol=0.02, rtol=0.0)
    line = folder.read_metrics()[0]
    assert line["loss"] > 0.0
    assert {"lr", "grad_norm", "samples_per_s", "data_wait_share", "memory_gib"} <= line.keys()
    assert task.seen[:1600] == list(range(1600))


def test_a_resumed_run_has_the_losses_of_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = _run(tmp_path / "whole", LinearTrainingConfig(), LinearTask())
    with pytest.raises(InterruptedError):
        _run(tmp_path / "killed", LinearTrainingConfig(), LinearTask(fail_at=8 * 10))
    resumed = _run(tmp_path / "killed", LinearTrainingConfig(), LinearTask())
    assert _losses(resumed) == _losses(whole)
    assert sorted(_losses(whole)) == list(range(1, 13))
    first, second = (
        load_file(folder.weights_dir / "weights.safetensors")["weight"]
        for folder in (whole, resumed)
    )
    assert torch.equal(first, second)


def test_gradient_accumulation_equals_one_large_batch(tmp_path: Path) -> None:
    split = LinearTrainingConfig()
    whole = replace(split, scale=replace(split.scale, micro_batch_size=8))
    weights = [
        load_file(_run(tmp_path / name, config, LinearTask()).weights_dir / "weights.safetensors")
        for name, config in (("split", split), ("whole", whole))
    ]
    # Only the label noise (std 0.01), which is drawn per pass, differs.
    torch.testing.assert_close(weights[0]["weight"], weights[1]["weight"], atol=0.02, rtol=0.0)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not finite since step 1 "):
        _run(tmp_path, LinearTrainingConfig(), LinearTask(scale=float("inf")))


def test_the_time_limit_stops_and_still_exports(tmp_path: Path) -> None:
    config = replace(LinearTrainingConfig(), loop=LoopConfig(num_steps=10**6, max_minutes=0.005))
    folder = _run(tmp_path, config, LinearTask())
    assert (folder.weights_dir / "weights.safetensors").exists()
    assert 0 < folder.read_metrics()[-1]["step"] < 10**6


def test_learning_rate_rises_then_falls_to_a_tenth() -> None:
    config = OptimizerConfig(lr=1.0, warmup_steps=4, schedule="cosine")
    rates = [learning_rate(step, config, 104) for step in (0, 3, 4, 54, 104)]
    assert rates == pytest.approx([0.25, 1.0, 1.0, 0.55, 0.1])
    assert learning_rate(50, OptimizerConfig(lr=2.0), 100) == 2.0


class WideObjective(LinearObjective):
    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Parameter(torch.zeros(2**16))

    def forward(self, batch: torch.Tensor, noise_seed: int) -> Measured:
        measured = super().forward(batch, noise_seed)
        return Measured(loss=measured.loss + 0.0 * self.wide.sum(), sums={})


class WideTask(LinearTask):
    """Its checkpoints have a megabyte, of which three are kept for a moment."""

    def __init__(self) -> None:
        super().__init__()
        self.objective = WideObjective()


def test_a_full_disk_stops_a_run_that_goes_on_once_there_is_room(
    tmp_path: Path, tiny_disk: Path
) -> None:
    config = LinearTrainingConfig()
    whole = _losses(_run(tmp_path / "whole", config, WideTask()))
    ballast = tiny_disk / "ballast"
    ballast.write_bytes(bytes(free_bytes(tiny_disk) - 2**20))
    with pytest.raises(DiskError, match=r"The run with its checkpoints needs about .* bytes in"):
        _run(tiny_disk / "run", config, WideTask())
    ballast.unlink()

    class FillingTask(WideTask):
        """Somebody else fills the disk after the first checkpoint."""

        def evaluate(self) -> dict[str, float]:
            ballast.write_bytes(bytes(free_bytes(tiny_disk) - 2**18))
            return {}

    with pytest.raises(DiskError, match="The checkpoint of step 8 needs about"):
        _run(tiny_disk / "run", config, FillingTask())
    names = [path.name for path in (tiny_disk / "run" / "checkpoints").iterdir()]
    assert names == ["step-00000004"]
    ballast.unlink()
    assert _losses(_run(tiny_disk / "run", config, WideTask())) == whole
