"""The one training loop: batch, loss, gradients, step, measurements, checkpoint, weights.

It is plain torch. Ray Train calls it on every worker (animaray.training.launch); called directly
it trains in this process. What is trained is a `TrainingTask`.
"""

import math
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import torch.distributed
from torch import Tensor, nn

from animaray.platform.disk import check_room, disk_errors
from animaray.training.batch_order import BatchLayout, noise_seed
from animaray.training.checkpoints import (
    Checkpoint,
    checkpoint_folders,
    clear_temporary,
    commit_checkpoint,
    latest_checkpoint,
    prune_checkpoints,
    temporary_folder,
)
from animaray.training.configs import LoopConfig, OptimizerConfig, ScaleConfig
from animaray.training.divergence import DivergenceGuard
from animaray.training.ema import Ema, averaged_weights, trainable_weights
from animaray.training.engines import StateReader, TrainEngine, make_engine, save_states
from animaray.training.prefetch import Prefetcher
from animaray.training.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Result of one pass: what to minimise, and sums that become means in the metrics file."""

    loss: Tensor
    sums: dict[str, tuple[Tensor, Tensor]]
    """By name: a sum and the count that divides it, both scalars, added up over ranks and steps."""


@runtime_checkable
class TrainingTask(Protocol):
    """What a trainer brings: an objective, its batches, its evaluation and its export."""

    @property
    def objective(self) -> nn.Module:
        """Module whose call takes (batch, noise seed) and returns `Measured`."""
        ...

    def make_batch(self, positions: range) -> Any:  # noqa: ANN401 - the objective knows it
        """Return the batch of these items, on the CPU; called from another thread."""
        ...

    def to_device(self, batch: Any, device: torch.device) -> Any:  # noqa: ANN401 - as above
        """Move a batch."""
        ...

    def evaluate(self) -> dict[str, float]:
        """Return figures on held-out data; called by rank 0 when a checkpoint is written."""
        ...

    def export(self, folder: Path) -> None:
        """Write the weights folder from the objective's present weights."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Topology:
    """Which worker this is."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@runtime_checkable
class LoopSettings(Protocol):
    """The three parts that every training configuration has."""

    @property
    def optimizer(self) -> OptimizerConfig:
        """Learning rate, clipping and moving average."""
        ...

    @property
    def loop(self) -> LoopConfig:
        """Length and checkpoints."""
        ...

    @property
    def scale(self) -> ScaleConfig:
        """Workers and precision."""
        ...


def learning_rate(step: int, config: OptimizerConfig, num_steps: int) -> float:
    """Return the learning rate of optimizer step `step` (from 0)."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    share = (step - config.warmup_steps) / max(1, num_steps - config.warmup_steps)
    return config.lr * (0.1 + 0.9 * 0.5 * (1.0 + math.cos(math.pi * min(1.0, share))))


