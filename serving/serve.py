"""Start the service on Ray Serve: an ingress that talks, replicas that hold the model.

    HTTP -> Ingress (FastAPI, no model) -> job store + files <- AnimatorReplica (worker thread)

The two meet in the job store only: either may die without losing a job. Command: animaray serve
"""

import dataclasses
import errno
import math
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import ray
from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from animaray.platform.disk import check_room, disk_errors
from animaray.platform.errors import MachineError, PortError, WeightsError
from animaray.platform.ray_session import come_up, ray_session
from animaray.platform.weights.whole_files import require_whole_folder
from animaray.serving.config import INGRESS_CPUS, ServeConfig
from animaray.serving.http.app import make_app
from animaray.serving.http.service import AnimationService
from animaray.serving.http.tenants import Tenants
from animaray.serving.jobs.files import JobFiles
from animaray.serving.jobs.store import JobStore

APPLICATION = "animaray"
MAX_OPEN_CONNECTIONS = 500
_LEAST_ROOM_BYTES = 16 * 1024**2
"""For the job database; uploads and results are checked when they come."""
"""Requests at the same time; most are event streams that wait."""
HEALTH_TIMEOUT_S = 120
"""A replica of a busy machine may answer late; a dead process is seen at once in any case."""


class AnimatorReplica:
    """Hold one model; work in a thread of its own, off Serve's event loop."""

    def __init__(self, config: ServeConfig) -> None:
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._drain_s = config.drain_s
        self._thread = threading.Thread(target=self._work, args=(config,), name="animator")
        self._thread.daemon = True
        self._thread.start()

    def _work(self, config: ServeConfig) -> None:
        # Here and not above: importing torch takes seconds, and the ingress must not do it.
        import torch

        from animaray.serving.work.worker import AnimationWorker, WorkerSettings, load_model

        try:
            torch.set_num_threads(config.threads)
            store = JobStore(config.store_url)
            worker = AnimationWorker(
                store,
                lambda: load_model(config.weights_dir, config.torch_device),
                JobFiles(config.data_dir.absolute()),
                config.limits,
                WorkerSettings(lease_s=config.lease_s, drain_s=config.drain_s),
            )
            worker.run(self._stop)
            store.close()
        except BaseException as error:
            self._failure = error
            raise

    def check_health(self) -> None:
        """Tell Serve to replace this replica when its thread has ended.

        Raises:
            MachineError: The worker thread has ended by itself.
        """
        if not self._thread.is_alive() and not self._stop.is_set():
            raise MachineError(f"The worker thread ended: {self._failure!r}.")

    def __del__(self) -> None:
        """Let the job in hand end or go back to the queue (Serve calls this when it stops)."""
        self._stop.set()
        self._thread.join(timeout=self._drain_s + 15)


@serve.ingress()
class Ingress:
    """Answer HTTP; knows the job store, not the model.

    Args:
        animators: Makes Serve start the replicas with this ingress; they are not called.
    """

    def __init__(self, config: ServeConfig, animators: DeploymentHandle[Any]) -> None:
        self._config = config
        self._animators = animators

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Build the application inside the replica."""
        config = self._config
        return make_app(
            AnimationService(
                JobStore(config.store_url),
                JobFiles(config.data_dir.absolute()),
                config.limits,
                Tenants.load(config.api_keys_path),
                worker_timeout_s=config.worker_timeout_s,
            ),
            allowed_hosts=config.allowed_hosts,
        )


class ServerHandle:
    """A running service.

    Args:
        session: Ends the Ray session if the start began one.
    """

    def __init__(self, config: ServeConfig, session: ExitStack) -> None:
        self.url = config.url
        self._config = config
        self._session = session
        self._is_stopped = False
        self._started_s = time.time()

    def __enter__(self) -> "ServerHandle":
        """Return the handle."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the service."""
        self.stop()

    def wait_ready(self, timeout_s: float) -> None:
        """Block until a model is loaded.

        Args:
            timeout_s: Give up after so many seconds.

        Raises:
            WeightsError: The replicas could not load the model.
            MachineError: The time is over.
        """
        store = JobStore(self._config.store_url)
        deadline = time.monotonic() + timeout_s
        try:
            while time.monotonic() < deadline:
                if _answers(f"{self.url}/health/ready"):
                    return
                workers = [
                    worker
                    for worker in store.leases.workers(self._config.worker_timeout_s)
                    if worker.heartbeat_s >= self._started_s
                ]
                if workers and all(worker.state == "failed" for worker in workers):
                    raise WeightsError(f"The model cannot be loaded: {workers[0].detail}")
                time.sleep(0.2)
        finally:
            store.close()
        raise MachineError(
            f"No model was loaded within {timeout_s:.0f} s.",
            fix="Look at the log of the replica: ray logs, or animaray doctor.",
        )

    def stop(self) -> None:
        """Stop taking requests, give jobs in work back to the queue, and end; may be repeated."""
        if self._is_stopped:
            return
        self._is_stopped = True
        try:
            if ray.is_initialized():
                serve.delete(APPLICATION)
                serve.shutdown()  # type: ignore[no-untyped-call]
        finally:
            self._session.close()
        _await_free_port(self._config.host, self._config.port)


