"""The worker: from claim to published mp4, with real files and a pipeline of the test's own."""

import io
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from serving_parts import job_request

from animaray.models.animation import (
    Animation,
    AnimationOptions,
    AnimationPipeline,
    AnimationProgress,
)
from animaray.models.framing import FrameFit
from animaray.models.frozen.protocols import FaceDetection, PersonPose
from animaray.models.memory import MemoryEstimate
from animaray.models.motion import Motion, PeopleInVideo
from animaray.models.person_choice import PersonChoice
from animaray.models.person_tracks import PersonTrack
from animaray.models.pose.alignment import AlignmentReport, PosedPicture
from animaray.models.reference import Reference
from animaray.platform.errors import FaceError, WeightsError
from animaray.platform.video import encode_mp4
from animaray.serving.job_files import JobFiles
from animaray.serving.job_options import find_warnings
from animaray.serving.job_records import Job, JobState
from animaray.serving.jobs import JobStore
from animaray.serving.limits import ServingLimits
from animaray.serving.provenance import read_provenance
from animaray.serving.worker import (
    AnimationWorker,
    LoadedModel,
    WorkerSettings,
    describe_failure,
)

pytestmark = pytest.mark.timeout(120)
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
                box=np.zeros(4, np.float32), score=1.0, landmarks=np.zeros((5, 2), np.float32)
            ),
            identity_embedding=np.ones(1, np.float32),
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
        return PeopleInVideo(tracks=(track,), num_frames=num, width_px=width, height_px=height)

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


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    opened = JobStore(f"sqlite:///{tmp_path}/jobs.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def files(tmp_path: Path) -> JobFiles:
    return JobFiles(tmp_path)


@pytest.fixture
def pipeline() -> PacedPipeline:
    return PacedPipeline()


@pytest.fixture
def model(pipeline: PacedPipeline) -> LoadedModel:
    return LoadedModel(pipeline=pipeline, model_id="model-1")


@pytest.fixture
def worker(store: JobStore, model: LoadedModel, files: JobFiles) -> AnimationWorker:
    return make_worker(store, model, files)


def make_worker(
    store: JobStore, model: LoadedModel, files: JobFiles, **settings: float
) -> AnimationWorker:
    paced = WorkerSettings(**{"pulse_s": 0.05, "poll_s": 0.02, "lease_s": 60.0, **settings})
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


def test_options_reach_the_pipeline_and_the_video(
    store: JobStore, files: JobFiles, worker: AnimationWorker, model: LoadedModel
) -> None:
    options = {
        "seed": 5,
        "fps": "source",
        "person": "1",
        "reference_person": ["left"],
        "sampler": "heun",
        "guidance_min": 1.5,
        "guidance_max": 2.0,
        "face_optimization": "off",
        "alignment": "fit",
    }
    job = submit(store, files, options=options)
    assert worker.run_one(model)
    done = read(store, job)
    assert done.state == JobState.SUCCEEDED, done.failure
    assert done.result is not None
    assert (done.result.fps, done.result.num_frames) == (pytest.approx(16.0), 16)
    assert isinstance(model.pipeline, PacedPipeline)
    assert model.pipeline.choices == [PersonChoice(kind="left")]
    assert model.pipeline.options == AnimationOptions(
        seed=5,
        sampler="heun",
        guidance_min=1.5,
        guidance_max=2.0,
        face_optimization="off",
        alignment="fit",
    )


def test_a_job_that_does_not_fit_is_refused_before_the_work(
    store: JobStore, files: JobFiles, worker: AnimationWorker, model: LoadedModel
) -> None:
    assert isinstance(model.pipeline, PacedPipeline)
    model.pipeline.bytes_per_frame = 2**50
    job = submit(store, files)
    assert worker.run_one(model)
    done = read(store, job)
    assert done.state == JobState.FAILED
    assert done.failure is not None
    assert done.failure.code == "AR-MEM-01"
    assert "face_optimization" in (done.failure.fix or "")
    assert model.pipeline.seeds == []


def test_job_becomes_a_playable_marked_video(
    store: JobStore, files: JobFiles, worker: AnimationWorker, model: LoadedModel
) -> None:
    job = submit(store, files)
    assert worker.run_one(model)
    done = read(store, job)
    assert done.state == JobState.SUCCEEDED, done.failure
    result = done.result
    assert result is not None
    # 16 frames at 16 fps are one second: 8 frames at the model's 8 fps.
    assert (result.num_frames, result.width_px, result.height_px) == (8, SIZE, SIZE)
    # The first frame shows no face: it is counted, and the mean is that of the others.
    assert (result.identity_similarity, result.num_frames_without_face) == (0.5, 1)
    assert set(result.stage_s) == {"decode", "perceive", "denoise", "encode"}
    mp4 = (files.results_dir / result.file_name).read_bytes()
    with av.open(io.BytesIO(mp4)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(pictures) == 8
    # The picture's colour plus the seed, within what the codec loses.
    np.testing.assert_allclose(pictures[3].mean(axis=(0, 1)), [207, 47, 97], atol=4)
    facts = read_provenance(mp4)
    assert facts is not None
    assert (facts["model"], facts["options"], facts["job_id"]) == (
        "model-1", {"seed": 7}, job.job_id,
    )  # fmt: skip
    assert len(mp4) == result.num_bytes
    assert not (files.data_dir / "uploads" / job.job_id).exists()
    kinds = [event.kind for event in store.events(job.job_id)]
    assert kinds == ["queued", "preparing", "running", *["progress"] * 3, "succeeded"]
    assert not worker.run_one(model)


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"colour": (0, 0, 0)}, "AR-FAC-01", "shows no face"),
        ({"num_frames": 90}, "AR-MED-01", r"lasts 5\.\d s"),
    ],
)
def test_unusable_input_fails_at_once_in_the_clients_words(
    store: JobStore,
    files: JobFiles,
    worker: AnimationWorker,
    model: LoadedModel,
    changes: dict[str, Any],
    code: str,
    message: str,
) -> None:
    job = submit(store, files, **changes)
    worker.run_one(model)
    failed = read(store, job)
    assert failed.state == JobState.FAILED
    assert failed.failure is not None
    assert failed.failure.code == code
    assert __import__("re").search(message, failed.failure.message)
    assert failed.attempt == 1
    assert not (files.data_dir / "uploads" / job.job_id).exists()


