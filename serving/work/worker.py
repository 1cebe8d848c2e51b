"""Run jobs: claim, attempt, publish or give back; a plain class that knows no network.

A result is published last, in one transaction that fails if the job is no longer this worker's.
"""

import logging
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from animaray.models.animation.pipeline import AnimationPipeline
from animaray.platform.errors import AnimarayError, ServiceError
from animaray.platform.storage import content_id, sha256_file
from animaray.serving.jobs.files import JobFiles
from animaray.serving.jobs.leases import Lease
from animaray.serving.jobs.limits import ServingLimits
from animaray.serving.jobs.records import (
    OUT_OF_MEMORY_CODE,
    FailureDocument,
    JobCancelledError,
    LeaseLostError,
    WorkerDrainedError,
)
from animaray.serving.jobs.store import JobStore
from animaray.serving.work.attempt import Attempt, LoadedModel
from animaray.serving.work.heartbeat import HEARTBEAT_INTERVAL_S, Heartbeat

_log = logging.getLogger("animaray.serving")


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerSettings:
    """How a worker paces itself."""

    lease_s: float = 30.0
    """A job whose worker is silent for so long is given to another."""
    poll_s: float = 0.25
    """Seconds between two looks for work."""
    heartbeat_interval_s: float = HEARTBEAT_INTERVAL_S
    """Seconds between two signs of life; cancelling is noticed within this time."""
    drain_s: float = 0.0
    """Seconds that a stopping worker gives its job before it hands it back."""


def load_model(weights_dir: Path, device: str = "cpu") -> LoadedModel:
    """Load a weights folder; WeightsError and ConfigError come from its parts.

    Args:
        weights_dir: What training wrote.
        device: Where the networks work, such as "cuda".
    """
    files = sorted(path for path in weights_dir.rglob("*") if path.is_file())
    parts = [(str(path.relative_to(weights_dir)), sha256_file(path)) for path in files]
    pipeline = AnimationPipeline.from_pretrained(weights_dir)
    if device != "cpu":
        pipeline = pipeline.to(device)
    return LoadedModel(pipeline=pipeline, model_id=content_id(*parts))


class AnimationWorker:
    """Take jobs one after the other until told to stop.

    Args:
        make_model: Loads the model; called once, in the worker's own thread.
    """

    def __init__(
        self,
        store: JobStore,
        make_model: Callable[[], LoadedModel],
        files: JobFiles,
        limits: ServingLimits,
        settings: WorkerSettings | None = None,
    ) -> None:
        self.worker_id = secrets.token_hex(8)
        self._store = store
        self._make_model = make_model
        self._files = files
        self._limits = limits
        self._settings = settings or WorkerSettings()
        self._heartbeat = Heartbeat(
            store.leases, self.worker_id, self._settings.heartbeat_interval_s
        )

    def run(self, stop: threading.Event) -> None:
        """Load the model and work until `stop` is set; the job in hand is finished or given back.

        Args:
            stop: Set it from another thread.
        """
        self._heartbeat.start()
        watcher = threading.Thread(target=self._await_stop, args=(stop,), daemon=True)
        watcher.start()
        try:
            self._heartbeat.show("loading")
            model = self._load(stop)
            while model is not None and not stop.is_set():
                try:
                    is_busy = self.run_one(model)
                except ServiceError as error:
                    _log.warning("Worker %s: %s", self.worker_id, error)
                    is_busy = False
                if not is_busy:
                    stop.wait(self._settings.poll_s)
        finally:
            self._heartbeat.stop()

    def run_one(self, model: LoadedModel) -> bool:
        """Claim and run the next job, if there is one; return whether there was."""
        self._store.leases.release_expired()
        lease = self._store.leases.claim(self.worker_id, self._settings.lease_s)
        if lease is None:
            return False
        self._heartbeat.show("busy", model.model_id)
        try:
            with self._heartbeat.holding(lease, self._limits.max_job_s):
                self._run(lease, model)
        except LeaseLostError as error:
            _log.warning("An attempt is thrown away: %s", error)
            self._files.remove_attempt(lease.job.job_id, lease.fence)
        finally:
            self._heartbeat.show("ready", model.model_id)
        return True

    def _load(self, stop: threading.Event) -> LoadedModel | None:
        try:
            model = self._make_model()
        except Exception as error:  # noqa: BLE001 - whatever it is, /health/ready has to tell it
            _log.exception("Worker %s cannot load the model.", self.worker_id)
            known = isinstance(error, AnimarayError)
            self._heartbeat.show(
                "failed", str(error) if known else f"{type(error).__name__}: {error}"
            )
            stop.wait()
            return None
        self._heartbeat.show("ready", model.model_id)
        return model

    def _await_stop(self, stop: threading.Event) -> None:
        stop.wait()
        self._heartbeat.drain(self._settings.drain_s)

    def _run(self, lease: Lease, model: LoadedModel) -> None:
        leases = self._store.leases
        try:
            result = Attempt(
                lease=lease,
                leases=leases,
                files=self._files,
                limits=self._limits,
                check=self._heartbeat.check,
            ).run(model)
            self._heartbeat.check()
            leases.succeed(lease, result)
        except LeaseLostError:
            raise
        except JobCancelledError:
            self._files.remove_attempt(lease.job.job_id, lease.fence)
            leases.finish_cancelled(lease)
        except WorkerDrainedError:
            self._files.remove_attempt(lease.job.job_id, lease.fence)
            leases.hand_back(lease)
            return
        except Exception as error:  # noqa: BLE001 - a job's failure must not end the worker
            failure = describe_failure(error, lease.job.job_id)
            self._files.remove_attempt(lease.job.job_id, lease.fence)
            leases.fail(lease, failure, may_retry=failure.retryable)
        self._clean_up(lease)

    def _clean_up(self, lease: Lease) -> None:
        job = self._store.get(lease.job.job_id, lease.job.tenant)
        if job is not None and job.is_finished:
            self._files.remove_uploads(job.job_id)
            keep = job.result.file_name if job.result is not None else None
            self._files.remove_results(job.job_id, keep=keep)


def describe_failure(error: Exception, job_id: str) -> FailureDocument:
    """Say in the client's words why a job failed; foreign errors keep their details in the log.

    Args:
        error: What the attempt raised.
        job_id: Which job, for the log.
    """
    if isinstance(error, AnimarayError) and not isinstance(error, ServiceError):
        return FailureDocument(code=error.error_id, message=error.message, fix=error.fix)
    _log.error("Job %s failed.", job_id, exc_info=error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return FailureDocument(
            code=OUT_OF_MEMORY_CODE,
            message="The job needs more memory than the server has.",
            fix="Send a shorter driving video, or switch face_optimization off.",
        )
    return FailureDocument(
        code="AR-SRV-01",
        message="The service failed while it worked on the job.",
        fix=f"Try again; if it happens again, tell the operator the job id {job_id}.",
        retryable=True,
    )
