"""From a claimed job to a published mp4 or a failure in the client's words, with real files."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from animaray.models.animation.pipeline import (
    AnimationOptions,
)
from animaray.models.subjects.choice import PersonChoice
from animaray.platform.media.video import (
    add_sound_in_child,
    decode_in_child,
    encode_mp4,
    probe_in_child,
)
from animaray.serving.jobs.files import JobFiles
from animaray.serving.jobs.options import find_warnings
from animaray.serving.jobs.records import JobState
from animaray.serving.jobs.store import JobStore
from animaray.serving.work.attempt import LoadedModel
from animaray.serving.work.worker import (
    AnimationWorker,
    describe_failure,
)
from tests.provenance import read_provenance
from tests.serving.worker_parts import (
    SIZE,
    PacedPipeline,
    read,
    submit,
)

TALKER = Path(__file__).parents[2] / "data" / "real" / "videos" / "v21.mp4"
pytestmark = pytest.mark.timeout(120)


def test_a_face_too_small_to_be_told_fails_the_job_and_a_small_one_is_warned_of(
    store: JobStore, files: JobFiles, worker: AnimationWorker, model: LoadedModel
) -> None:
    assert isinstance(model.pipeline, PacedPipeline)
    model.pipeline.face_height_px = 7
    job = submit(store, files)
    assert worker.run_one(model)
    failure = read(store, job).failure
    assert failure is not None
    assert failure.code == "AR-FAC-01"
    assert "7 pixels high; under 20" in failure.message
    model.pipeline.face_height_px = 30
    job = submit(store, files)
    assert worker.run_one(model)
    result = read(store, job).result
    assert result is not None
    assert any("30 pixels high" in warning for warning in result.warnings)


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
    assert facts["engine"] == "diffusion"
    assert (facts["model"], facts["options"], facts["job_id"]) == (
        "model-1", {"seed": 7}, job.job_id,
    )  # fmt: skip
    assert len(mp4) == result.num_bytes
    assert not (files.data_dir / "uploads" / job.job_id).exists()
    kinds = [event.kind for event in store.events(job.job_id)]
    assert kinds == ["queued", "preparing", "running", *["progress"] * 3, "succeeded"]
    assert not worker.run_one(model)


@pytest.mark.parametrize("audio", [True, False])
def test_the_driving_videos_sound_is_kept_unless_it_is_not_wanted(
    store: JobStore,
    files: JobFiles,
    worker: AnimationWorker,
    model: LoadedModel,
    tmp_path: Path,
    *,
    audio: bool,
) -> None:
    job = submit(store, files, options={"seed": 7} if audio else {"seed": 7, "audio": False})
    driving, loud = files.path(job.video_name), tmp_path / "loud.mp4"
    silent = driving.rename(tmp_path / "silent.mp4")
    add_sound_in_child(silent, TALKER, loud, info=probe_in_child(TALKER), duration_s=1.0)
    loud.rename(driving)
    assert worker.run_one(model)
    result = read(store, job).result
    assert result is not None
    assert result.warnings == []
    with av.open(str(files.results_dir / result.file_name)) as container:
        assert len(container.streams.audio) == int(audio)
        frames = sum(1 for _ in container.decode(video=0))
        ends = [stream.duration * stream.time_base for stream in container.streams.audio]
    assert all(float(end) <= frames / result.fps + 0.05 for end in ends)


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


@pytest.mark.usefixtures("permissive_weights")
def test_a_job_by_parts_needs_no_animator(
    store: JobStore, files: JobFiles, worker: AnimationWorker, model: LoadedModel
) -> None:
    real = Path(__file__).parents[2] / "data" / "real"
    job = submit(store, files, options={"seed": 1, "engine": "parts"})
    folder = files.path(job.picture_name).parent
    (folder / "reference_image").write_bytes((real / "images" / "p07_1.jpg").read_bytes())
    clip = decode_in_child(real / "videos" / "v04.mp4", short_side_px=480, max_frames=3)
    (folder / "driving_video").write_bytes(encode_mp4(clip.frames_uint8, 5.0))
    assert worker.run_one(model)
    done = read(store, job)
    assert done.state == JobState.SUCCEEDED, done.failure
    assert done.result is not None
    assert (done.result.num_frames, done.result.fps) == (3, pytest.approx(5.0))
    assert any("knees" in warning for warning in done.result.warnings)
    facts = read_provenance((files.results_dir / done.result.file_name).read_bytes())
    assert facts is not None
    assert (facts["engine"], facts["mode"], "model" in facts) == ("parts", "head", False)
    assert isinstance(model.pipeline, PacedPipeline)
    assert model.pipeline.seeds == []
