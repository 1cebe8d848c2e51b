"""Fixtures of the worker's tests: a store of their own, a paced pipeline, a worker that claims."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from animaray.serving.jobs.files import JobFiles
from animaray.serving.jobs.store import JobStore
from animaray.serving.work.attempt import LoadedModel
from animaray.serving.work.worker import AnimationWorker
from tests.serving.worker_parts import PacedPipeline, make_worker


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
