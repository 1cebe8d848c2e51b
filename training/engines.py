"""The two ways in which gradients of several workers become one optimizer step.

This is the only file that names DeepSpeed. Both engines write the same checkpoint: per trained
parameter its weight and AdamW's two moments, each rank a share of them. So a run may continue on
another number of workers, and with the other engine.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import torch.distributed
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from animaray.platform.errors import MachineError, RunError
from animaray.training.configs import OptimizerConfig, ScaleConfig
from animaray.training.ema import (
    names_not_finite,
    share_of_rank,
    trainable_weights,
)

_MOMENTS = ("exp_avg", "exp_avg_sq")
_STEPS_KEY = "optimizer_steps"

States = dict[str, Tensor]
"""One parameter's `weight`, `exp_avg` and `exp_avg_sq`, float32."""


@runtime_checkable
class TrainEngine(Protocol):
    """Forward, backward, step, and the states that a checkpoint holds, on all workers."""

    strategy: str
    objective: nn.Module

    def forward(self, *inputs: Any, is_last_pass: bool) -> Any:  # noqa: ANN401 - the objective's
        """Call the objective; gradients are exchanged after the last pass of a step."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients of one pass; the engine divides by the number of passes."""
        ...

    def step(self, lr: float) -> float:
        """Update the weights and return the norm of the gradient before clipping.

        A gradient that is not finite moves nothing; the norm, equal on all ranks, tells.
        """
        ...

    def states(self) -> Iterator[tuple[str, States]]:
        """Yield every parameter's states; all ranks iterate together."""
        ...

    def restore(self, read: "StateReader") -> None:
        """Take over the states of a checkpoint."""
        ...


class StateReader:
    """Reads states out of the files that any number of ranks wrote."""

    def __init__(self, folder: Path) -> None:
        self._places: dict[str, Path] = {}
        self.num_steps = 0
        for path in sorted(folder.glob("states-*.safetensors")):
            with safe_open(path, framework="pt") as file:
                self.num_steps = int((file.metadata() or {})[_STEPS_KEY])
                self._places |= dict.fromkeys(file.keys(), path)

    def read(self, name: str) -> States:
        """Return one parameter's states.

        Raises:
            RunError: The checkpoint does not have this parameter.
        """
        states = {}
        for kind in ("weight", *_MOMENTS):
            path = self._places.get(f"{name}/{kind}")
            if path is None:
                raise RunError(
                    f"The checkpoint has no {kind} of the parameter {name}.",
                    fix="It was written by another version; start in a new run folder.",
                )
            with safe_open(path, framework="pt") as file:
                states[kind] = file.get_tensor(f"{name}/{kind}")
        return states


def save_states(
    engine: TrainEngine, folder: Path, *, num_steps: int, rank: int, world_size: int
) -> list[str]:
    """Write this rank's share of the states; all ranks must call it.

    Args:
        folder: Where the checkpoint is being written.
        num_steps: Optimizer steps that moved the weights.

    Returns:
        Names of this rank's states that are not finite: such a checkpoint must not be completed.
    """
    mine = set(share_of_rank(trainable_weights(engine.objective), rank=rank, world_size=world_size))
    tensors = {
        f"{name}/{kind}": tensor.detach().cpu().contiguous()
        for name, states in engine.states()
        if name in mine
        for kind, tensor in states.items()
    }
    path = folder / f"states-{rank:03d}.safetensors"
    save_file(tensors, path, metadata={_STEPS_KEY: str(num_steps)})
    return names_not_finite(tensors)


def make_engine(
    objective: nn.Module,
    optimizer_config: OptimizerConfig,
    scale: ScaleConfig,
    *,
    num_passes: int,
) -> TrainEngine:
    """Return the engine that the configuration names; outside Ray Train it is plain torch."""
    optimizer = torch.optim.AdamW(
        list(trainable_weights(objective).values()),
        lr=optimizer_config.lr,
        betas=optimizer_config.betas,
        eps=optimizer_config.eps,
        weight_decay=optimizer_config.weight_decay,
    )
    limit = optimizer_config.max_grad_norm
    if scale.strategy == "deepspeed" and torch.distributed.is_initialized():
        return DeepSpeedEngine(
            objective, optimizer, scale, num_passes=num_passes, max_grad_norm=limit
        )
    return TorchEngine(objective, optimizer, num_passes=num_passes, max_grad_norm=limit)