def start_server(config: ServeConfig) -> ServerHandle:
    """Start the service; everything that can be checked is checked before anything is started.

    A wrong weights folder raises WeightsError, a taken port PortError, a useless setting
    ConfigError, and a Ray session that is too small or occupied MachineError.

    Returns:
        The running service, ready to work unless `ready_timeout_s` is None.
    """
    check_port(config.host, config.port)
    config = check_before_start(config)
    session = ExitStack()
    # A session of our own gets as many logical CPUs as it takes; the threads are real.
    session.enter_context(ray_session(num_cpus=max(4, math.ceil(config.logical_cpus))))
    handle = ServerHandle(config, session)
    try:
        _check_cpus(config)
        come_up(lambda: _deploy(config))
        _check_answers(config.url)
        if config.ready_timeout_s is not None:
            handle.wait_ready(config.ready_timeout_s)
    except BaseException:
        handle.stop()
        raise
    return handle


def check_before_start(config: ServeConfig) -> ServeConfig:
    """Check weights, keys, data folder and database; errors as in `start_server`.

    Returns:
        The same for processes that run in another working folder.
    """
    require_whole_folder(config.weights_dir)
    Tenants.load(config.api_keys_path)
    config = _with_absolute_paths(config)
    JobFiles.check_data_dir(config.data_dir)
    _make_data_dir(config.data_dir)
    JobStore(config.store_url).close()
    return config


def build_application(config: ServeConfig) -> serve.Application:
    """Return ingress and replicas as one application, ready for `serve.run`."""
    replicas = serve.deployment(
        name="AnimatorReplica",
        max_ongoing_requests=1,
        health_check_period_s=2,
        health_check_timeout_s=HEALTH_TIMEOUT_S,
        num_replicas=config.num_replicas,
        graceful_shutdown_timeout_s=config.drain_s + 20,
        ray_actor_options={
            "num_cpus": config.num_cpus_per_replica,
            "num_gpus": config.gpus_per_replica,
        },
    )(AnimatorReplica)
    ingress = serve.deployment(
        name="Ingress",
        max_ongoing_requests=MAX_OPEN_CONNECTIONS,
        health_check_timeout_s=HEALTH_TIMEOUT_S,
        ray_actor_options={"num_cpus": INGRESS_CPUS},
    )(Ingress)
    return ingress.bind(config, replicas.bind(config))


def _deploy(config: ServeConfig) -> None:
    serve.start(
        proxy_location="HeadOnly",
        http_options={"host": config.host, "port": config.port},
        logging_config={"log_level": "WARNING", "enable_access_log": False},
    )
    serve.run(build_application(config), name=APPLICATION, route_prefix="/")


def _with_absolute_paths(config: ServeConfig) -> ServeConfig:
    """Return the config for processes that run in another working folder."""
    keys = config.api_keys_path
    return dataclasses.replace(
        config,
        weights_dir=config.weights_dir.absolute(),
        data_dir=config.data_dir.absolute(),
        api_keys_path=None if keys is None else keys.absolute(),
    )


def _make_data_dir(data_dir: Path) -> None:
    check_room(data_dir, _LEAST_ROOM_BYTES, "The service")
    with disk_errors(data_dir):
        JobFiles(data_dir)


def _check_cpus(config: ServeConfig) -> None:
    needed = config.logical_cpus
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    there, gpus_there = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    gpus = config.num_replicas * config.gpus_per_replica
    if needed > there or gpus > gpus_there:
        raise MachineError(
            f"{config.num_replicas} replicas need {needed:g} CPUs and {gpus:g} GPUs; the Ray"
            f" session has {there:g} and {gpus_there:g}.",
            fix="Use fewer replicas, or join a larger cluster (RAY_ADDRESS).",
        )


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5.0, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def _check_answers(url: str) -> None:
    deadline = time.monotonic() + HEALTH_TIMEOUT_S
    while not _answers(f"{url}/health/live"):
        if time.monotonic() > deadline:
            raise MachineError(
                f"Ray Serve is up, but nothing answers at {url}.",
                fix="Another Serve with another port may run in this Ray session: stop it first.",
            )
        time.sleep(0.2)


def check_port(host: str, port: int) -> None:
    """Return if the port can be bound.

    Args:
        host: Name or address to listen on.
        port: TCP port.

    Raises:
        PortError: It is taken, or the host is not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            raise PortError(
                f"Port {port} of {host} {'is taken' if taken else f'cannot be bound: {error}'}.",
                fix="Stop what uses it, or choose another with --port.",
            ) from error


def _await_free_port(host: str, port: int, timeout_s: float = 20.0) -> None:
    """Wait until nobody listens any more, for a while: Ray's proxy ends after its caller."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            check_port(host, port)
        except PortError:
            time.sleep(0.1)
        else:
            return