def test_video_that_is_none_fails(
    store: JobStore, files: JobFiles, worker: AnimationWorker, model: LoadedModel
) -> None:
    job = submit(store, files)
    files.path(job.video_name).write_bytes(b"\x00\x00\x00\x18ftypisom" + bytes(500))
    worker.run_one(model)
    failure = read(store, job).failure
    assert failure is not None
    assert failure.code == "AR-MED-01"
    assert str(files.data_dir) not in failure.message


def test_foreign_error_is_retried_with_the_same_seed_and_hides_its_details(
    store: JobStore,
    files: JobFiles,
    worker: AnimationWorker,
    model: LoadedModel,
    pipeline: PacedPipeline,
) -> None:
    def explode(step: int) -> None:
        if step == 2:
            raise ValueError("secret detail")

    pipeline.at_step = explode
    job = submit(store, files, max_attempts=2)
    worker.run_one(model)
    assert read(store, job).state == JobState.QUEUED
    worker.run_one(model)
    failed = read(store, job)
    assert (failed.state, failed.attempt) == (JobState.FAILED, 2)
    assert pipeline.seeds == [7, 7]
    assert failed.failure is not None
    assert failed.failure.retryable
    assert "secret" not in repr(failed.failure) + repr(store.events(job.job_id))


def test_memory_shortage_is_told_with_its_remedy() -> None:
    for error in (MemoryError(), torch.OutOfMemoryError("CUDA out of memory")):
        failure = describe_failure(error, "j")
        assert failure.code == "AR-JOB-06"
        assert "face_optimization" in (failure.fix or "")
        assert not failure.retryable


def test_cancel_stops_between_steps(
    store: JobStore, files: JobFiles, model: LoadedModel, pipeline: PacedPipeline
) -> None:
    stop, steps = threading.Event(), []

    def slow(step: int) -> None:
        steps.append(step)
        time.sleep(0.3)

    pipeline.at_step = slow
    job = submit(store, files)
    thread = threading.Thread(target=make_worker(store, model, files).run, args=(stop,))
    thread.start()
    await_state(store, job, JobState.RUNNING)
    store.request_cancel(job.job_id, "public")
    await_state(store, job, JobState.CANCELLED)
    assert len(steps) < 4
    stop.set()
    thread.join(20)
    assert not thread.is_alive()
    assert list(files.results_dir.iterdir()) == []


