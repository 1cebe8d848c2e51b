"""What the worker's tests share: a pipeline that the test paces, jobs with real files."""

import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from animaray.models.alignment.alignment import AlignmentReport, PosedPicture
from animaray.models.animation.memory import MemoryEstimate
from animaray.models.animation.pipeline import (
    Animation,
    AnimationOptions,
    AnimationPipeline,
    AnimationProgress,
)
from animaray.models.face.identity import FaceIdentity
from animaray.models.perception.protocols import FaceDetection, PersonPose
from animaray.models.subjects.framing import FrameFit
from animaray.models.subjects.motion import Motion, PeopleInVideo
from animaray.models.subjects.reference import Reference
from animaray.models.subjects.tracks import PersonTrack
from animaray.platform.errors import FaceError
from animaray.platform.media.video import encode_mp4
from animaray.serving.jobs.database import Job
from animaray.serving.jobs.files import JobFiles
from animaray.serving.jobs.limits import ServingLimits
from animaray.serving.jobs.records import JobState
from animaray.serving.jobs.store import JobStore
from animaray.serving.work.attempt import LoadedModel
from animaray.serving.work.worker import AnimationWorker, WorkerSettings
from tests.serving.serving_parts import job_request

LIMITS = ServingLimits(max_video_frames=40, max_video_s=4.0)
SIZE = 32


def go_on(_step: int) -> None:
    """Lose no time."""


def dawdle(_step: int) -> None:
    """Take long enough to be interrupted."""
    time.sleep(0.3)


class PacedPipeline(AnimationPipeline):
    """Repeats the picture's colour, shifted by the seed; waits or fails where the test says so."""

    fps = 8.0
    face_height_px = 60

    def __init__(self) -> None:
        self.at_step: Callable[[int], None] = go_on
        self.seeds: list[int] = []
        self.bytes_per_frame = 1

    def prepare_references(self, picture_uint8, choices=(), **_):  # type: ignore[no-untyped-def, override]
        if picture_uint8.mean() < 5:
            raise FaceError("The reference picture shows no face.", fix="Use another.")
        keypoints = np.zeros((18, 2), np.float32)
        self.choices = list(choices)
        reference = Reference(
            picture_uint8=np.broadcast_to(picture_uint8[:1, :1], (SIZE, SIZE, 3)).copy(),
            fit=FrameFit.for_person((SIZE, SIZE), None, SIZE, SIZE),
            pose=PosedPicture(
                keypoints=keypoints, keypoint_confidence=keypoints[:, 0] + 1,
                width_px=SIZE, height_px=SIZE,
            ),
            face=FaceDetection(
                box=np.array([0, 0, 60, self.face_height_px], np.float32),
                score=1.0,
                landmarks=np.zeros((5, 2), np.float32),
            ),
            identity=FaceIdentity(unit=np.ones(1, np.float32)),
            image_embedding=torch.zeros(1, 2),
            num_persons=1,
        )  # fmt: skip
        return [reference] * max(1, len(choices))

    def follow_people(self, frames_uint8):  # type: ignore[no-untyped-def, override]
        num, height, width = frames_uint8.shape[:3]
        pose = PersonPose(
            keypoints=np.zeros((18, 2), np.float32), keypoint_confidence=np.ones(18, np.float32)
        )
        track = PersonTrack(frames=list(range(num)), poses=[pose] * num)
        return PeopleInVideo(
            tracks=(track,),
            num_frames=num,
            width_px=width,
            height_px=height,
            num_seen=np.ones(num, np.int64),
        )

    def estimate_memory(self, num_frames: int, _: AnimationOptions) -> MemoryEstimate:
        return MemoryEstimate(
            weights_bytes=0, clip_bytes=num_frames * self.bytes_per_frame,
            unet_bytes=0, codec_bytes=0, face_bytes=0, pose_bytes=0,
        )  # fmt: skip

    def animate(  # type: ignore[override]
        self,
        reference: Reference,
        motion: Motion,
        options: AnimationOptions,
        on_progress: Callable[[AnimationProgress], None] | None = None,
        **more: Any,
    ) -> Animation:
        assert on_progress is not None
        assert more["companions"] == []
        self.options = options
        self.seeds.append(options.seed)
        for step in range(4):
            similarity = 0.2 * step if step else None
            on_progress(
                AnimationProgress(
                    phase="denoise", step=step, num_steps=4, identity_similarity=similarity
                )
            )
            self.at_step(step)
            on_progress(AnimationProgress(phase="denoise", step=step, num_steps=4))
        num = len(motion.keypoints)
        colour = (reference.picture_uint8.astype(int) + options.seed).clip(0, 255)
        similarity = np.full(num, 0.5, np.float32)
        similarity[0] = np.nan
        return Animation(
            frames_uint8=np.repeat(colour[None].astype(np.uint8), num, axis=0),
            pose_images=np.zeros((num, SIZE, SIZE, 3), np.uint8),
            keypoints=motion.keypoints,
            keypoint_confidence=motion.keypoint_confidence,
            alignment_report=AlignmentReport(
                residual=0.0, out_of_frame_share=0.0, visible_share=1.0, scale=1.0, rotation_rad=0.0
            ),
            identity_similarity=similarity,
            face_optimization=(),
        )


def make_worker(
    store: JobStore, model: LoadedModel, files: JobFiles, **settings: float
) -> AnimationWorker:
    paced = WorkerSettings(
        **{"heartbeat_interval_s": 0.05, "poll_s": 0.02, "lease_s": 60.0, **settings}
    )
    return AnimationWorker(store, lambda: model, files, LIMITS, paced)


def submit(store: JobStore, files: JobFiles, **changes: Any) -> Job:
    colour, num_frames = changes.pop("colour", (200, 40, 90)), changes.pop("num_frames", 16)
    request = job_request(**{"options": {"seed": 7}, **changes})
    folder = files.upload_dir(request.job_id)
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20), colour).save(buffer, "PNG")
    (folder / "reference_image").write_bytes(buffer.getvalue())
    clip = np.random.default_rng(0).integers(0, 256, (num_frames, 48, 32, 3), dtype=np.uint8)
    (folder / "driving_video").write_bytes(encode_mp4(clip, 16.0))
    return store.submit(request, LIMITS)[0]


def read(store: JobStore, job: Job) -> Job:
    found = store.get(job.job_id, job.tenant)
    assert found is not None
    return found


def await_state(store: JobStore, job: Job, *states: JobState) -> Job:
    deadline = time.monotonic() + 60
    while (found := read(store, job)).state not in states:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found
