"""The job database: its records, connections that must be durable, and the two ways to write.

SQLite (a file, the default) runs in WAL mode with synchronous=FULL; both are set and read back on
every connection, because WAL with NORMAL loses acknowledged jobs in a power cut. PostgreSQL by URL.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from pydantic import BaseModel
from sqlalchemy import (
    JSON,
    Column,
    Connection,
    Dialect,
    Engine,
    Enum,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    create_engine,
    event,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, Session, mapped_column
from sqlalchemy.sql.elements import ColumnElement

from animaray.platform.errors import ConfigError, MachineError, ServiceError
from animaray.platform.json_text import json_text
from animaray.serving.jobs.records import (
    FINISHED_STATES,
    DuplicateRowError,
    FailureDocument,
    JobResult,
    JobState,
)

BUSY_TIMEOUT_S = 30.0

SCHEMA_VERSION = 1


class _Document(TypeDecorator[BaseModel]):
    """A JSON column that holds one kind of document, or nothing."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def __init__(self, kind: type[BaseModel]) -> None:
        super().__init__()
        self.kind = kind

    def process_bind_param(self, value: BaseModel | None, dialect: Dialect) -> Any:  # noqa: ANN401, ARG002
        """Turn the document into JSON values."""
        return None if value is None else value.model_dump()

    def process_result_value(self, value: Any, dialect: Dialect) -> BaseModel | None:  # noqa: ANN401, ARG002
        """Read the document back."""
        return None if value is None else self.kind.model_validate(value)


class _Row(MappedAsDataclass, DeclarativeBase):
    """A record of ours that is at the same time a row of the database."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {
        float: Float(53),
        dict[str, Any]: JSON,
        JobState: Enum(
            JobState,
            native_enum=False,
            length=16,
            values_callable=lambda states: [state.value for state in states],
        ),
    }


class Job(_Row, kw_only=True):
    """One durable job. Whoever asks for it gives the first fields, the store all others."""

    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("tenant", "idempotency_key", name="one_job_per_key"),
        Index("jobs_by_state", "state", "created_s"),
        Index("jobs_by_tenant", "tenant", "created_s"),
    )

    job_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    tenant: Mapped[str] = mapped_column(String(64))
    fingerprint: Mapped[str] = mapped_column(String(64))
    """Hash of the uploads' bytes and of the options; equal requests have equal fingerprints."""
    options: Mapped[dict[str, Any]]
    """Validated options, the seed included."""
    picture_name: Mapped[str] = mapped_column(Text)
    """Server-made path of the reference picture below the data folder."""
    video_name: Mapped[str] = mapped_column(Text)
    """Server-made path of the driving video below the data folder."""
    idempotency_key: Mapped[str | None] = mapped_column(String(255), default=None)
    max_attempts: Mapped[int] = mapped_column(default=3)

    state: Mapped[JobState] = mapped_column(default=JobState.QUEUED)
    created_s: Mapped[float] = mapped_column(default=0.0)
    """Unix time."""
    updated_s: Mapped[float] = mapped_column(default=0.0)
    started_s: Mapped[float | None] = mapped_column(default=None)
    """When a worker first took it, or None."""
    finished_s: Mapped[float | None] = mapped_column(default=None)
    step: Mapped[int] = mapped_column(default=0)
    num_steps: Mapped[int] = mapped_column(default=0)
    """Length of the denoising loop; 0 until it is known."""
    attempt: Mapped[int] = mapped_column(default=0)
    fence: Mapped[int] = mapped_column(default=0)
    """Raised by each claim: what is written under an older one is refused."""
    worker_id: Mapped[str | None] = mapped_column(String(64), default=None)
    lease_until_s: Mapped[float | None] = mapped_column(default=None)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    identity_similarity: Mapped[float | None] = mapped_column(default=None)
    result: Mapped[JobResult | None] = mapped_column(_Document(JobResult), default=None)
    failure: Mapped[FailureDocument | None] = mapped_column(
        _Document(FailureDocument), default=None
    )
    last_event: Mapped[int] = mapped_column(default=0)
    """Number of the newest event."""

    @property
    def is_finished(self) -> bool:
        """Tell whether the state can never change again."""
        return self.state in FINISHED_STATES


