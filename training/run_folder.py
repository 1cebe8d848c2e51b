"""The folder of one training run: what was asked, how far it came, what it measured.

    run/
      config.json       resolved configuration and its fingerprint
      status.json       state, step, time left; rewritten as the run goes
      metrics.jsonl     one line per logging interval
      checkpoints/      step-00000500/ ... each complete or absent
      weights/          what serving loads; written at the end

Starting means resuming: the same configuration continues the newest complete checkpoint, another
one is refused with the differences. A run that stopped as diverged may be tamed: see
MAY_CHANGE_AFTER_DIVERGENCE.
"""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from animaray.platform.config import config_to_dict
from animaray.platform.errors import ConfigError, RunError
from animaray.platform.json_text import json_text
from animaray.platform.storage import content_id, read_json, write_bytes_atomic, write_json_atomic
from animaray.training.checkpoints import checkpoint_folders

_HISTORY = "changed"

RunState = Literal["starting", "running", "finished", "stopped", "failed"]

MAY_CHANGE = (
    "run_dir",
    "shard_cache_dir",
    "shard_cache_gb",
    "loop.num_steps",
    "loop.max_minutes",
    "loop.log_every_steps",
    "loop.checkpoint_every_steps",
    "loop.keep_checkpoints",
    "scale.num_workers",
    "scale.cpus_per_worker",
    "scale.threads_per_worker",
    "scale.micro_batch_size",
    "scale.max_failures",
    "scale.strategy",
    "scale.zero_stage",
)
"""Settings that a resumed run may change: they move neither data order nor optimizer steps."""

DIVERGED = "diverged"
"""Reason of the stop of a run whose loss was not finite."""

MAY_CHANGE_AFTER_DIVERGENCE = (
    "optimizer.lr",
    "optimizer.max_grad_norm",
    "optimizer.warmup_steps",
    "scale.precision",
)
"""Settings that a run which stopped as diverged may change besides: they tame its steps. The data
order stays, and config.json keeps what was changed at which step."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths and small files of one run."""

    root: Path

    @property
    def checkpoints_dir(self) -> Path:
        """Folder of checkpoints."""
        return self.root / "checkpoints"

    @property
    def weights_dir(self) -> Path:
        """Folder of the exported weights."""
        return self.root / "weights"

    @property
    def metrics_path(self) -> Path:
        """File of measured values, one JSON object per line."""
        return self.root / "metrics.jsonl"

    @property
    def status_path(self) -> Path:
        """File of the run's state."""
        return self.root / "status.json"

    @classmethod
    def claim(cls, root: Path, config: Any) -> "RunFolder":  # noqa: ANN401 - any training configuration
        """Create the folder, or reopen it if it belongs to this configuration.

        Raises:
            RunError: The folder belongs to another configuration.
        """
        folder = cls(root)
        wanted: dict[str, Any] = {"kind": type(config).__name__, "config": config_to_dict(config)}
        path = root / "config.json"
        history: list[dict[str, Any]] = []
        if path.exists():
            found = read_json(path)
            history = found.pop(_HISTORY, [])
            has_diverged = folder.read_status().get("reason") == DIVERGED
            tamed: tuple[str, ...] = MAY_CHANGE_AFTER_DIVERGENCE if has_diverged else ()
            changes = _differences(_flatten(found), _flatten(wanted), free=MAY_CHANGE + tamed)
            if changes:
                raise RunError(
                    f"The run folder {root} belongs to another configuration: "
                    f"{'; '.join(changes[:6])}.",
                    fix="Choose another run folder, or go back to those settings to resume.",
                )
            if steered := _differences(_flatten(found), _flatten(wanted), free=MAY_CHANGE):
                step = max(checkpoint_folders(folder.checkpoints_dir), default=0)
                history = [*history, {"step": step, "changes": steered}]
        wanted["fingerprint"] = content_id(json_text(_flatten(wanted), sort_keys=True))
        if history:
            wanted[_HISTORY] = history
        folder.checkpoints_dir.mkdir(parents=True, exist_ok=True)
        write_json_atomic(path, wanted)
        return folder

    def write_status(self, state: RunState, **facts: object) -> None:
        """Update the status file; "starting" begins a new one."""
        before = {} if state == "starting" else self.read_status()
        status = {**before, "state": state, "updated_at": time.time(), **facts}
        write_json_atomic(self.status_path, status)

    def read_status(self) -> dict[str, Any]:
        """Return the status, or an empty mapping before the first write."""
        return read_json(self.status_path) if self.status_path.exists() else {}

    def append_metrics(self, values: dict[str, Any]) -> None:
        """Add one line to the metrics file."""
        with self.metrics_path.open("a", encoding="utf-8") as file:
            file.write(json_text(values) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return all complete lines of the metrics file, oldest first."""
        if not self.metrics_path.exists():
            return []
        lines = []
        for line in self.metrics_path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:
                continue  # the process was killed inside this line; the next start drops it
        return lines

    def rewind_metrics(self, step: int) -> None:
        """Drop lines after a step, so that a resumed run writes each step once."""
        kept = [json_text(line) for line in self.read_metrics() if line.get("step", 0) <= step]
        if self.metrics_path.exists():
            write_bytes_atomic(self.metrics_path, "".join(f"{line}\n" for line in kept).encode())


def require_shared_folder(root: Path, token: str) -> None:
    """Check, on a worker, that the run folder is the one the driver sees.

    Raises:
        ConfigError: The folder is not shared between the machines.
    """
    path = root / ".shared-token"
    if not path.exists() or path.read_text(encoding="utf-8") != token:
        raise ConfigError(
            f"The run folder {root} is not the same folder on every machine of the cluster.",
            fix="Put run_dir on shared storage (see file_mounts and setup_commands, cluster.yaml).",
        )


def write_shared_token(root: Path) -> str:
    """Write and return a token that workers on other machines look for."""
    token = content_id(root, time.time_ns())
    write_bytes_atomic(root / ".shared-token", token.encode())
    return token


def _flatten(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat |= _flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat


def _differences(
    found: dict[str, Any], wanted: dict[str, Any], *, free: Iterable[str]
) -> list[str]:
    ignored = {f"config.{name}" for name in free} | {"fingerprint"}
    names = sorted((found.keys() | wanted.keys()) - ignored)
    return [
        f"{name.removeprefix('config.')} was {found.get(name)!r}, is now {wanted.get(name)!r}"
        for name in names
        if found.get(name) != wanted.get(name)
    ]
