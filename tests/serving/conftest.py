"""Fixtures of the serving tests: a clock to turn, and a job store on SQLite and PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from animaray.serving.jobs.store import JobStore
from tests.serving.serving_parts import Clock, postgres_url


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from postgres_url(tmp_path_factory.mktemp("postgres"))


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[JobStore]:
    if request.param == "sqlite":
        opened = JobStore(f"sqlite:///{tmp_path}/jobs.sqlite", clock)
    else:
        opened = JobStore(request.getfixturevalue("postgres_server"), clock)
        with opened._database.writing() as session:
            for table in ("job_events", "jobs", "workers", "totals"):
                session.connection().exec_driver_sql(f"DELETE FROM {table}")  # noqa: S608 - fixed names
    yield opened
    opened.close()