class TorchEngine:
    """DistributedDataParallel when there are several workers, plain torch when there is one."""

    strategy = "ddp"

    def __init__(
        self,
        objective: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        num_passes: int,
        max_grad_norm: float | None,
    ) -> None:
        self.objective = objective
        self._optimizer = optimizer
        self._num_passes = num_passes
        self._max_grad_norm = max_grad_norm
        self._wrapped = (
            DistributedDataParallel(objective) if torch.distributed.is_initialized() else None
        )

    def forward(self, *inputs: Any, is_last_pass: bool) -> Any:  # noqa: ANN401 - the objective's
        """Call the objective; gradients are exchanged after the last pass of a step."""
        if self._wrapped is None:
            return self.objective(*inputs)
        with nullcontext() if is_last_pass else self._wrapped.no_sync():
            return self._wrapped(*inputs)

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients of one pass."""
        torch.autograd.backward(loss / self._num_passes)

    def step(self, lr: float) -> float:
        """Update the weights and return the norm of the gradient before clipping."""
        weights = trainable_weights(self.objective).values()
        limit = self._max_grad_norm if self._max_grad_norm is not None else float("inf")
        norm = torch.nn.utils.clip_grad_norm_(weights, limit)
        if torch.isfinite(norm):
            _set_lr(self._optimizer, lr)
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return float(norm)

    def states(self) -> Iterator[tuple[str, States]]:
        """Yield every parameter's states."""
        for name, weight in trainable_weights(self.objective).items():
            state = self._optimizer.state[weight]
            yield name, {"weight": weight, **{kind: state[kind] for kind in _MOMENTS}}

    @torch.no_grad()
    def restore(self, read: StateReader) -> None:
        """Take over the states of a checkpoint."""
        for name, weight in trainable_weights(self.objective).items():
            states = read.read(name)
            weight.copy_(states["weight"])
            self._optimizer.state[weight] = {
                "step": torch.tensor(float(read.num_steps)),
                **{kind: states[kind].to(weight.device) for kind in _MOMENTS},
            }


class DeepSpeedEngine:
    """DeepSpeed ZeRO stage 1 or 2 around torch's AdamW: nothing has to be compiled for it."""

    strategy = "deepspeed"

    def __init__(
        self,
        objective: nn.Module,
        optimizer: torch.optim.Optimizer,
        scale: ScaleConfig,
        *,
        num_passes: int,
        max_grad_norm: float | None,
    ) -> None:
        deepspeed = import_deepspeed()
        self.objective = objective
        settings = {
            "train_micro_batch_size_per_gpu": scale.micro_batch_size,
            "gradient_accumulation_steps": num_passes,
            "gradient_clipping": max_grad_norm or 0.0,
            "steps_per_print": 2**31,
            "zero_optimization": {"stage": scale.zero_stage},
            # torch's AdamW runs everywhere; DeepSpeed's own would be compiled on first use.
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
        }
        self._engine, self._optimizer, *_ = deepspeed.initialize(
            model=objective,
            model_parameters=list(trainable_weights(objective).values()),
            optimizer=optimizer,
            config=settings,
        )

    def forward(self, *inputs: Any, is_last_pass: bool) -> Any:  # noqa: ANN401 - the objective's
        """Call the objective; gradients are exchanged after the last pass of a step."""
        del is_last_pass  # DeepSpeed counts the passes itself
        return self._engine(*inputs)

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients of one pass; DeepSpeed divides by the number of passes."""
        self._engine.backward(loss)
        if not self._engine.is_gradient_accumulation_boundary():
            self._engine.step()  # counts the pass; weights move at the boundary only

    def step(self, lr: float) -> float:
        """Update the weights and return the norm of the gradient before clipping.

        DeepSpeed itself skips the step of a gradient that is not finite, and reports infinity.
        """
        _set_lr(self._optimizer, lr)
        self._engine.step()
        norm = self._engine.get_global_grad_norm()
        return float(norm) if norm is not None else float("nan")

    def states(self) -> Iterator[tuple[str, States]]:
        """Yield every parameter's states, gathered from the ranks; all ranks iterate together."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        for name, weight in trainable_weights(self.objective).items():
            moments = {kind: safe_get_full_optimizer_state(weight, kind) for kind in _MOMENTS}
            yield name, {"weight": safe_get_full_fp32_param(weight), **moments}

    @torch.no_grad()
    def restore(self, read: StateReader) -> None:
        """Take over the states of a checkpoint: each rank keeps its partition of them."""
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state
        from deepspeed.utils.mixed_precision_linkage import lazy_init_hp_params_optimizer_state

        # The optimizer makes its moments at its first step: one of length zero, without gradient.
        partitions = self._optimizer.single_partition_of_fp32_groups
        for partition in partitions:
            partition.grad = torch.zeros_like(partition)
        _set_lr(self._optimizer, 0.0)
        inner = self._optimizer.optimizer
        inner.step()
        for partition, weights in zip(partitions, self._optimizer.bit16_groups, strict=True):
            partition.grad = None
            inner.state[partition]["step"].fill_(float(read.num_steps))
            lazy_init_hp_params_optimizer_state(weights, partition, inner.state)
        for name, weight in trainable_weights(self.objective).items():
            states = {kind: value.to(weight.device) for kind, value in read.read(name).items()}
            weight.copy_(states["weight"])
            safe_set_full_fp32_param(weight, states["weight"])
            for kind in _MOMENTS:
                safe_set_full_optimizer_state(weight, states[kind], kind)


def import_deepspeed() -> Any:  # noqa: ANN401 - an untyped package
    """Return the deepspeed module, set up so that CPU workers need no compiler.

    On CPU workers DeepSpeed would compile a shared-memory collective on first use (a minute, and
    for ever if an earlier compile was killed); gloo, which Ray Train has set up, does that work.

    Raises:
        MachineError: DeepSpeed is not installed.
    """
    try:
        import deepspeed
        import deepspeed.ops
    except ImportError as error:
        raise MachineError(
            f"scale.strategy is deepspeed, but DeepSpeed cannot be imported: {error}.",
            fix="Install it (Linux only), or use scale.strategy=ddp.",
        ) from error
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def _set_lr(optimizer: Any, lr: float) -> None:  # noqa: ANN401 - torch's or DeepSpeed's optimizer
    for group in optimizer.param_groups:
        group["lr"] = lr