class JobEvent(_Row, kw_only=True):
    """One entry of a job's gapless event list."""

    __tablename__ = "job_events"

    job_id: Mapped[str] = mapped_column(
        ForeignKey("jobs.job_id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True)
    """1, 2, 3 ... within the job."""
    kind: Mapped[str] = mapped_column(String(32))
    """A state's name, or "progress", "retry", "cancel_requested"."""
    data: Mapped[dict[str, Any]]
    created_s: Mapped[float]


class WorkerState(_Row, kw_only=True):
    """What a worker last said about itself."""

    __tablename__ = "workers"

    worker_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    """One of "loading", "ready", "busy", "draining", "failed"."""
    detail: Mapped[str] = mapped_column(Text)
    """What failed, or the model's digest."""
    pid: Mapped[int]
    host: Mapped[str] = mapped_column(String(255))
    heartbeat_s: Mapped[float]
    """Unix time of the last sign of life."""


class Total(_Row, kw_only=True):
    """A running total of one measured quantity."""

    __tablename__ = "totals"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    label: Mapped[str] = mapped_column(String(64), primary_key=True)
    count: Mapped[int]
    total: Mapped[float]
    recent: Mapped[float]
    """Moving average; the newest value weighs a fifth."""


SCHEMA = Table("schema_version", _Row.metadata, Column("version", Integer, primary_key=True))


def open_engine(url: str) -> Engine:
    """Connect to the job database and make its tables.

    Args:
        url: SQLAlchemy URL, such as `sqlite:////data/jobs.sqlite` or `postgresql+psycopg://...`.

    Raises:
        ConfigError: The URL is not one of the two databases, or its driver is not installed.
        MachineError: The database cannot be opened, or cannot be made durable.
    """
    try:
        engine = create_engine(
            url, pool_pre_ping=not url.startswith("sqlite"), json_serializer=json_text
        )
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise ConfigError(
            f"Cannot use the job database {_without_password(url)}: {error}.",
            fix="Use sqlite:////absolute/path or postgresql+psycopg://user@host/name"
            " (pip install 'animaray[postgres]').",
        ) from error
    if engine.dialect.name not in ("sqlite", "postgresql"):
        raise ConfigError(
            f"The job database must be SQLite or PostgreSQL, got {engine.dialect.name}."
        )
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _make_sqlite_durable)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        event.listen(engine, "connect", _require_postgres_durable)
    try:
        _Row.metadata.create_all(engine)
        _check_version(engine, url)
    except SQLAlchemyError as error:
        engine.dispose()
        raise MachineError(
            f"Cannot open the job database {_without_password(url)}: {_first_line(error)}.",
            fix="Check that the folder or server exists and may be written.",
        ) from error
    return engine


def _check_version(engine: Engine, url: str) -> None:
    try:
        with engine.begin() as connection:
            version = connection.execute(select(SCHEMA.c.version)).scalar()
            if version is None:
                connection.execute(insert(SCHEMA).values(version=SCHEMA_VERSION))
    except IntegrityError:  # another process was first
        with engine.connect() as connection:
            version = connection.execute(select(SCHEMA.c.version)).scalar()
    if version not in (None, SCHEMA_VERSION):
        raise MachineError(
            f"The job database {_without_password(url)} has version {version}; this program"
            f" needs {SCHEMA_VERSION}.",
            fix="Use another data folder, or the program that made it.",
        )


def _make_sqlite_durable(connection: Any, _record: object) -> None:  # noqa: ANN401 - DBAPI
    connection.isolation_level = None  # we say BEGIN ourselves
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_S * 1000)}")
    mode = cursor.execute("PRAGMA journal_mode=WAL").fetchone()[0]
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    level = cursor.execute("PRAGMA synchronous").fetchone()[0]
    cursor.close()
    if mode != "wal" or level != 2:
        raise MachineError(
            f"The job database must run with journal_mode=WAL and synchronous=FULL (2), got"
            f" {mode} and {level}: a power cut could lose accepted jobs.",
            fix="Put data_dir on a local disk, or use PostgreSQL.",
        )


