"""Cancelled, stopped, overslept, without a model: what becomes of the worker's job."""

import threading
import time

import pytest

from animaray.platform.errors import WeightsError
from animaray.serving.jobs.files import JobFiles
from animaray.serving.jobs.records import JobState
from animaray.serving.jobs.store import JobStore
from animaray.serving.work.attempt import LoadedModel
from animaray.serving.work.worker import (
    AnimationWorker,
    WorkerSettings,
)
from tests.serving.worker_parts import (
    LIMITS,
    PacedPipeline,
    await_state,
    dawdle,
    go_on,
    make_worker,
    read,
    submit,
)

pytestmark = pytest.mark.timeout(120)


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
    zombie = make_worker(store, model, files)  # its heartbeat does not run: only `run` starts it
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
    worker = AnimationWorker(store, fail, files, LIMITS, WorkerSettings(heartbeat_interval_s=0.05))
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