def run_training(  # noqa: C901, PLR0912, PLR0915 - linear on purpose
    task: TrainingTask,
    settings: LoopSettings,
    folder: RunFolder,
    topology: Topology,
    on_checkpoint: Callable[[dict[str, Any], Checkpoint | None], None] | None = None,
) -> int:
    """Train until the last step, resuming the newest checkpoint; return the step reached.

    Args:
        folder: The run's folder, shared by all ranks.
        topology: This worker's rank, the number of workers, the device.
        on_checkpoint: Called by every rank after a checkpoint is complete.

    Raises:
        RunError: The loss stays not finite, or the newest checkpoint does not fit this run.
    """
    loop, scale, is_first = settings.loop, settings.scale, topology.rank == 0
    layout = BatchLayout(
        global_batch_size=scale.global_batch_size,
        micro_batch_size=scale.micro_batch_size,
        world_size=topology.world_size,
    )
    task.objective.to(topology.device).train()
    engine = make_engine(
        task.objective,
        settings.optimizer,
        scale,
        num_passes=layout.num_micro_steps,
    )
    average = (
        Ema(
            task.objective,
            settings.optimizer.ema_decay,
            rank=topology.rank,
            world_size=topology.world_size,
        )
        if settings.optimizer.ema_decay is not None
        else None
    )

    # Start means resume: the manifest on disk decides, not the launcher.
    first_step = num_skipped = 0
    found = latest_checkpoint(folder.checkpoints_dir)
    if found is not None:
        states = StateReader(found.path)
        engine.restore(states)
        first_step = found.step
        num_skipped = first_step - states.num_steps
        if average is not None:
            average.load(found.path)
    _barrier()
    if is_first:
        _check_room(task.objective, folder, settings)
        folder.rewind_metrics(first_step)

    # The time limit counts earlier starts too; the guard skips steps that would spoil the weights.
    clock = _Clock(folder, loop.max_minutes)
    guard = DivergenceGuard(
        folder, settings.optimizer, scale, is_first=is_first, num_skipped=num_skipped
    )

    def make_pass(number: int) -> tuple[int, Any]:
        step, micro_step = divmod(number, layout.num_micro_steps)
        positions = layout.positions(step, micro_step, topology.rank)
        return positions.start, task.make_batch(positions)

    last_step = first_step
    window = _MetricsWindow(topology)
    passes = range(first_step * layout.num_micro_steps, loop.num_steps * layout.num_micro_steps)
    with Prefetcher(make_pass, passes) as prefetcher:
        for step in range(first_step, loop.num_steps):
            # Gradients of all micro batches add up; what a batch holds follows from its position
            # alone, so any number of ranks sees the same data.
            for micro_step in range(layout.num_micro_steps):
                first_position, batch = prefetcher.next()
                measured: Measured = engine.forward(
                    task.to_device(batch, topology.device),
                    noise_seed(loop.seed, first_position),
                    is_last_pass=micro_step == layout.num_micro_steps - 1,
                )
                engine.backward(measured.loss)
                window.add(measured)

            # One update of the weights, and of their running average where the step counted.
            lr = learning_rate(step, settings.optimizer, loop.num_steps)
            grad_norm = engine.step(lr)
            is_counted = guard.counts(step, grad_norm)
            window.end_step(grad_norm if is_counted else None, num_items=layout.global_batch_size)
            if average is not None and is_counted:
                average.update(step)

            # Everything below is the same decision on every rank: it depends on the step and on
            # rank 0's clock alone.
            last_step = step + 1
            is_last = last_step == loop.num_steps or _agree(clock, topology)
            if is_last or last_step % loop.log_every_steps == 0:
                values = window.close(step=last_step, lr=lr, wait_s=prefetcher.take_wait_s())
                values |= {"trained_s": clock.trained_s(), "skipped_steps": guard.num_skipped}
                if is_first:
                    folder.append_metrics(values)
                    folder.write_status("running", num_steps=loop.num_steps, **values)
                if not math.isfinite(values["loss"]) and not guard.is_skipping:
                    guard.stop(f"The loss is not finite at step {last_step}.", bad_step=last_step)
            if is_last or last_step % loop.checkpoint_every_steps == 0:
                saved = _save(engine, average, guard, folder, last_step, settings, topology)
                if saved is not None and (figures := _evaluate(task, saved)):
                    folder.append_metrics({"step": last_step, **figures})
                if on_checkpoint is not None:
                    on_checkpoint({"step": last_step, "loss": window.last_loss}, saved)
            if is_last:
                break

    # The weights folder is made of the newest checkpoint, which is on disk for certain.
    newest = latest_checkpoint(folder.checkpoints_dir) if is_first else None
    if newest is not None:
        with averaged_weights(task.objective, newest.path):
            task.export(folder.weights_dir)
    _barrier()
    return last_step


def _save(  # noqa: PLR0913 - the parts of a run
    engine: TrainEngine,
    average: Ema | None,
    guard: DivergenceGuard,
    folder: RunFolder,
    step: int,
    settings: LoopSettings,
    topology: Topology,
) -> Checkpoint | None:
    """Write a checkpoint with all ranks; rank 0 completes it and returns it.

    After a skipped step there is none: the weights may be what made the gradient not finite.
    """
    num_moves = step - guard.num_skipped
    if num_moves == 0 or (guard.is_skipping and step < settings.loop.num_steps):
        return None
    if topology.rank == 0:
        size = _checkpoint_bytes(engine.objective, settings)
        check_room(folder.root, size, f"The checkpoint of step {step}")
    temporary = temporary_folder(folder.checkpoints_dir, step)
    temporary.mkdir(parents=True, exist_ok=True)
    with disk_errors(folder.checkpoints_dir):
        bad = save_states(
            engine,
            temporary,
            num_steps=num_moves,
            rank=topology.rank,
            world_size=topology.world_size,
        )
        if average is not None:
            bad += average.save(temporary)
    if _any_rank(bool(bad), topology):
        if topology.rank == 0:
            clear_temporary(folder.checkpoints_dir)
        named = f" ({bad[0]})" if bad else ""
        guard.stop(f"The weights are not finite at step {step}{named}.", bad_step=step)
    saved = None
    if topology.rank == 0:
        saved = commit_checkpoint(
            folder.checkpoints_dir, step, world_size=topology.world_size, strategy=engine.strategy
        )
        prune_checkpoints(folder.checkpoints_dir, settings.loop.keep_checkpoints)
    _barrier()
    return saved


def _checkpoint_bytes(objective: nn.Module, settings: LoopSettings) -> int:
    """Return the size of a checkpoint: float32 weights, two moments and perhaps averages."""
    trained = sum(weight.numel() for weight in trainable_weights(objective).values())
    return 4 * trained * (3 if settings.optimizer.ema_decay is None else 4)