def _require_postgres_durable(connection: Any, _record: object) -> None:  # noqa: ANN401 - DBAPI
    cursor = connection.cursor()
    cursor.execute("SHOW synchronous_commit")
    level = cursor.fetchone()[0]
    cursor.close()
    connection.rollback()
    if level == "off":
        raise MachineError(
            "The job database runs with synchronous_commit=off: a power cut could lose accepted"
            " jobs.",
            fix="Set synchronous_commit=on for this role or database.",
        )


def _begin_sqlite(connection: Connection) -> None:
    # IMMEDIATE takes the write lock at once: a deferred transaction that turns into a writer
    # fails without waiting when another writer came between.
    read_only = connection.get_execution_options().get("read_only", False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def _without_password(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    _, at, host = rest.rpartition("@")
    return f"{scheme}{separator}{'...@' if at else ''}{host}"


def _first_line(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).splitlines()[0].rstrip(".")


class JobDatabase:
    """Transactions on the job tables, with one injected clock.

    Args:
        url: See `open_engine`.
        clock: Returns Unix time in seconds; tests pass their own.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self._engine = open_engine(url)
        self._reading_engine = self._engine.execution_options(read_only=True)

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Open a transaction that commits when the block ends well.

        Raises:
            DuplicateRowError: A row of the same key was there before.
            ServiceError: The database failed; whether the block was committed is then unknown.
        """
        try:
            with Session(self._engine, expire_on_commit=False) as session, session.begin():
                yield session
        except IntegrityError as error:
            raise DuplicateRowError(f"The job database refused: {_first_line(error)}.") from error
        except SQLAlchemyError as error:
            raise ServiceError(f"The job database failed: {_first_line(error)}.") from error

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Open a transaction that sees one consistent state and takes no write lock.

        Raises:
            ServiceError: The database failed.
        """
        try:
            with Session(self._reading_engine) as session:
                yield session
        except SQLAlchemyError as error:
            raise ServiceError(f"The job database failed: {_first_line(error)}.") from error

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def advance(
        self,
        session: Session,
        conditions: list[ColumnElement[bool]],
        values: Mapping[str, Any],
        kind: str,
        data: Mapping[str, Any],
    ) -> bool:
        """Change one job and append its event, if all conditions still hold.

        Args:
            session: A transaction of `writing`.
            conditions: They select at most one job and guard against a changed one.

        Returns:
            Whether the job was changed; False means that a condition failed.
        """
        now = self.clock()
        row = session.execute(
            update(Job)
            .where(*conditions)
            .values(**values, updated_s=now, last_event=Job.last_event + 1)
            .returning(Job.job_id, Job.last_event, Job.created_s, Job.state),
            execution_options={"synchronize_session": False},
        ).first()
        if row is None:
            return False
        session.execute(
            insert(JobEvent).values(
                job_id=row.job_id,
                number=row.last_event,
                kind=kind,
                data=dict(data),
                created_s=now,
            )
        )
        if row.state in FINISHED_STATES and "state" in values:
            reason = str(data.get("code") or "")
            self.measure(session, "jobs", f"{row.state}:{reason}", now - row.created_s)
        return True

    def measure(self, session: Session, name: str, label: str, value: float) -> None:
        """Add one measured value to its running total."""
        dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
        statement = dialect.insert(Total).values(
            name=name, label=label, count=1, total=value, recent=value
        )
        session.execute(
            statement.on_conflict_do_update(
                index_elements=["name", "label"],
                set_={
                    "count": Total.count + 1,
                    "total": Total.total + value,
                    "recent": Total.recent * 0.8 + value * 0.2,
                },
            )
        )
