"""Run jobs: claim, decode, animate, encode, publish; a plain class that knows no network.

Every attempt writes its result under a name of its own (the fence) and publishes it last, in one
transaction that fails if the job is no longer this worker's. A retry has the same seed and options.
"""

import importlib.metadata
import logging
import math
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from animaray.models.animation.engine_choice import MADE_BY
from animaray.models.animation.engines import DrivingFrames
from animaray.models.animation.memory import MemoryEstimate
from animaray.models.animation.pipeline import Animation, AnimationPipeline, AnimationProgress
from animaray.models.perception.find_people import DRIVING_SHORT_SIDE_PX
from animaray.models.subjects.pairing import pair_people
from animaray.models.subjects.reference import check_face_sizes
from animaray.platform.errors import AnimarayError, ServiceError
from animaray.platform.machine import available_memory_bytes, check_memory
from animaray.platform.media.video import (
    DecodeLimits,
    VideoInfo,
    decode_in_child,
    probe_in_child,
    write_mp4,
)
from animaray.platform.provenance import add_provenance
from animaray.platform.storage import content_id, sha256_file
from animaray.serving.jobs.files import JobFiles
from animaray.serving.jobs.limits import ServingLimits, check_driving_video
from animaray.serving.jobs.options import JobOptions, find_warnings, read_job_options
from animaray.serving.jobs.records import (
    OUT_OF_MEMORY_CODE,
    Job,
    JobCancelledError,
    JobFailure,
    JobResult,
    Lease,
    LeaseLostError,
    WorkerDrainedError,
)
from animaray.serving.jobs.store import JobStore
from animaray.serving.work.heartbeat import HEARTBEAT_INTERVAL_S, Heartbeat
from animaray.serving.work.parts_jobs import animate_by_parts, parts_facts
from animaray.serving.work.picture_child import read_picture_in_child
from animaray.serving.work.result_video import JobVideo, finish_video

