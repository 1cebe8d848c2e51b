"""One attempt at a job: decode, animate with its engine, encode; what comes out is not yet public.

Each attempt writes its result under a name of its own (the fence). A retry has the same options.
"""

import importlib.metadata
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from animaray.models.animation.engines import DrivingFrames, PartsEngine
from animaray.models.animation.memory import MemoryEstimate
from animaray.models.animation.options import MADE_BY, AnimationRequest
from animaray.models.animation.pipeline import AnimationPipeline
from animaray.models.animation.result import AnimationProgress
from animaray.models.face.identity import mean_similarity
from animaray.models.parts.pipeline import PartsPipeline
from animaray.models.perception.find_people import DRIVING_SHORT_SIDE_PX
from animaray.models.subjects.pairing import pair_people
from animaray.models.subjects.reference import check_face_sizes
from animaray.platform.disk import disk_errors
from animaray.platform.machine import available_memory_bytes, check_memory
from animaray.platform.media.video import (
    DecodeLimits,
    Mp4Writer,
    VideoInfo,
    add_sound_in_child,
    decode_in_child,
    probe_in_child,
    read_picture_in_child,
    write_mp4,
)
from animaray.platform.provenance import add_provenance
from animaray.platform.storage import sha256_file
from animaray.serving.jobs.files import JobFiles
from animaray.serving.jobs.leases import Lease, Leases
from animaray.serving.jobs.limits import ServingLimits, check_driving_video
from animaray.serving.jobs.options import find_warnings, read_job_options
from animaray.serving.jobs.records import JobResult


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel:
    """A pipeline that is ready to work, and what to call it."""

    pipeline: AnimationPipeline
    model_id: str
    """Digest of the weights folder, written into every result."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _DrivingVideo:
    path: Path
    info: VideoInfo
    """Of the upload."""
    frames_uint8: UInt8[np.ndarray, "frames height width 3"]
    fps: float
    """Rate of these frames, and of the result."""
    scale: float
    """Their size, in sizes of the upload's."""
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Made:
    """What an engine made of a job, before it is an mp4."""

    write: Callable[[Path], None]
    """Writes the pictures; by parts they are only made while it does."""
    width_px: int
    height_px: int
    num_frames: int
    warnings: list[str]
    facts: dict[str, Any]
    """For the statement of origin."""
    written_in: str
    """The stage whose time the writing is."""
    identity_similarity: float | None = None
    num_frames_without_face: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One attempt at a job, under one lease."""

    lease: Lease
    leases: Leases
    files: JobFiles
    limits: ServingLimits
    check: Callable[[], None]
    """Raises when the job must not go on; called between two steps."""
    stage_s: dict[str, float] = field(default_factory=dict)

    def run(self, model: LoadedModel) -> JobResult:
        """Do the work; what is refused ends in the errors of its parts."""
        job = self.lease.job
        options = read_job_options(job.options)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        # Uploads are opened in bounded child processes only.
        with self._timed("decode"):
            picture = read_picture_in_child(
                self.files.path(job.picture_name),
                replace(
                    self._decode_limits,
                    max_frame_pixels=self.limits.max_picture_pixels,
                    cpu_s=self.limits.decode_s,
                ),
                name="The picture",
            )
            driving = self._decode_driving(options, model.pipeline.fps)
        self.check()
        made = (
            self._move_parts(picture, driving, options)
            if options.engine == "parts"
            else self._diffuse(picture, driving, options, model)
        )
        self.check()
        with self._timed(made.written_in):
            facts = {**self._origin(), **made.facts}
            silent_or_not, about_sound = self._encode(made, driving, has_audio=options.audio)
            mp4 = add_provenance(silent_or_not, facts["generator"], facts)
            name = self.files.write_result(job.job_id, self.lease.fence, mp4)
        has_gpu = torch.cuda.is_available() and options.engine == "diffusion"
        return JobResult(
            file_name=name,
            num_bytes=len(mp4),
            sha256=sha256_file(self.files.results_dir / name),
            width_px=made.width_px,
            height_px=made.height_px,
            num_frames=made.num_frames,
            fps=driving.fps,
            identity_similarity=made.identity_similarity,
            num_frames_without_face=made.num_frames_without_face,
            warnings=[*driving.warnings, *made.warnings, *about_sound],
            stage_s={stage: round(seconds, 3) for stage, seconds in self.stage_s.items()},
            gpu_peak_memory_bytes=torch.cuda.max_memory_allocated() if has_gpu else None,
            provenance=facts,
        )

    def _decode_driving(self, options: AnimationRequest, model_fps: float) -> _DrivingVideo:
        path, limits, decode = (
            self.files.path(self.lease.job.video_name), self.limits, self._decode_limits
        )  # fmt: skip
        info = probe_in_child(path, decode)
        fps = options.frame_rate(info.fps, model_fps) or model_fps
        size = {"width_px": info.width, "height_px": info.height}
        num_frames = max(2, math.floor(info.duration_s * fps))
        check_driving_video(
            **size, num_frames=num_frames, duration_s=info.duration_s, limits=limits
        )
        video = decode_in_child(
            path,
            decode,
            fps=fps,
            short_side_px=DRIVING_SHORT_SIDE_PX,
            max_frames=limits.max_video_frames + 1,
        )
        # Again, because a file may hold more than its header says.
        num_frames = len(video.frames_uint8)
        check_driving_video(
            **size, num_frames=num_frames, duration_s=num_frames / fps, limits=limits
        )
        return _DrivingVideo(
            path=path,
            info=info,
            frames_uint8=video.frames_uint8,
            fps=fps,
            scale=video.frames_uint8.shape[2] / info.width,
            warnings=(video.warning,) if video.warning else (),
        )

    @property
    def _decode_limits(self) -> DecodeLimits:
        limits = self.limits
        return DecodeLimits(
            max_file_bytes=limits.max_video_bytes,
            max_frame_pixels=limits.max_video_pixels,
            timeout_s=limits.decode_s,
            memory_bytes=limits.decode_memory_bytes,
        )

    def _diffuse(
        self,
        picture: UInt8[np.ndarray, "height width 3"],
        driving: _DrivingVideo,
        options: AnimationRequest,
        model: LoadedModel,
    ) -> _Made:
        pipeline, pairing = model.pipeline, options.pairing
        with self._timed("perceive"):
            references = pipeline.prepare_references(
                picture, pairing.reference, no_face=options.no_face
            )
            check_face_sizes(references)
            self.check()
            choices = [choice.scaled(driving.scale) for choice in pairing.driving]
            motions = pipeline.follow_people(driving.frames_uint8).motions(choices)
            subjects = pair_people(references, motions, pairing)
            _check_memory(pipeline.estimate_memory(len(driving.frames_uint8), options))
        self.check()
        with self._timed("denoise"):
            animation = pipeline.animate(
                *subjects[0],
                options.of_diffusion(),
                on_progress=self._reporter(),
                companions=subjects[1:],
            )
        num_frames, height, width = animation.frames_uint8.shape[:3]
        similarity, num_without_face = mean_similarity(animation.identity_similarity)
        return _Made(
            write=lambda path: write_mp4(path, animation.frames_uint8, driving.fps),
            width_px=width,
            height_px=height,
            num_frames=num_frames,
            warnings=find_warnings(subjects, animation, pairing),
            facts={
                "model": model.model_id,
                "engine": "diffusion",
                "made_by": MADE_BY["diffusion"],
            },
            written_in="encode",
            identity_similarity=similarity,
            num_frames_without_face=num_without_face,
        )

    def _move_parts(
        self,
        picture: UInt8[np.ndarray, "height width 3"],
        driving: _DrivingVideo,
        options: AnimationRequest,
    ) -> _Made:
        """Move the photo by parts; the server's weights stay unused, frames are made one by one."""
        engine = PartsEngine(pipeline=_parts_pipeline(), options=options.of_parts())
        frames = DrivingFrames(
            frames_uint8=driving.frames_uint8, fps=driving.fps, scale=driving.scale
        )
        with self._timed("render"):
            made = engine.animate_frames(picture, frames, options.pairing, lambda *_: self.check())

        def write(path: Path) -> None:
            with Mp4Writer(path, made.fps) as writer:
                for number, frame in enumerate(made.frames):
                    writer.add(frame, number / made.fps)

        return _Made(
            write=write,
            width_px=made.width_px,
            height_px=made.height_px,
            num_frames=made.num_frames,
            warnings=list(made.warnings),
            facts={"engine": made.engine, "made_by": MADE_BY[made.engine], **made.facts},
            written_in="render",
        )

    def _encode(
        self, made: _Made, driving: _DrivingVideo, *, has_audio: bool
    ) -> tuple[bytes, list[str]]:
        """Return the whole mp4 with the driving video's sound, and what to warn the client of."""
        with (
            tempfile.TemporaryDirectory(prefix="animaray-result-") as name,
            disk_errors(Path(name)),
        ):
            silent, finished = Path(name) / "silent.mp4", Path(name) / "finished.mp4"
            made.write(silent)
            if not has_audio:
                return silent.read_bytes(), []
            report = add_sound_in_child(
                silent,
                driving.path,
                finished,
                info=driving.info,
                duration_s=made.num_frames / driving.fps,
                limits=self._decode_limits,
            )
            warnings = [] if report.warning is None else [report.warning]
            return (finished if report.is_kept else silent).read_bytes(), warnings

    def _reporter(self) -> Callable[[AnimationProgress], None]:
        reported = -1

        def report(progress: AnimationProgress) -> None:
            nonlocal reported
            self.check()
            if progress.step == reported:  # between two Adam steps: only the check
                return
            reported = progress.step
            data: dict[str, Any] = {"phase": progress.phase}
            if progress.identity_similarity is not None:
                data["identity_similarity"] = round(progress.identity_similarity, 4)
            self.leases.report(self.lease, progress.step, progress.num_steps, **data)

        return report

    def _origin(self) -> dict[str, Any]:
        """Return what the mp4 says about its own making, whatever made it."""
        job = self.lease.job
        return {
            "generator": f"animaray {importlib.metadata.version('animaray')}",
            "is_generated": True,
            "job_id": job.job_id,
            "options": job.options,
            "reference_image_sha256": sha256_file(self.files.path(job.picture_name)),
            "driving_video_sha256": sha256_file(self.files.path(job.video_name)),
        }

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.stage_s[stage] = self.stage_s.get(stage, 0.0) + time.monotonic() - started


@cache
def _parts_pipeline() -> PartsPipeline:
    """Open the networks at the first job by parts; later ones of this process find them open."""
    return PartsPipeline.load()


def _check_memory(need: MemoryEstimate) -> None:
    """Refuse a job that would not fit beside the loaded networks; MemoryNeedError."""
    has_gpu = torch.cuda.is_available()
    check_memory(
        need.peak_bytes - need.weights_bytes,
        torch.cuda.mem_get_info()[0] if has_gpu else available_memory_bytes(),
        what="The job",
        remedy="Send a shorter driving video, or set face_optimization to `fast` or `off`.",
    )
