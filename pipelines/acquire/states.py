"""What became of every input that was ever asked for, and what each platform allows: one database.

It is the archive (what is fetched is never asked for again) and the memory of the rate limits, both
across restarts, kills and power cuts.
"""

import json
import sqlite3
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from animaray.platform.errors import DatasetError
from animaray.platform.json_text import json_text

Clock = Callable[[], float]
"""Return the time of day, seconds since 1970."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS items (
    item_id TEXT PRIMARY KEY, url TEXT NOT NULL, platform TEXT NOT NULL, key TEXT NOT NULL,
    state TEXT NOT NULL, reason TEXT, detail TEXT, attempts INTEGER NOT NULL, path TEXT,
    facts TEXT NOT NULL, updated_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS entries (
    playlist TEXT NOT NULL, place INTEGER NOT NULL, url TEXT NOT NULL,
    PRIMARY KEY (playlist, url));
CREATE TABLE IF NOT EXISTS pace (
    platform TEXT PRIMARY KEY, tokens REAL NOT NULL, updated_at REAL NOT NULL,
    blocked_until REAL NOT NULL);
PRAGMA user_version = 1;
"""


@dataclass(slots=True)
class Item:
    """One address that is or was to be fetched."""

    item_id: str
    url: str
    platform: str
    """Video site, or host of a plain file."""
    key: str
    """Identity on the platform, as in `youtube abc`; the address of a plain file."""
    state: str = "queued"
    reason: str | None = None
    detail: str | None = None
    attempts: int = 0
    """Requests ever made for it."""
    path: str | None = None
    """File name in the folder of fetched files."""
    facts: dict[str, Any] = field(default_factory=dict)


class AcquisitionStates:
    """The database of one dataset's acquisition; one process writes it at a time."""

    def __init__(self, path: Path, clock: Clock = time.time) -> None:
        """Open or make it.

        Raises:
            DatasetError: The file is damaged or is no such database.
        """
        self._clock = clock
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = WAL")
            # NORMAL would lose acknowledged rows in a power cut.
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            raise DatasetError(
                f"{path} is no usable file of acquisition states: {error}.",
                fix="Move it away; what was fetched is found again by its file name.",
                reason="states",
            ) from error

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def items(self) -> dict[str, Item]:
        """Return every item by its id, in the order in which they came."""
        rows = self._database.execute(
            "SELECT item_id, url, platform, key, state, reason, detail, attempts, path, facts "
            "FROM items ORDER BY rowid"
        )
        names = [field.name for field in fields(Item)]
        found = (dict(zip(names, row, strict=True)) for row in rows)
        return {row["item_id"]: Item(**{**row, "facts": json.loads(row["facts"])}) for row in found}

    def save(self, items: Iterable[Item]) -> None:
        """Store items, all or none."""
        now = self._clock()
        rows = [
            (
                item.item_id, item.url, item.platform, item.key, item.state, item.reason,
                item.detail, item.attempts, item.path, json_text(item.facts), now,
            )
            for item in items
        ]  # fmt: skip
        with self._transaction():
            self._database.executemany(
                "INSERT INTO items VALUES (?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (item_id) DO UPDATE "
                "SET platform=excluded.platform, key=excluded.key, state=excluded.state, "
                "reason=excluded.reason, detail=excluded.detail, attempts=excluded.attempts, "
                "path=excluded.path, facts=excluded.facts, updated_at=excluded.updated_at",
                rows,
            )

    def add_entries(self, playlist: str, urls: Iterable[str]) -> None:
        """Remember what a playlist holds; entries that are known stay."""
        with self._transaction():
            self._database.executemany(
                "INSERT OR IGNORE INTO entries VALUES (?,?,?)",
                [(playlist, place, url) for place, url in enumerate(urls)],
            )

    def entries(self, playlist: str) -> list[str]:
        """Return the known entries of a playlist, in order."""
        rows = self._database.execute(
            "SELECT url FROM entries WHERE playlist = ? ORDER BY place, url", (playlist,)
        )
        return [row[0] for row in rows]

    def take_token(self, platform: str, *, per_hour: float, burst: int) -> float:
        """Take the right to ask a platform once, durably, before it is asked.

        Returns:
            0 when it was taken; else the time to wait before trying again, seconds.
        """
        now = self._clock()
        with self._transaction():
            tokens, updated_at, blocked_until = self._pace(platform, burst, now)
            if blocked_until > now:
                return blocked_until - now
            elapsed_s = max(0.0, now - updated_at)  # the clock may have been set back
            tokens = min(float(burst), tokens + elapsed_s * per_hour / 3600)
            wait_s = 0.0 if tokens >= 1 else (1 - tokens) * 3600 / per_hour
            left = tokens - 1 if tokens >= 1 else tokens
            self._set_pace(platform, left, now, blocked_until)
        return wait_s

    def block_until(self, platform: str, moment: float) -> None:
        """Let nobody ask a platform before a time of day, seconds since 1970."""
        with self._transaction():
            tokens, updated_at, blocked_until = self._pace(platform, 1, self._clock())
            self._set_pace(platform, tokens, updated_at, max(blocked_until, moment))

    def _pace(self, platform: str, burst: int, now: float) -> tuple[float, float, float]:
        row = self._database.execute(
            "SELECT tokens, updated_at, blocked_until FROM pace WHERE platform = ?", (platform,)
        ).fetchone()
        return row or (float(burst), now, 0.0)

    def _set_pace(self, platform: str, tokens: float, now: float, blocked_until: float) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO pace VALUES (?,?,?,?)", (platform, tokens, now, blocked_until)
        )

    def _transaction(self) -> "_Transaction":
        return _Transaction(self._database)


class _Transaction:
    """BEGIN IMMEDIATE, then COMMIT or ROLLBACK."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __enter__(self) -> None:
        self._database.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._database.execute("COMMIT" if kind is None else "ROLLBACK")
