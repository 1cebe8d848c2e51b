"""Start or join the Ray session that a command needs.

With RAY_ADDRESS set the command joins that cluster; otherwise it starts a private session on the
loopback address, small enough for a laptop, and ends it when the command ends. Its workers have no
terminal, its limits on starts and answers leave a busy machine minutes, and what still fails is one
typed error.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from animaray.platform.errors import MachineError
from animaray.platform.terminal import empty_stdin, leave_terminal, silent_stderr

OBJECT_STORE_BYTES = 256 * 1024 * 1024
"""Enough for rows that carry paths and small structs; a clip's bytes pass through once."""

_START_ATTEMPTS = 3
_PAUSE_S = 2.0
_STARTER = "ConsolePopen"
"""What Ray's private module `services` starts each daemon with."""
_QUIET_ENVIRONMENT = {"RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_DATA_LOG_LEVEL": "ERROR"}
_QUIET_LOGGERS = ("ray.serve", "ray.train", "ray.data", "ray.tune")
_PATIENCE = {
    # Ray's own limits are for idle servers: at load 10 on two cores a Serve proxy needs more than
    # its three times 5 s, is held to be unhealthy and killed.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "180",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "120",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",
    # A training of seconds should not wait two more for each end of its workers to be noticed.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # The rest is read by the daemons of a private session when they start.
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_health_check_timeout_ms": "60000",
    "RAY_gcs_rpc_server_connect_timeout_s": "60",
    "RAY_py_gcs_connect_timeout_s": "120",
    "RAY_raylet_client_num_connect_attempts": "60",
}
"""How long Ray waits for its processes; what the environment says wins."""
_READ_BY_WORKERS = ("ANIMARAY_", "RAY_SERVE_", "RAY_TRAIN_", "AWS_", "GOOGLE_", "AZURE_")
"""Beginnings of the names of variables that workers must see as the command does; the last are
those of object stores."""
_ALSO_READ_BY_WORKERS = ("TORCH_EXTENSIONS_DIR", "PYTHONPATH")
"""Whole names; PYTHONPATH, since what the command can import its workers must import, too."""


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
            for name, value in {**_PATIENCE, **os.environ}.items()
            if name.startswith(_READ_BY_WORKERS) or name in _ALSO_READ_BY_WORKERS
        },
    }


def quiet_ray() -> None:
    """Set Ray's log levels; works only before Ray is imported for the first time."""
    for name, value in _QUIET_ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@contextmanager
