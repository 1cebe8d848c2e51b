from pathlib import Path

import pytest
import torch
from torch import nn

from animaray.training.ema import (
    Ema,
    averaged_weights,
    read_average,
    share_of_rank,
)


def _set(module: nn.Linear, value: float) -> None:
    with torch.no_grad():
        for weight in module.parameters():
            weight.fill_(value)


def test_shares_are_disjoint_complete_and_even() -> None:
    weights = {f"layer{index}": torch.zeros(10 * index + 1) for index in range(9)}
    shares = [share_of_rank(weights, rank=rank, world_size=3) for rank in range(3)]
    assert sorted(name for share in shares for name in share) == sorted(weights)
    sizes = [sum(weights[name].numel() for name in share) for share in shares]
    assert max(sizes) - min(sizes) <= 80  # the largest layer


def test_average_follows_its_formula() -> None:
    module = nn.Linear(2, 1)
    _set(module, 0.0)
    average = Ema(module, 0.9, rank=0, world_size=1)
    _set(module, 1.0)
    average.update(0)  # decay (1 + 0) / (10 + 0) = 0.1, so 0.9 of the new weight
    assert average.averages["weight"][0, 0] == pytest.approx(0.9)
    average.update(1000)  # decay 0.9
    assert average.averages["weight"][0, 0] == pytest.approx(0.91)


def test_shares_of_two_ranks_are_read_back_by_one(tmp_path: Path) -> None:
    module = nn.Linear(3, 2)
    _set(module, 4.0)
    for rank in range(2):
        Ema(module, 0.9, rank=rank, world_size=2).save(tmp_path)
    assert set(read_average(tmp_path)) == {"weight", "bias"}
    _set(module, 0.0)
    alone = Ema(module, 0.9, rank=0, world_size=1)
    alone.load(tmp_path)
    assert alone.averages["bias"].tolist() == [4.0, 4.0]


def test_averaged_weights_are_there_for_a_while_only(tmp_path: Path) -> None:
    module = nn.Linear(3, 2).train()
    _set(module, 4.0)
    Ema(module, 0.9, rank=0, world_size=1).save(tmp_path)
    _set(module, 1.0)
    with averaged_weights(module, tmp_path):
        assert module.weight[0, 0] == 4.0
        assert not module.training
    assert module.weight[0, 0] == 1.0
    assert module.training
