"""What the routes do, without HTTP: accept, describe, cancel and remove animations."""

import dataclasses
import hashlib
import logging
import math
import secrets
import shutil
import time
from pathlib import Path

from fastapi import UploadFile

from animaray.platform.errors import AnimarayError, RefusedError
from animaray.platform.json_text import json_text
from animaray.serving.http.documents import AnimationDocument, AnimationList, Links
from animaray.serving.http.problems import ProblemError, problem_from_error
from animaray.serving.http.schemas import parse_options, with_seed
from animaray.serving.http.tenants import Tenants
from animaray.serving.http.uploads import store_upload
from animaray.serving.jobs.database import Job
from animaray.serving.jobs.files import JobFiles, is_job_id
from animaray.serving.jobs.limits import ServingLimits
from animaray.serving.jobs.records import ACTIVE_STATES, JobState
from animaray.serving.jobs.store import JobStore

UNMEASURED_RETRY_S = 30
"""Retry-After while no job has been measured."""

_log = logging.getLogger("animaray.serving")


class AnimationService:
    """Everything the HTTP routes need; no network code, no model.

    Args:
        files: Their uploads and results.
        worker_timeout_s: A worker that gave no sign of life for so long counts as gone.
    """

    def __init__(
        self,
        store: JobStore,
        files: JobFiles,
        limits: ServingLimits,
        tenants: Tenants,
        worker_timeout_s: float = 15.0,
    ) -> None:
        self.store = store
        self.files = files
        self.limits = limits
        self.tenants = tenants
        self._worker_timeout_s = worker_timeout_s

    def check_room(self, tenant: str, idempotency_key: str | None) -> None:
        """Refuse, as a ProblemError, before its body is read what could not be taken anyway."""
        try:
            self.store.check_room(tenant, idempotency_key, self.limits)
        except RefusedError as error:
            raise self._problem(error) from error

    def accept(
        self,
        tenant: str,
        uploads: dict[str, UploadFile],
        options_text: str | None,
        idempotency_key: str | None,
    ) -> tuple[Job, bool]:
        """Store a request durably, or refuse it as a ProblemError and keep nothing of it.

        Args:
            uploads: The files of both form fields.
            options_text: The JSON of the form field `options`, or None.
            idempotency_key: The client's name for this request, or None.

        Returns:
            The job, and whether it is new.
        """
        job_id = secrets.token_hex(16)
        is_new = False
        try:
            options = parse_options(options_text, self.limits)
            picture, video = (
                store_upload(uploads[kind], kind, job_id, self.files, self.limits)
                for kind in ("reference_image", "driving_video")
            )
            self.files.seal_uploads(job_id)
            request = Job(
                job_id=job_id,
                tenant=tenant,
                fingerprint=_fingerprint(picture.sha256, video.sha256, options),
                options=with_seed(options),
                picture_name=picture.name,
                video_name=video.name,
                idempotency_key=idempotency_key,
                max_attempts=self.limits.max_attempts,
            )
            job, is_new = self.store.submit(request, self.limits)
        except AnimarayError as error:
            raise self._problem(error) from error
        finally:
            if not is_new:
                self.files.remove_uploads(job_id)
        return job, is_new

    def find(self, job_id: str, tenant: str) -> Job:
        """Return a tenant's job.

        Raises:
            ProblemError: There is none.
        """
        # What is no id of ours never reaches the database: PostgreSQL takes no NUL.
        job = self.store.get(job_id, tenant) if is_job_id(job_id) else None
        if job is None:
            raise ProblemError("AR-SRV-04", _no_such_job(job_id))
        return job

    def describe(self, job: Job) -> AnimationDocument:
        """Return the document of a job, with its place and a predicted end."""
        place = self.store.queue_place(job)
        path = f"/v1/animations/{job.job_id}"
        content = f"{path}/content" if job.result else None
        return AnimationDocument.model_validate(
            {
                **dataclasses.asdict(job),
                "queue_place": place,
                "eta_s": self.predict_end_s(job, place),
                "links": Links(self=path, events=f"{path}/events", content=content),
            }
        )

    def list_animations(
        self, tenant: str, state: JobState | None, limit: int, before: str | None
    ) -> AnimationList:
        """Return one page of a tenant's jobs, newest first.

        Raises:
            ProblemError: `before` is no id of a job.
        """
        if before is not None and not is_job_id(before):
            raise ProblemError("AR-SRV-11", f"`before` must be a job id, got `{before[:64]}`.")
        jobs = self.store.list_jobs(tenant, state=state, limit=limit + 1, before=before)
        page = jobs[:limit]
        return AnimationList(
            animations=[self.describe(job) for job in page],
            next=page[-1].job_id if len(jobs) > limit else None,
        )

    def cancel(self, job_id: str, tenant: str) -> Job:
        """Cancel a job; a finished one stays as it is.

        Raises:
            ProblemError: There is no such job.
        """
        job = self.store.request_cancel(job_id, tenant) if is_job_id(job_id) else None
        if job is None:
            raise ProblemError("AR-SRV-04", _no_such_job(job_id))
        if job.is_finished:
            self.files.remove_uploads(job_id)
        return job

    def remove(self, job_id: str, tenant: str) -> None:
        """Remove a finished job, its result and its record.

        Raises:
            ProblemError: There is no such job, or it is not finished.
        """
        if not self.find(job_id, tenant).is_finished:
            raise ProblemError(
                "AR-SRV-05",
                "Only a finished job can be removed.",
                fix="Cancel it first (DELETE without purge), then remove it.",
                job_id=job_id,
            )
        self.files.remove_uploads(job_id)
        self.files.remove_results(job_id)
        self.store.forget(job_id, tenant)

    def content_path(self, job_id: str, tenant: str) -> Path:
        """Return the file of a finished job's mp4.

        Raises:
            ProblemError: There is no such job, it is not finished, or it has no result.
        """
        job = self.find(job_id, tenant)
        if not job.is_finished:
            eta_s = self.predict_end_s(job, self.store.queue_place(job))
            raise ProblemError(
                "AR-SRV-05",
                f"The job is {job.state}, step {job.step} of {job.num_steps}.",
                fix=f"Follow /v1/animations/{job_id}/events.",
                retry_after_s=max(1, math.ceil(eta_s)) if eta_s is not None else None,
                job_id=job_id,
            )
        if job.result is None:
            why = job.failure.message if job.failure else ""
            raise ProblemError("AR-SRV-13", f"The job {job.state}. {why}".strip(), job_id=job_id)
        path = self.files.results_dir / job.result.file_name
        if not path.is_file():
            raise ProblemError("AR-SRV-13", "The result is no longer stored.", job_id=job_id)
        return path

    def worker_states(self) -> list[str]:
        """Return what each living worker does, such as "ready" or "failed: reason"."""
        workers = self.store.leases.workers(self._worker_timeout_s)
        return [
            f"{worker.state}: {worker.detail}" if worker.state == "failed" else worker.state
            for worker in workers
        ]

    def check_ready(self) -> list[str]:
        """Return the workers' states.

        Raises:
            ProblemError: No worker has its model loaded.
        """
        states = self.worker_states()
        if not {"ready", "busy"} & set(states):
            raise ProblemError(
                "AR-SRV-10",
                f"No worker is ready ({', '.join(states) or 'none has started yet'}).",
                fix="Jobs are accepted and wait; ask again.",
                retry_after_s=5,
            )
        return states

    def predict_end_s(self, job: Job, place: int | None) -> float | None:
        """Predict how many seconds a job still needs; None when unknown or finished."""
        job_s = self.store.predicted_wait_s(1, 1)
        if job_s is None or job.is_finished:
            return None
        if place is not None:
            workers = self._num_workers()
            wait_s = self.store.predicted_wait_s(place, workers) or 0.0
            return wait_s + (job_s if place >= workers else 0.0)
        share_left = 1 - job.step / job.num_steps if job.num_steps else 1.0
        return job_s * share_left

    def housekeep(self) -> None:
        """Free jobs of lost workers and remove files that nobody needs any more."""
        self.store.leases.release_expired()
        for job in self.store.finished_before(time.time() - self.limits.keep_results_s):
            self.files.remove_results(job.job_id)
            self.store.forget(job.job_id, job.tenant)
            # A warning, here and below, because Ray keeps nothing lower: the only trace of them.
            _log.warning("Removed job %s with its result: its time is over.", job.job_id)
        removed = self.files.vacuum(
            upload_ids=self.store.ids_in(ACTIVE_STATES),
            result_ids=self.store.ids_in([JobState.SUCCEEDED, *ACTIVE_STATES]),
        )
        for path in removed:
            _log.warning("Removed %s: no job needs it.", path)

    def free_bytes(self) -> int:
        """Return the free space of the data folder."""
        return shutil.disk_usage(self.files.data_dir).free

    def _num_workers(self) -> int:
        return max(1, len(self.store.leases.workers(self._worker_timeout_s)))

    def _problem(self, error: AnimarayError) -> ProblemError:
        wait_s = self.store.predicted_wait_s(1, self._num_workers())
        retry_after_s = UNMEASURED_RETRY_S if wait_s is None else max(1, math.ceil(wait_s))
        problem = problem_from_error(error, retry_after_s=retry_after_s)
        if problem.code == "AR-SRV-01":
            _log.error("A request failed: %s", error)
        return problem


def _no_such_job(job_id: str) -> str:
    return f"There is no job `{job_id[:64]}`."


def _fingerprint(picture_sha256: str, video_sha256: str, options: dict[str, object]) -> str:
    parts = json_text([picture_sha256, video_sha256, options], sort_keys=True)
    return hashlib.sha256(parts.encode()).hexdigest()