def ray_session(*, num_cpus: int | None = None, dashboard: bool = False) -> Iterator[None]:
    """Yield with Ray initialised; end the session only if this call started it.

    Args:
        num_cpus: Logical CPUs of a private session; None takes the cores, and at least four:
            driver-side actors (Ray Train's controller, Serve's proxy) hold a share while they wait.
        dashboard: Whether a private session starts Ray's dashboard (300 MB, 11 processes).

    Raises:
        MachineError: The session or the cluster named by RAY_ADDRESS cannot be reached, or one of
            Ray's processes died or did not answer while the session was in use.
    """
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        # A private loopback session needs no token file; a cluster keeps Ray's default.
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "0")
    # A thread that still asks Ray when the session has ended would start another one.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    quiet_ray()
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        with _failures_of_ray():
            yield
        return
    runtime_env = {
        "env_vars": worker_environment(),
        "worker_process_setup_hook": f"{leave_terminal.__module__}.{leave_terminal.__name__}",
    }
    options: dict[str, Any] = {"address": address, "log_to_driver": False}
    if not address:
        options = {
            "address": "local",  # none would join a cluster that somebody started on this machine
            "num_cpus": num_cpus or max(4, os.cpu_count() or 1),
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
        with _failures_of_ray():
            yield
    finally:
        ray.shutdown()


def require_resources(needs: Mapping[str, float], what: str, fix: str) -> None:
    """Refuse work that the session could never start, instead of waiting for ever.

    Args:
        needs: Amounts by resource, as in CPU and GPU.
        fix: What the user can do.

    Raises:
        MachineError: The session has less.
    """
    import ray

    have: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    for kind, amount in needs.items():
        if have.get(kind, 0.0) < amount:
            raise MachineError(
                f"{what} need {amount:g} {kind}s, this Ray session has {have.get(kind, 0.0):g}.",
                fix=fix,
            )


def _start(options: dict[str, Any], *, where: str, attempts: int) -> None:
    """Initialise Ray; on a busy machine a private session may need several attempts.

    Raises:
        MachineError: The last attempt failed, too.
    """
    import ray

    for left in reversed(range(attempts)):
        try:
            with (
                # Ray's core reports its log level there.
                nullcontext() if os.environ.get("ANIMARAY_RAY_LOGS") else silent_stderr(),
                empty_stdin(),
                _daemons_without_terminal(),
                _kept_signal_handlers(),
            ):
                ray.init(**options)
        except Exception as error:  # Ray raises a bare one when a node is not up after 30 s
            ray.shutdown()
            if left == 0:
                reason = str(error).partition("\n")[0] or type(error).__name__
                raise MachineError(
                    f"Cannot start or join {where}: {reason}",
                    fix="Check RAY_ADDRESS, free memory, load and /tmp; on a busy machine the same"
                    " command goes on. `animaray doctor` shows more.",
                ) from error
        else:
            return


def engine_failures() -> tuple[type[Exception], ...]:
    """Return the errors that tell of processes of Ray: dead, unreachable or too slow."""
    from ray import exceptions

    return (
        exceptions.RayActorError,
        exceptions.LocalRayletDiedError,
        exceptions.WorkerCrashedError,
        exceptions.NodeDiedError,
        exceptions.OutOfMemoryError,
        exceptions.OwnerDiedError,
        exceptions.RpcError,
        exceptions.GetTimeoutError,
    )


def come_up(start: Callable[[], None]) -> None:
    """Start something that lives in Ray; on a busy machine it gets several attempts.

    Args:
        start: Starts it, or takes up what an earlier attempt left.

    Raises:
        MachineError: Ray's processes died or were too slow in the last attempt, too.
    """
    failures: tuple[type[Exception], ...] = (
        *engine_failures(),
        TimeoutError,
    )  # Serve gives up with a bare one
    for left in reversed(range(_START_ATTEMPTS)):
        try:
            start()
        except failures as error:
            if left == 0 or _is_our_fault(error):
                _tell(error)
            time.sleep(_PAUSE_S)
        else:
            return


@contextmanager
def _failures_of_ray() -> Iterator[None]:
    """Say what the death of one of Ray's processes means for the user."""
    try:
        yield
    except engine_failures() as error:
        _tell(error)


def _is_our_fault(error: Exception) -> bool:
    """Tell whether an actor died of an error of its own code, which is to be reported."""
    return bool(getattr(error, "actor_init_failed", False))


def _tell(error: Exception) -> NoReturn:
    """Raise what the failure of one of Ray's processes means for the user.

    Raises:
        MachineError: A process died or was too slow.
        Exception: The error itself where it is a fault of ours.
    """
    if _is_our_fault(error):
        raise error
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    raise MachineError(
        f"One of Ray's processes died or did not answer in time ({type(error).__name__}:"
        f" {lines[0] if lines else 'no message'}).",
        fix="The machine is busy or short of memory: the same command goes on from here. With"
        " ANIMARAY_RAY_LOGS=1 it shows what Ray says.",
    ) from error


@contextmanager
def _daemons_without_terminal() -> Iterator[None]:
    """Start Ray's daemons, and so all workers, in a session that has no terminal.

    Ray has no setting for it. Without this the workers leave the terminal by their set-up hook,
    as they do on a cluster; the daemons die with this process in either case.
    """
    from ray._private import services

    start = getattr(services, _STARTER)
    setattr(services, _STARTER, partial(start, start_new_session=True))
    try:
        yield
    finally:
        setattr(services, _STARTER, start)


@contextmanager
def _kept_signal_handlers() -> Iterator[None]:
    """Put the handlers of Ctrl-C and SIGTERM back, which Ray replaces, also below Python.

    With Ray's own a SIGTERM ends in a trace of its C++ part and an abort: no `with` block of ours
    would end, and no exit code would say what happened.
    """
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in kept.items():
                if callable(handler):
                    signal.signal(number, handler)


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
