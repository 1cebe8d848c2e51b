"""Start or join the Ray session that a command needs.

With RAY_ADDRESS set the command joins that cluster; otherwise it starts a private session on the
loopback address, small enough for a laptop, and ends it when the command ends.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from animaray.platform.errors import MachineError

OBJECT_STORE_BYTES = 256 * 1024 * 1024
"""Enough for rows that carry paths and small structs; a clip's bytes pass through once."""

_START_ATTEMPTS = 3
_QUIET_ENVIRONMENT = {"RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_DATA_LOG_LEVEL": "ERROR"}
_QUIET_LOGGERS = ("ray.serve", "ray.train", "ray.data", "ray.tune")


def worker_environment() -> dict[str, str]:
    """Return environment variables for our Ray workers: one thread each, tools on PATH."""
    binaries = str(Path(sys.executable).parent)
    return {
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        # Threads that spin while they wait cost more than they gain where cores are shared.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        "PATH": os.pathsep.join([binaries, os.environ.get("PATH", "")]),
        "DS_ACCELERATOR": os.environ.get("DS_ACCELERATOR", _deepspeed_accelerator()),
        "TOKENIZERS_PARALLELISM": "false",
        **{
            name: value
            for name, value in os.environ.items()
            if name.startswith("ANIMARAY_") or name == "TORCH_EXTENSIONS_DIR"
        },
    }


def quiet_ray() -> None:
    """Set Ray's log levels; works only before Ray is imported for the first time."""
    for name, value in _QUIET_ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@contextmanager
def ray_session(*, num_cpus: int = 4, dashboard: bool = False) -> Iterator[None]:
    """Yield with Ray initialised; end the session only if this call started it.

    Args:
        num_cpus: Logical CPUs of a private session. More than the cores, because driver-side
            actors (Ray Train's controller, Serve's proxy) hold a share while they wait.
        dashboard: Whether a private session starts Ray's dashboard (300 MB, 11 processes).

    Raises:
        MachineError: The session or the cluster named by RAY_ADDRESS cannot be reached.
    """
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        # A private loopback session needs no token file; a cluster keeps Ray's default.
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "0")
    quiet_ray()
    import ray

    if ray.is_initialized():
        yield
        return
    runtime_env = {"env_vars": worker_environment()}
    options: dict[str, Any] = {"address": address, "log_to_driver": False}
    if not address:
        options = {
            "address": "local",  # none would join a cluster that somebody started on this machine
            "num_cpus": num_cpus,
            "include_dashboard": dashboard,
            "object_store_memory": OBJECT_STORE_BYTES,
            "log_to_driver": bool(os.environ.get("ANIMARAY_RAY_LOGS")),
            "logging_level": logging.ERROR,
            "_node_ip_address": "127.0.0.1",
        }
    options["runtime_env"] = runtime_env
    if address:
        _start(options, where=f"the Ray cluster at {address}", attempts=1)
    else:
        _start(options, where="a local Ray session", attempts=_START_ATTEMPTS)
    try:
        _quiet_ray_data()
        _keep_off_stdout(is_private=not address)
        yield
    finally:
        ray.shutdown()


def _start(options: dict[str, Any], *, where: str, attempts: int) -> None:
    """Initialise Ray; on a busy machine a private session may need several attempts.

    Raises:
        MachineError: The last attempt failed, too.
    """
    import ray

    for left in reversed(range(attempts)):
        try:
            with _silent_stderr():
                ray.init(**options)
        except Exception as error:  # Ray raises a bare one when a node is not up after 30 s
            ray.shutdown()
            if left == 0:
                reason = str(error).partition("\n")[0] or type(error).__name__
                raise MachineError(
                    f"Cannot start or join {where}: {reason}",
                    fix="Check RAY_ADDRESS, free memory, load and /tmp; `animaray doctor` shows "
                    "more.",
                ) from error
        else:
            return


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Keep the line in which Ray's core reports its log level off the terminal."""
    if os.environ.get("ANIMARAY_RAY_LOGS"):
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(nowhere)
        os.close(kept)


def _quiet_ray_data() -> None:
    """Leave progress to our own rows; Ray's messages stay in its log files."""
    import ray.data

    for name in _QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.verbose_progress = False
    context.default_hash_shuffle_parallelism = 4
    context.min_parallelism = 2


def _keep_off_stdout(*, is_private: bool) -> None:
    """Send what Ray's daemons report to stderr: Ray prints it on stdout, where --json output goes.

    A private session's reports (a call that is retried while the session ends) stay in its log
    files; those of a cluster, as of a node that died, are for its operator. Ray has no setting for
    it.
    """
    from ray._private import worker

    def tell(data: dict[str, Any], ignore_prefix: bool) -> None:  # noqa: FBT001 - Ray's signature
        if not is_private or os.environ.get("ANIMARAY_RAY_LOGS"):
            worker.print_worker_logs(data, sys.stderr, ignore_prefix)

    worker.print_to_stdstream = tell


def _deepspeed_accelerator() -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    has_gpu = Path("/dev/nvidia0").exists() and visible not in {"", "-1"}
    return "cuda" if has_gpu else "cpu"
