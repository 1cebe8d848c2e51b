"""The two ways in which gradients of several workers become one optimizer step.

This is the only file that names DeepSpeed.
"""

from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from animaray.platform.errors import MachineError, RunError
from animaray.training.checkpoints import Checkpoint
from animaray.training.configs import OptimizerConfig, ScaleConfig

_STATE_FILE = "state.pt"
_DEEPSPEED_TAG = "deepspeed"


@runtime_checkable
class TrainEngine(Protocol):
    """Forward, backward, step, save and load of one objective on all workers."""

    strategy: str

    def forward(self, *inputs: Any, is_last_pass: bool) -> Any:  # noqa: ANN401 - the objective's
        """Call the objective; gradients are exchanged after the last pass of a step."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients of one pass; the engine divides by the number of passes."""
        ...

    def step(self, lr: float) -> float:
        """Update the weights and return the norm of the gradient before clipping."""
        ...

    def save(self, folder: Path) -> None:
        """Write weights and optimizer states; called by all ranks."""
        ...

    def load(self, checkpoint: Checkpoint) -> None:
        """Read what `save` wrote; called by all ranks."""
        ...


def make_engine(
    objective: nn.Module,
    optimizer_config: OptimizerConfig,
    scale: ScaleConfig,
    *,
    num_passes: int,
    rank: int,
    world_size: int,
) -> TrainEngine:
    """Return the engine that the configuration names; outside Ray Train it is plain torch."""
    trainable = [weight for weight in objective.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(
        trainable,
        lr=optimizer_config.lr,
        betas=optimizer_config.betas,
        eps=optimizer_config.eps,
        weight_decay=optimizer_config.weight_decay,
    )
    if scale.strategy == "deepspeed" and torch.distributed.is_initialized():
        return DeepSpeedEngine(
            objective,
            optimizer,
            scale,
            num_passes=num_passes,
            max_grad_norm=optimizer_config.max_grad_norm,
            world_size=world_size,
        )
    return TorchEngine(
        objective,
        optimizer,
        num_passes=num_passes,
        max_grad_norm=optimizer_config.max_grad_norm,
        rank=rank,
    )


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
        rank: int,
    ) -> None:
        self._objective = objective
        self._optimizer = optimizer
        self._num_passes = num_passes
        self._max_grad_norm = max_grad_norm
        self._rank = rank
        self._wrapped = (
            DistributedDataParallel(objective) if torch.distributed.is_initialized() else None
        )

    def forward(self, *inputs: Any, is_last_pass: bool) -> Any:  # noqa: ANN401 - the objective's
        """Call the objective; gradients are exchanged after the last pass of a step."""
        if self._wrapped is None:
            return self._objective(*inputs)
        with nullcontext() if is_last_pass else self._wrapped.no_sync():
            return self._wrapped(*inputs)

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients of one pass."""
        (loss / self._num_passes).backward()

    def step(self, lr: float) -> float:
        """Update the weights and return the norm of the gradient before clipping."""
        weights = [weight for group in self._optimizer.param_groups for weight in group["params"]]
        limit = self._max_grad_norm if self._max_grad_norm is not None else float("inf")
        norm = torch.nn.utils.clip_grad_norm_(weights, limit)
        _set_lr(self._optimizer, lr)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return float(norm)

    def save(self, folder: Path) -> None:
        """Write weights and optimizer states, equal on all ranks, from rank 0."""
        if self._rank == 0:
            state = {
                "weights": self._objective.state_dict(),
                "optimizer": self._optimizer.state_dict(),
            }
            torch.save(state, folder / _STATE_FILE)

    def load(self, checkpoint: Checkpoint) -> None:
        """Read weights and optimizer states on every rank; any number of workers wrote them."""
        _require_strategy(checkpoint, self.strategy)
        state = torch.load(checkpoint.path / _STATE_FILE, map_location="cpu", weights_only=True)
        self._objective.load_state_dict(state["weights"])
        self._optimizer.load_state_dict(state["optimizer"])


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
        world_size: int,
    ) -> None:
        deepspeed = import_deepspeed()
        self._world_size = world_size
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
            model_parameters=_parameters(optimizer),
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
        """Update the weights and return the norm of the gradient before clipping."""
        _set_lr(self._optimizer, lr)
        self._engine.step()
        norm = self._engine.get_global_grad_norm()
        return float(norm) if norm is not None else float("nan")

    def save(self, folder: Path) -> None:
        """Write this rank's partition of the states; every rank must call it."""
        self._engine.save_checkpoint(str(folder), tag=_DEEPSPEED_TAG, save_latest=False)

    def load(self, checkpoint: Checkpoint) -> None:
        """Read this rank's partition of the states.

        Raises:
            RunError: Another number of workers, or another strategy, wrote the checkpoint.
        """
        _require_strategy(checkpoint, self.strategy)
        if checkpoint.world_size != self._world_size:
            raise RunError(
                f"Checkpoint {checkpoint.path} was written by {checkpoint.world_size} DeepSpeed "
                f"workers, this run has {self._world_size}.",
                fix=f"Resume with scale.num_workers={checkpoint.world_size}.",
            )
        loaded, _ = self._engine.load_checkpoint(str(checkpoint.path), tag=_DEEPSPEED_TAG)
        if loaded is None:
            raise RunError(
                f"DeepSpeed cannot read the checkpoint {checkpoint.path}.",
                fix="Remove that folder to resume from the checkpoint before it.",
            )
        self._engine.micro_steps = 0  # a resumed run may use another number of passes


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


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def _set_lr(optimizer: Any, lr: float) -> None:  # noqa: ANN401 - torch's or DeepSpeed's optimizer
    groups: Iterable[dict[str, Any]] = optimizer.param_groups
    for group in groups:
        group["lr"] = lr


def _require_strategy(checkpoint: Checkpoint, strategy: str) -> None:
    if checkpoint.strategy != strategy:
        raise RunError(
            f"Checkpoint {checkpoint.path} was written by strategy {checkpoint.strategy}, "
            f"this run uses {strategy}.",
            fix=f"Resume with scale.strategy={checkpoint.strategy}.",
        )
