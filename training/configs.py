"""Settings that both trainers share: optimizer, loop, and how the work is spread."""

from dataclasses import dataclass
from typing import Literal

from animaray.platform.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """AdamW, its schedule, clipping and the moving average of the weights."""

    lr: float = 1e-5
    """Learning rate after the warm-up."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the first and second moment."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 0.01
    """Decoupled weight decay."""
    warmup_steps: int = 0
    """Steps of linear rise from 0 to `lr`."""
    schedule: Literal["constant", "cosine"] = "constant"
    """What follows the warm-up; cosine falls to a tenth of `lr` at the last step."""
    max_grad_norm: float | None = 1.0
    """Gradients are scaled down to this norm; None leaves them."""
    ema_decay: float | None = 0.999
    """Decay per step of the weights' moving average, which is what gets exported; None: off."""

    def __post_init__(self) -> None:
        """Refuse settings out of range.

        Raises:
            ConfigError: A setting is out of range.
        """
        if not self.lr > 0:
            raise ConfigError(f"optimizer.lr must be above 0, got {self.lr}.")
        if self.ema_decay is not None and not 0.0 < self.ema_decay < 1.0:
            raise ConfigError(f"optimizer.ema_decay must be in (0, 1), got {self.ema_decay}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopConfig:
    """Length of a run and what it writes on the way."""

    num_steps: int
    """Optimizer steps of the whole run."""
    max_minutes: float | None = None
    """Stop after this time of training, over all starts, even before `num_steps`; None: never."""
    log_every_steps: int = 10
    """Steps averaged in one line of metrics.jsonl."""
    checkpoint_every_steps: int = 500
    """Steps between checkpoints; the last step always writes one."""
    keep_checkpoints: int = 2
    """How many complete checkpoints stay on disk."""
    seed: int = 0
    """Seed of the data order, the noise and fresh weights."""

    def __post_init__(self) -> None:
        """Refuse settings out of range.

        Raises:
            ConfigError: A setting is out of range.
        """
        for name in ("num_steps", "log_every_steps", "checkpoint_every_steps", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise ConfigError(f"loop.{name} must be at least 1, got {getattr(self, name)}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScaleConfig:
    """How many workers, on what, and how their gradients meet."""

    num_workers: int = 2
    """Ray Train workers, one per GPU or per CPU process."""
    use_gpu: bool = False
    """Whether each worker holds a GPU (NCCL); else CPU processes (gloo)."""
    cpus_per_worker: float = 1.0
    """Logical CPUs that Ray reserves for a worker."""
    threads_per_worker: int = 1
    """Threads of torch's CPU kernels in a worker."""
    strategy: Literal["deepspeed", "ddp"] = "deepspeed"
    """DeepSpeed ZeRO, or torch's DistributedDataParallel."""
    zero_stage: Literal[1, 2] = 2
    """DeepSpeed: 1 splits optimizer states over the workers, 2 also gradients."""
    precision: Literal["float32", "bf16"] = "bf16"
    """Arithmetic of the networks; weights and optimizer states stay in float32."""
    global_batch_size: int = 8
    """Items per optimizer step over all workers; kept when the number of workers changes."""
    micro_batch_size: int = 1
    """Items per worker and pass."""
    max_failures: int = 3
    """How often Ray restarts the workers after one died, before the run fails."""

    def __post_init__(self) -> None:
        """Refuse settings out of range.

        Raises:
            ConfigError: A setting is out of range.
        """
        for name in ("num_workers", "threads_per_worker", "global_batch_size", "micro_batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"scale.{name} must be at least 1, got {getattr(self, name)}.")