_log = logging.getLogger("animaray.serving")
_DIFFUSION = {"engine": "diffusion", "made_by": MADE_BY["diffusion"]}


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel:
    """A pipeline that is ready to work, and what to call it."""

    pipeline: AnimationPipeline
    model_id: str
    """Digest of the weights folder, written into every result."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class _DrivingVideo:
    info: VideoInfo
    """Of the upload."""
    frames_uint8: UInt8[np.ndarray, "frames height width 3"]
    fps: float
    """Rate of these frames, and of the result."""
    scale: float
    """Their size, in sizes of the upload's."""
    warnings: tuple[str, ...]


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
        store: The durable jobs.
        make_model: Loads the model; called once, in the worker's own thread.
        files: Uploads and results.
        limits: Caps.
        settings: Pace.
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
        self._heartbeat = Heartbeat(store.leases, self.worker_id, self._settings.heartbeat_interval_s)

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
            self._heartbeat.show("failed", str(error) if known else f"{type(error).__name__}: {error}")
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
            result = self._animate(lease, model)
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

    def _animate(self, lease: Lease, model: LoadedModel) -> JobResult:
        stage_s: dict[str, float] = {}
        pipeline, job = model.pipeline, lease.job
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        options = read_job_options(job.options)
        with _timed(stage_s, "decode"):
            picture = read_picture_in_child(self._files.path(job.picture_name), self._limits)
            driving = self._decode_driving(job.video_name, options, pipeline.fps)
        self._heartbeat.check()
        if options.engine == "parts":
            return self._animate_by_parts(lease, picture, driving, options, stage_s)
        with _timed(stage_s, "perceive"):
            references = pipeline.prepare_references(
                picture, options.casting.reference, no_face=options.animation.no_face
            )
            check_face_sizes(references)
            self._heartbeat.check()
            choices = [choice.scaled(driving.scale) for choice in options.casting.driving]
            motions = pipeline.follow_people(driving.frames_uint8).motions(choices)
            cast = pair_people(references, motions, options.casting)
            need = pipeline.estimate_memory(len(driving.frames_uint8), options.animation)
            _check_memory(need)
        self._heartbeat.check()
        with _timed(stage_s, "denoise"):
            animation = pipeline.animate(
                *cast[0],
                options.animation,
                on_progress=self._reporter(lease),
                companions=cast[1:],
            )
        self._heartbeat.check()
        with _timed(stage_s, "encode"):
            facts = {**self._facts(lease), "model": model.model_id, **_DIFFUSION}
            mp4, about_sound = finish_video(
                lambda path: write_mp4(path, animation.frames_uint8, driving.fps),
                self._video(job, options, driving.info),
                duration_s=len(animation.frames_uint8) / driving.fps,
            )
            mp4 = add_provenance(mp4, facts["generator"], facts)
            name = self._files.write_result(job.job_id, lease.fence, mp4)
        warnings = [
            *driving.warnings, *find_warnings(cast, animation, options.casting), *about_sound
        ]  # fmt: skip
        return self._result(name, animation, driving.fps, warnings, stage_s, facts)

    def _decode_driving(self, name: str, options: JobOptions, model_fps: float) -> _DrivingVideo:
        path, limits, decode = self._files.path(name), self._limits, self._decode_limits
        info = probe_in_child(path, decode)
        fps = options.fps_of(info.fps, model_fps)
        check_driving_video(
            width_px=info.width,
            height_px=info.height,
            num_frames=max(2, math.floor(info.duration_s * fps)),
            duration_s=info.duration_s,
            limits=limits,
        )
        video = decode_in_child(
            path,
            decode,
            fps=fps,
            short_side_px=DRIVING_SHORT_SIDE_PX,
            max_frames=limits.max_video_frames + 1,
        )
        check_driving_video(
            width_px=info.width,
            height_px=info.height,
            num_frames=len(video.frames_uint8),
            duration_s=len(video.frames_uint8) / fps,
            limits=limits,
        )
        return _DrivingVideo(
            info=info,
            frames_uint8=video.frames_uint8,
            fps=fps,
            scale=video.frames_uint8.shape[2] / info.width,
            warnings=(video.warning,) if video.warning else (),
        )

    @property
    def _decode_limits(self) -> DecodeLimits:
        limits = self._limits
        return DecodeLimits(
            max_file_bytes=limits.max_video_bytes,
            max_frame_pixels=limits.max_video_pixels,
            timeout_s=limits.decode_s,
            memory_bytes=limits.decode_memory_bytes,
        )

    def _video(self, job: Job, options: JobOptions, info: VideoInfo) -> JobVideo:
        return JobVideo(
            path=self._files.path(job.video_name),
            info=info,
            has_audio=options.has_audio,
            limits=self._decode_limits,
        )

    def _reporter(self, lease: Lease) -> Callable[[AnimationProgress], None]:
        reported = -1

        def report(progress: AnimationProgress) -> None:
            nonlocal reported
            self._heartbeat.check()
            if progress.step == reported:  # between two Adam steps: only the check
                return
            reported = progress.step
            data: dict[str, Any] = {"phase": progress.phase}
            if progress.identity_similarity is not None:
                data["identity_similarity"] = round(progress.identity_similarity, 4)
            self._store.leases.report(lease, progress.step, progress.num_steps, **data)

        return report

    def _animate_by_parts(
        self,
        lease: Lease,
        picture: UInt8[np.ndarray, "height width 3"],
        driving: _DrivingVideo,
        options: JobOptions,
        stage_s: dict[str, float],
    ) -> JobResult:
        """Move the photo by parts; the server's weights stay unused."""
        job = lease.job
        frames = DrivingFrames(
            frames_uint8=driving.frames_uint8, fps=driving.fps, scale=driving.scale
        )
        with _timed(stage_s, "render"):
            result = animate_by_parts(
                picture,
                self._video(job, options, driving.info),
                frames,
                options,
                lambda *_: self._heartbeat.check(),
            )
        made = result.frames
        facts = {**self._facts(lease), **parts_facts(made)}
        mp4 = add_provenance(result.mp4, facts["generator"], facts)
        path = self._files.results_dir / self._files.write_result(job.job_id, lease.fence, mp4)
        return JobResult(
            file_name=path.name,
            num_bytes=len(mp4),
            sha256=sha256_file(path),
            width_px=made.width_px,
            height_px=made.height_px,
            num_frames=made.num_frames,
            fps=made.fps,
            warnings=[*driving.warnings, *result.warnings],
            stage_s={stage: round(seconds, 3) for stage, seconds in stage_s.items()},
            provenance=facts,
        )

    def _facts(self, lease: Lease) -> dict[str, Any]:
        job = lease.job
        return {
            "generator": f"animaray {importlib.metadata.version('animaray')}",
            "is_generated": True,
            "job_id": job.job_id,
            "options": job.options,
            "reference_image_sha256": sha256_file(self._files.path(job.picture_name)),
            "driving_video_sha256": sha256_file(self._files.path(job.video_name)),
        }

    def _result(
        self,
        name: str,
        animation: Animation,
        fps: float,
        warnings: list[str],
        stage_s: dict[str, float],
        facts: dict[str, Any],
    ) -> JobResult:
        path = self._files.results_dir / name
        num_frames, height, width = animation.frames_uint8.shape[:3]
        similarity = animation.identity_similarity
        has_face = np.isfinite(similarity)
        has_gpu = torch.cuda.is_available()
        return JobResult(
            file_name=name,
            num_bytes=path.stat().st_size,
            sha256=sha256_file(path),
            width_px=width,
            height_px=height,
            num_frames=num_frames,
            fps=fps,
            identity_similarity=float(similarity[has_face].mean()) if has_face.any() else None,
            num_frames_without_face=int((~has_face).sum()),
            warnings=warnings,
            stage_s={stage: round(seconds, 3) for stage, seconds in stage_s.items()},
            gpu_peak_memory_bytes=torch.cuda.max_memory_allocated() if has_gpu else None,
            provenance=facts,
        )


def _check_memory(need: MemoryEstimate) -> None:
    """Refuse a job that would not fit beside the loaded networks; MemoryNeedError."""
    has_gpu = torch.cuda.is_available()
    check_memory(
        need.peak_bytes - need.weights_bytes,
        torch.cuda.mem_get_info()[0] if has_gpu else available_memory_bytes(),
        what="The job",
        remedy="Send a shorter driving video, or set face_optimization to `fast` or `off`.",
    )


@contextmanager
def _timed(stage_s: dict[str, float], stage: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    stage_s[stage] = time.monotonic() - started


def describe_failure(error: Exception, job_id: str) -> JobFailure:
    """Say in the client's words why a job failed; foreign errors keep their details in the log.

    Args:
        error: What the attempt raised.
        job_id: Which job, for the log.
    """
    if isinstance(error, AnimarayError) and not isinstance(error, ServiceError):
        return JobFailure(code=error.error_id, message=error.message, fix=error.fix)
    _log.error("Job %s failed.", job_id, exc_info=error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return JobFailure(
            code=OUT_OF_MEMORY_CODE,
            message="The job needs more memory than the server has.",
            fix="Send a shorter driving video, or switch face_optimization off.",
        )
    return JobFailure(
        code="AR-SRV-01",
        message="The service failed while it worked on the job.",
        fix=f"Try again; if it happens again, tell the operator the job id {job_id}.",
        retryable=True,
    )