def test_stopped_worker_gives_its_job_back_and_the_next_one_finishes_it(
    store: JobStore, files: JobFiles, model: LoadedModel, pipeline: PacedPipeline
) -> None:
    pipeline.at_step = dawdle
    job = submit(store, files, max_attempts=1)
    stop = threading.Event()
    thread = threading.Thread(target=make_worker(store, model, files).run, args=(stop,))
    thread.start()
    await_state(store, job, JobState.RUNNING)
    stop.set()
    thread.join(20)
    assert not thread.is_alive()
    assert read(store, job).state == JobState.QUEUED
    assert files.path(job.video_name).exists()
    assert store.leases.workers(1e9) == []
    pipeline.at_step = go_on
    make_worker(store, model, files).run_one(model)
    assert read(store, job).state == JobState.SUCCEEDED


def test_zombie_publishes_nothing(
    store: JobStore, files: JobFiles, model: LoadedModel, pipeline: PacedPipeline
) -> None:
    """A worker that slept past its lease finds its job done and throws its own attempt away."""
    asleep, wake = threading.Event(), threading.Event()
    first_run = threading.Lock()

    def sleep_once(step: int) -> None:
        if step == 1 and first_run.acquire(blocking=False):
            asleep.set()
            wake.wait(60)

    pipeline.at_step = sleep_once
    job = submit(store, files)
    zombie = make_worker(store, model, files)  # its pulse does not beat: only `run` starts it
    thread = threading.Thread(target=zombie.run_one, args=(model,))
    thread.start()
    assert asleep.wait(60)
    later = JobStore(f"sqlite:///{files.data_dir}/jobs.sqlite", lambda: time.time() + 61)
    assert later.leases.release_expired() == [job.job_id]
    later.close()
    assert make_worker(store, model, files).run_one(model)
    done = read(store, job)
    assert (done.state, done.attempt) == (JobState.SUCCEEDED, 2)
    wake.set()
    thread.join(60)
    assert read(store, job) == done
    assert done.result is not None
    assert [path.name for path in files.results_dir.iterdir()] == [done.result.file_name]
    assert done.result.file_name == f"{job.job_id}.2.mp4"


def test_model_that_cannot_be_loaded_is_told_and_does_not_take_jobs(
    store: JobStore, files: JobFiles
) -> None:
    def fail() -> LoadedModel:
        raise WeightsError("unet is damaged.", fix="Copy it anew.")

    job = submit(store, files)
    stop = threading.Event()
    worker = AnimationWorker(store, fail, files, LIMITS, WorkerSettings(pulse_s=0.05))
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    deadline = time.monotonic() + 20
    while [w.state for w in store.leases.workers(5.0)] != ["failed"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (state,) = store.leases.workers(5.0)
    assert state.detail == "unet is damaged. Copy it anew. [AR-WGT-01]"
    assert read(store, job).state == JobState.QUEUED
    stop.set()
    thread.join(20)
    assert not thread.is_alive()


def test_warnings_name_what_the_client_should_know(pipeline: PacedPipeline) -> None:
    reference = pipeline.prepare_reference(np.full((4, 4, 3), 99, np.uint8))
    motion = pipeline.estimate_motion(np.zeros((4, 8, 8, 3), np.uint8))
    options = AnimationOptions(seed=1)
    animation = pipeline.animate(reference, motion, options, print, companions=[])
    assert find_warnings([(reference, motion)], animation) == []
    report = replace(animation.alignment_report, out_of_frame_share=0.41)
    few = replace(motion, is_filled=np.array([True, False, False, False]), num_persons=3)
    poor = replace(animation, alignment_report=report)
    found = find_warnings([(replace(reference, num_persons=2), few)], poor)
    assert [text.split(";")[0].split(":")[0] for text in found] == [
        "The picture shows 2 people",
        "The driving video shows 3 people",
        "1 of 4 frames of the driving video show nobody",
        "41% of the driving keypoints fall outside the picture",
    ]
