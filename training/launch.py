"""Run the training loop on Ray Train workers and follow it from the driver.

This is the only file of training that names Ray. What the workers do is the plain loop of
animaray.training.train_loop; the run folder on shared storage is how they report.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from animaray.platform.config import config_from_dict, config_to_dict
from animaray.platform.disk import check_folder, disk_error
from animaray.platform.errors import (
    AnimarayError,
    DiskError,
    RunError,
    error_from_dict,
)
from animaray.platform.progress import StageProgress, stage_progress
from animaray.platform.ray_session import ray_session, require_resources, worker_environment
from animaray.platform.storage import read_json, write_json_atomic
from animaray.platform.stores import is_remote
from animaray.training.checkpoints import Checkpoint, clear_temporary, latest_checkpoint
from animaray.training.configs import LoopConfig, ScaleConfig
from animaray.training.engines import import_deepspeed
from animaray.training.run_folder import RunFolder, require_shared_folder, write_shared_token
from animaray.training.train_loop import Topology, TrainingTask, run_training

_POLL_S = 0.5
_FAILURE_FILE = "failure.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """Where a finished run lies and what it measured."""

    run_dir: Path
    weights_dir: Path
    step: int
    """Optimizer steps of the exported weights."""
    metrics: list[dict[str, Any]]
    """Lines of metrics.jsonl."""
    found: str
    """What the start found: a fresh folder, a checkpoint, or a finished run."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON output."""
        return {
            "run_dir": str(self.run_dir),
            "weights_dir": str(self.weights_dir),
            "step": self.step,
            "found": self.found,
            "last_metrics": self.metrics[-1] if self.metrics else {},
        }


TaskMaker = Callable[[Any], TrainingTask]
"""Builds on one worker what a configuration trains."""


def launch(
    make_task: TaskMaker,
    config: Any,  # noqa: ANN401 - a training configuration with run_dir, loop and scale
    progress: StageProgress | None = None,
) -> TrainResult:
    """Train a configuration on Ray Train workers, resuming whatever its run folder holds.

    Args:
        make_task: Module-level function, called on every worker.
        config: Training configuration; has `run_dir`, `optimizer`, `loop` and `scale`.
        progress: Row to advance; None shows an own row.

    Raises:
        RunError: The folder belongs to another configuration, or the workers failed for good.
        MachineError: The Ray session has too few CPUs or GPUs.
    """
    loop: LoopConfig = config.loop
    check_folder(Path(config.run_dir), "The run")
    folder = RunFolder.claim(Path(config.run_dir).absolute(), config)
    kind = type(config).__name__.removesuffix("TrainingConfig").lower()
    checkpoint = latest_checkpoint(folder.checkpoints_dir)
    done = checkpoint.step if checkpoint is not None else 0
    found = f"{kind} run {folder.root}: " + (
        f"continues at step {done} of {loop.num_steps}" if done else "starts fresh"
    )
    goal = {"num_steps": loop.num_steps, "max_minutes": loop.max_minutes}
    status = folder.read_status()
    if status.get("state") == "finished" and status.get("goal") == goal:
        found = f"{kind} run {folder.root}: finished before, at step {done}"
        return _result(folder, found)
    clear_temporary(folder.checkpoints_dir)
    (folder.root / _FAILURE_FILE).unlink(missing_ok=True)
    facts: dict[str, object] = {"kind": kind, "goal": goal}
    folder.write_status("starting", step=done, **facts)
    row = progress if progress is not None else stage_progress(f"train {kind}", loop.num_steps)
    row.update(done=done, note=found)
    try:
        with row, ray_session(), _Watcher(folder, row):
            _fit(make_task, config, folder)
    except BaseException as error:
        with suppress(DiskError):
            reason = getattr(error, "reason", None)
            folder.write_status("failed", message=str(error), reason=reason)
        raise
    folder.write_status("finished")
    return _result(folder, found)


def build_extensions() -> str:
    """Check that DeepSpeed starts here, and say what had to be compiled: nothing.

    DeepSpeed's optional compiled parts (its CPU collective, its fused AdamW) are switched off in
    favour of gloo and torch's AdamW, so that no compiler is needed and no killed compile can
    block a later run.

    Raises:
        MachineError: DeepSpeed is not installed or cannot be imported.
    """
    version = import_deepspeed().__version__
    return f"DeepSpeed {version} is ready; nothing has to be compiled."