def _check_room(objective: nn.Module, folder: RunFolder, settings: LoopSettings) -> None:
    """Refuse a run whose checkpoints and weights the disk cannot hold; see DiskError."""
    # One more than are kept: the oldest goes only when the newest is complete.
    missing = settings.loop.keep_checkpoints + 1 - len(checkpoint_folders(folder.checkpoints_dir))
    weights = 4 * sum(weight.numel() for weight in objective.parameters())
    needed = max(1, missing) * _checkpoint_bytes(objective, settings) + weights
    check_room(folder.root, needed, "The run with its checkpoints")


def _evaluate(task: TrainingTask, saved: Checkpoint) -> dict[str, float]:
    """Return figures of the weights that would be exported from a checkpoint."""
    with averaged_weights(task.objective, saved.path):
        return task.evaluate()


class _MetricsWindow:
    """Collects what happened between two lines of the metrics file."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._reset()
        self.last_loss = float("nan")

    def _reset(self) -> None:
        self._sums: dict[str, tuple[Tensor, Tensor]] = {}
        self._step_sums: dict[str, tuple[Tensor, Tensor]] = {}
        self._grad_norms: list[float] = []
        self._num_items = 0
        self._started = time.monotonic()

    def add(self, measured: Measured) -> None:
        """Add one pass."""
        sums = {"loss": (measured.loss, torch.ones_like(measured.loss)), **measured.sums}
        _add_sums(self._step_sums, sums)

    def end_step(self, grad_norm: float | None, *, num_items: int) -> None:
        """End an optimizer step; the passes of one without a gradient norm were skipped."""
        if grad_norm is not None:
            _add_sums(self._sums, self._step_sums)
            self._grad_norms.append(grad_norm)
        self._step_sums = {}
        self._num_items += num_items

    def close(self, *, step: int, lr: float, wait_s: float) -> dict[str, Any]:
        """Return the line of this window, equal on all ranks, and begin the next."""
        names = sorted(self._sums)
        if not names:  # every step was skipped, on all ranks
            return self._line(step=step, lr=lr, wait_s=wait_s, means={})
        flat = torch.stack(
            [part.float().reshape(()) for name in names for part in self._sums[name]]
        )
        if self._topology.world_size > 1:
            torch.distributed.all_reduce(flat)
        pairs = flat.reshape(-1, 2).tolist()
        means = {
            name: total / count
            for name, (total, count) in zip(names, pairs, strict=True)
            if count > 0
        }
        self.last_loss = means["loss"]
        return self._line(step=step, lr=lr, wait_s=wait_s, means=means)

    def _line(
        self, *, step: int, lr: float, wait_s: float, means: dict[str, float]
    ) -> dict[str, Any]:
        elapsed_s = max(time.monotonic() - self._started, 1e-9)
        norms = self._grad_norms
        values = {
            "step": step,
            "loss": float("nan"),
            **means,
            "lr": lr,
            "grad_norm": sum(norms) / len(norms) if norms else float("nan"),
            "samples_per_s": self._num_items / elapsed_s,
            "data_wait_share": min(1.0, wait_s / elapsed_s),
            "memory_gib": _peak_memory_gib(self._topology.device),
        }
        self._reset()
        return values


def _add_sums(
    into: dict[str, tuple[Tensor, Tensor]], sums: dict[str, tuple[Tensor, Tensor]]
) -> None:
    for name, (total, count) in sums.items():
        before = into.get(name, (0.0, 0.0))
        into[name] = (total.detach() + before[0], count.detach() + before[1])


def _peak_memory_gib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


class _Clock:
    """Time of training, counted over all starts of a run."""

    def __init__(self, folder: RunFolder, max_minutes: float | None) -> None:
        before = [line["trained_s"] for line in folder.read_metrics() if "trained_s" in line]
        self._before_s = float(before[-1]) if before else 0.0
        self._started = time.monotonic()
        self.limit_s = None if max_minutes is None else 60.0 * max_minutes

    def trained_s(self) -> float:
        return self._before_s + time.monotonic() - self._started


def _agree(clock: _Clock, topology: Topology) -> bool:
    """Return on every rank whether rank 0's time is up."""
    if clock.limit_s is None:
        return False
    is_over = clock.trained_s() >= clock.limit_s
    if topology.world_size == 1:
        return is_over
    flag = torch.tensor([float(is_over)], device=topology.device)
    torch.distributed.broadcast(flag, src=0)
    return bool(flag.item())


def _any_rank(flag: bool, topology: Topology) -> bool:  # noqa: FBT001 - the one thing it is about
    """Return on every rank whether any rank says so; all ranks have come here then."""
    if topology.world_size == 1:
        return flag
    total = torch.tensor([float(flag)], device=topology.device)
    torch.distributed.all_reduce(total)
    return bool(total.item())


def _barrier() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
