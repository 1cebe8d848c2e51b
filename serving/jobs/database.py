"""The job database: tables, connections that must be durable, and the two ways to write.

SQLite (a file, the default) runs in WAL mode with synchronous=FULL; both are set and read back on
every connection, because WAL with NORMAL loses acknowledged jobs in a power cut. PostgreSQL by URL.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    Engine,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.sql.elements import ColumnElement

from animaray.platform.errors import ConfigError, MachineError, ServiceError
from animaray.platform.json_text import json_text
from animaray.serving.jobs.records import FINISHED_STATES, DuplicateRowError, JobState

BUSY_TIMEOUT_S = 30.0

SCHEMA_VERSION = 1

TABLES = MetaData()
SCHEMA = Table("schema_version", TABLES, Column("version", Integer, primary_key=True))
JOBS = Table(
    "jobs",
    TABLES,
    Column("job_id", String(32), primary_key=True),
    Column("tenant", String(64), nullable=False),
    Column("idempotency_key", String(255)),
    Column("fingerprint", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("options", JSON, nullable=False),
    Column("picture_name", Text, nullable=False),
    Column("video_name", Text, nullable=False),
    Column("created_s", Float(53), nullable=False),
    Column("updated_s", Float(53), nullable=False),
    Column("started_s", Float(53)),
    Column("finished_s", Float(53)),
    Column("step", Integer, nullable=False, default=0),
    Column("num_steps", Integer, nullable=False, default=0),
    Column("attempt", Integer, nullable=False, default=0),
    Column("max_attempts", Integer, nullable=False),
    Column("fence", Integer, nullable=False, default=0),
    Column("worker_id", String(64)),
    Column("lease_until_s", Float(53)),
    Column("cancel_requested", Boolean, nullable=False, default=False),
    Column("identity_similarity", Float(53)),
    Column("result", JSON(none_as_null=True)),
    Column("failure", JSON(none_as_null=True)),
    Column("last_event", Integer, nullable=False, default=0),
    UniqueConstraint("tenant", "idempotency_key", name="one_job_per_key"),
    Index("jobs_by_state", "state", "created_s"),
    Index("jobs_by_tenant", "tenant", "created_s"),
)
EVENTS = Table(
    "job_events",
    TABLES,
    Column("job_id", ForeignKey("jobs.job_id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("data", JSON, nullable=False),
    Column("created_s", Float(53), nullable=False),
)
WORKERS = Table(
    "workers",
    TABLES,
    Column("worker_id", String(64), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("detail", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("host", String(255), nullable=False),
    Column("heartbeat_s", Float(53), nullable=False),
)
TOTALS = Table(
    "totals",
    TABLES,
    Column("name", String(64), primary_key=True),
    Column("label", String(64), primary_key=True),
    Column("count", Integer, nullable=False),
    Column("total", Float(53), nullable=False),
    Column("recent", Float(53), nullable=False),
)


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
        TABLES.create_all(engine)
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
    def writing(self) -> Iterator[Connection]:
        """Open a transaction that commits when the block ends well.

        Raises:
            DuplicateRowError: A row of the same key was there before.
            ServiceError: The database failed; whether the block was committed is then unknown.
        """
        try:
            with self._engine.begin() as connection:
                yield connection
        except IntegrityError as error:
            raise DuplicateRowError(f"The job database refused: {_first_line(error)}.") from error
        except SQLAlchemyError as error:
            raise ServiceError(f"The job database failed: {_first_line(error)}.") from error

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a transaction that sees one consistent state and takes no write lock.

        Raises:
            ServiceError: The database failed.
        """
        try:
            with self._reading_engine.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise ServiceError(f"The job database failed: {_first_line(error)}.") from error

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def advance(
        self,
        connection: Connection,
        conditions: list[ColumnElement[bool]],
        values: Mapping[str, Any],
        kind: str,
        data: Mapping[str, Any],
    ) -> bool:
        """Change one job and append its event, if all conditions still hold.

        Args:
            connection: A transaction of `writing`.
            conditions: They select at most one job and guard against a changed one.
            values: Columns to change.
            kind: The event's kind.
            data: The event's data.

        Returns:
            Whether the job was changed; False means that a condition failed.
        """
        now = self.clock()
        row = connection.execute(
            update(JOBS)
            .where(*conditions)
            .values(**values, updated_s=now, last_event=JOBS.c.last_event + 1)
            .returning(JOBS.c.job_id, JOBS.c.last_event, JOBS.c.created_s, JOBS.c.state)
        ).first()
        if row is None:
            return False
        connection.execute(
            insert(EVENTS).values(
                job_id=row.job_id,
                number=row.last_event,
                kind=kind,
                data=dict(data),
                created_s=now,
            )
        )
        if JobState(row.state) in FINISHED_STATES and "state" in values:
            reason = str(data.get("code") or "")
            self.measure(connection, "jobs", f"{row.state}:{reason}", now - row.created_s)
        return True

    def measure(self, connection: Connection, name: str, label: str, value: float) -> None:
        """Add one measured value to its running total."""
        dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
        statement = dialect.insert(TOTALS).values(
            name=name, label=label, count=1, total=value, recent=value
        )
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["name", "label"],
                set_={
                    "count": TOTALS.c.count + 1,
                    "total": TOTALS.c.total + value,
                    "recent": TOTALS.c.recent * 0.8 + value * 0.2,
                },
            )
        )