def _fit(make_task: TaskMaker, config: Any, folder: RunFolder) -> None:  # noqa: ANN401 - as launch
    """Run the training loop under Ray Train until it ends well.

    Raises:
        RunError: The workers failed more often than allowed, or refused to go on.
    """
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    scale: ScaleConfig = config.scale
    resources = {"CPU": scale.cpus_per_worker}
    if scale.use_gpu:
        resources["GPU"] = 1.0
    require_resources(
        {kind: amount * scale.num_workers for kind, amount in resources.items()},
        f"{scale.num_workers} workers",
        "Lower scale.num_workers (or cpus_per_worker), or join a larger cluster.",
    )
    trainer = TorchTrainer(
        _run_worker,
        train_loop_config={
            "make_task": make_task,
            "kind": type(config),
            "config": _seen_from_any_folder(config_to_dict(config)),
            "root": str(folder.root),
            "token": write_shared_token(folder.root),
        },
        scaling_config=ray.train.ScalingConfig(
            num_workers=scale.num_workers,
            use_gpu=scale.use_gpu,
            resources_per_worker=resources,
        ),
        torch_config=TorchConfig(backend="nccl" if scale.use_gpu else "gloo"),
        # A fresh Ray name per start: our manifests decide where to resume, not Ray's snapshot.
        run_config=ray.train.RunConfig(
            name=f"start-{time.time_ns()}",
            storage_path=str(folder.root / "ray"),
            failure_config=ray.train.FailureConfig(max_failures=scale.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
            worker_runtime_env={"env_vars": worker_environment()},  # type: ignore[call-arg] # of v2
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        if (no_disk := disk_error(error, folder.root)) is not None:
            raise no_disk from error
        lines = [line for line in str(error).strip().splitlines() if line.strip()]
        raise RunError(
            f"The training workers failed: {lines[-1] if lines else error}",
            fix=f"The same command resumes; Ray's logs are under {folder.root / 'ray'}.",
        ) from error
    failure = folder.root / _FAILURE_FILE
    if failure.exists():
        refused = error_from_dict(read_json(failure))
        raise refused


def _seen_from_any_folder(settings: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration's settings with absolute paths: workers start in another folder."""
    paths = {
        name: str(Path(settings[name]).absolute())
        for name in ("data_dir", "run_dir", "init_from", "aligner_weights", "shard_cache_dir")
        # `init_from` may also be the name of registered weights.
        if settings.get(name) and (name != "init_from" or Path(settings[name]).is_dir())
        if not is_remote(settings[name])
    }
    return {**settings, **paths}


def _run_worker(payload: dict[str, Any]) -> None:
    """Train on one Ray Train worker; a foreseen error is also left in the run folder.

    Raises:
        AnimarayError: The worker refused to go on.
    """
    import ray.train

    config = config_from_dict(payload["kind"], payload["config"], "the run's configuration")
    folder = RunFolder(Path(payload["root"]))
    failure = folder.root / _FAILURE_FILE
    if failure.exists():
        return  # Ray restarted the workers after a foreseen error; trying again cannot help
    torch.set_num_threads(config.scale.threads_per_worker)
    context = ray.train.get_context()
    device = ray.train.torch.get_device() if config.scale.use_gpu else torch.device("cpu")
    topology = Topology(
        rank=context.get_world_rank(), world_size=context.get_world_size(), device=device
    )

    def report(metrics: dict[str, Any], saved: Checkpoint | None) -> None:
        # Ray keeps a pointer to the checkpoint, so that its own tools know of it too.
        with TemporaryDirectory() as pointer:
            if saved is not None:
                write_json_atomic(Path(pointer) / "pointer.json", {"path": str(saved.path)})
            checkpoint = ray.train.Checkpoint.from_directory(pointer) if saved else None
            ray.train.report(metrics, checkpoint=checkpoint)

    try:
        require_shared_folder(folder.root, payload["token"])
        run_training(payload["make_task"](config), config, folder, topology, report)
    except AnimarayError as error:
        _leave_failure(folder, error)
        raise
    except Exception as error:
        if (no_disk := disk_error(error, folder.root)) is None:
            raise
        _leave_failure(folder, no_disk)
        raise no_disk from error


def _leave_failure(folder: RunFolder, error: AnimarayError) -> None:
    """Write why no other try can help; what was half written is room for it on a full disk."""
    clear_temporary(folder.checkpoints_dir)
    with suppress(DiskError):
        write_json_atomic(folder.root / _FAILURE_FILE, error.to_dict())


class _Watcher:
    """Copies the run's status file into a progress row while Ray Train blocks the driver."""

    def __init__(self, folder: RunFolder, row: StageProgress) -> None:
        self._folder = folder
        self._row = row
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="train-progress", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._show()

    def _watch(self) -> None:
        while not self._stop.wait(_POLL_S):
            self._show()

    def _show(self) -> None:
        status = self._folder.read_status()
        if status.get("state") == "running":
            loss = "not finite" if status["loss"] is None else f"{status['loss']:.4f}"
            note = f"loss {loss}, {status['samples_per_s']:.1f} samples/s"
            self._row.update(done=int(status["step"]), note=note)


def _result(folder: RunFolder, found: str) -> TrainResult:
    checkpoint = latest_checkpoint(folder.checkpoints_dir)
    return TrainResult(
        run_dir=folder.root,
        weights_dir=folder.weights_dir,
        step=checkpoint.step if checkpoint is not None else 0,
        metrics=folder.read_metrics(),
        found=found,
    )
