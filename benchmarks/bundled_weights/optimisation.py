"""The one optimisation loop of the small perception networks: AdamW, cosine rate, averaged weights.

All of them train on the CPU in minutes, in bfloat16 where the processor knows it.
"""

import copy
import math
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimisationConfig:
    """How long and how fast one network is trained."""

    num_steps: int
    """Optimizer steps."""
    learning_rate: float = 1.5e-3
    """Peak rate; reached after the warm-up, then lowered to 2 % along a cosine."""
    weight_decay: float = 1e-2
    """AdamW's decoupled decay."""
    warmup_steps: int = 60
    """Steps of linear rise."""
    ema_decay: float = 0.995
    """Decay per step of the averaged weights, which are the result."""
    seed: int = 0
    """Seed of initialisation, order and augmentation."""
    num_threads: int = 1
    """Threads of PyTorch; more only help on an otherwise idle machine."""


def seed_everything(seed: int) -> np.random.Generator:
    """Seed Python, NumPy's returned generator and PyTorch."""
    random.seed(seed)
    torch.manual_seed(seed)
    return np.random.default_rng(seed)


def optimise(
    model: Network,
    loss_of_step: Callable[[int], tuple[Tensor, dict[str, float]]],
    config: OptimisationConfig,
    *,
    name: str,
    extra_parameters: list[nn.Parameter] | None = None,
) -> Network:
    """Train a network in place and return its averaged copy in evaluation mode.

    Args:
        model: The network; switched to training mode and to channels-last memory.
        loss_of_step: Step number -> (loss, figures for the log); run under bfloat16 autocast.
        config: Steps, rates and seed.
        name: First word of the log lines on stderr.
        extra_parameters: Parameters trained beside the network and not kept.

    Returns:
        A copy of the network with averaged parameters and the last buffers.
    """
    torch.set_num_threads(config.num_threads)
    model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(model)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices + (extra_parameters or []), "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        betas=(0.9, 0.99),
    )
    started = time.monotonic()
    for step in range(config.num_steps):
        for group in optimizer.param_groups:
            group["lr"] = _rate(step, config)
        with torch.autocast("cpu", torch.bfloat16):
            loss, figures = loss_of_step(step)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        _average(average, model, decay=min(config.ema_decay, (1 + step) / (10 + step)))
        if step % 100 == 99 or step == config.num_steps - 1:
            passed = time.monotonic() - started
            text = " ".join(f"{key}={value:.4f}" for key, value in figures.items())
            sys.stderr.write(f"{name} {step + 1}/{config.num_steps} {passed:.0f}s {text}\n")
            sys.stderr.flush()
    return average.eval()


def _rate(step: int, config: OptimisationConfig) -> float:
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(config.num_steps - config.warmup_steps, 1)
    return config.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


@torch.no_grad()
def _average(average: nn.Module, model: nn.Module, *, decay: float) -> None:
    for kept, fresh in zip(average.parameters(), model.parameters(), strict=True):
        kept.lerp_(fresh, 1 - decay)
    for stored, now in zip(average.buffers(), model.buffers(), strict=True):
        stored.copy_(now)
