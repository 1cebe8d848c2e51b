"""Say for every input of a run whether it is finished, has ended, or is to be looked at.

Local files come at once; addresses are fetched in the background while others are looked at.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from animaray.datasets.commit_log import CommitLog
from animaray.datasets.reader import CurationDataset
from animaray.pipelines.acquire.fetch import Fetcher
from animaray.pipelines.acquire.inputs import Input, expand_sources
from animaray.pipelines.acquire.states import Item
from animaray.pipelines.curation.config import CurationConfig
from animaray.pipelines.curation.rows import SOURCE, Row, new_row
from animaray.pipelines.curation.workplace import staging_of
from animaray.pipelines.stages.duplicates import Footage
from animaray.pipelines.stages.identify import is_unchanged
from animaray.platform.storage import content_id
from animaray.platform.stores import StoredFile, is_remote

ACQUIRED_DIR = "_acquired"
_FOOTAGE_COLUMNS = ("input_id", "source_id", "uri", "duration_s", "hashes", "motion_signature")
_LOOKED_AT = frozenset({"kept", "dropped", "unreadable", "duplicate"})


@dataclass(slots=True)
class Batch:
    """Inputs that are ready together."""

    pending: list[Row] = field(default_factory=list)
    """Rows of files to look at."""
    ended: list[Row] = field(default_factory=list)
    """Rows whose state is final for this run without a look at any picture, to be committed."""


class RunInputs:
    """The inputs of one run."""

    def __init__(self, config: CurationConfig, known: Sequence[Mapping[str, Any]]) -> None:
        """List the inputs.

        Args:
            known: Rows of the sources table.

        Raises:
            ConfigError: A source does not exist or holds no video.
        """
        self._config = config
        self._folder = _acquired_folder(config)
        named = expand_sources(
            config.sources, self._folder / "members", config.acquire, limit=config.limit
        )
        self.left_out = named.left_out
        """Files beside the inputs that are no video."""
        self._local = [item for item in named.inputs if item.url is None]
        self._remote = {item.url: item for item in named.inputs if item.url is not None}
        self._known: dict[str, list[Mapping[str, Any]]] = {}
        for row in known:
            self._known.setdefault(row["uri"], []).append(row)
        self.finished: list[str] = []
        """Ids of inputs that need nothing: their rows stand as they are."""

    def local(self) -> Iterator[Batch]:
        """Return local files that were not looked at before, reading none of them.

        A file is in the same batch whatever was finished before: near-duplicates are looked for
        within a batch, so a run that goes on must find the same ones.
        """
        size = self._config.sources_per_batch
        for start in range(0, len(self._local), size):
            yield self._local_batch(self._local[start : start + size])

    def _local_batch(self, items: Sequence[Input]) -> Batch:
        batch = Batch()
        for item in items:
            rows = self._known.get(item.uri, [])
            if item.problem is not None:
                self._add_ended(batch, _problem_row(item))
                continue
            if item.stored is not None:
                now = (item.stored.size_bytes, item.stored.modified_ns)
                match, row = self._looked_at(rows).get(now), _stored_row(item, item.stored)
            else:
                assert item.path is not None  # noqa: S101 - neither address nor problem
                match = is_unchanged(item.path, self._looked_at(rows))
                row = _file_row(item, item.path)
            if match is None:
                batch.pending.append(row)
            else:
                self.finished.append(match)
        return batch

    def remote(self) -> Iterator[Batch]:
        """Fetch addresses and return them as they come."""
        if not self._remote:
            return
        fetcher = Fetcher(
            list(self._remote),
            self._folder,
            self._config.acquire,
            needs_no_file=frozenset(url for url in self._known if self._is_finished(url)),
        )
        for items in fetcher.stream():
            batch = Batch()
            for item in items:
                if item.state == "fetched" and self._is_finished(item.url):
                    self.finished.append(_remote_id(item.url))
                elif item.state == "fetched":
                    batch.pending.append(self._fetched_row(item, fetcher.files_dir))
                else:
                    self._add_ended(batch, self._remote_row(item))
            yield batch

    def _is_finished(self, url: str) -> bool:
        rows = self._known.get(url, [])
        return any(
            row["reason"] == "withdrawn"
            or (
                row["sha256"] is not None
                and (row["state"] in _LOOKED_AT or not self._config.retry_failed)
            )
            for row in rows
        )

    def _looked_at(self, rows: Sequence[Mapping[str, Any]]) -> dict[tuple[int, int], str]:
        return {
            (row["file_bytes"], row["modified_ns"]): row["input_id"]
            for row in rows
            if row["file_bytes"] is not None
            and not (self._config.retry_failed and row["state"] == "failed")
        }

    def _add_ended(self, batch: Batch, row: Row) -> None:
        """Commit a state only when it is news."""
        stored = next(
            (old for old in self._known.get(row["uri"], []) if old["input_id"] == row["input_id"]),
            None,
        )
        names = ("state", "reason")
        if stored is not None and all(stored[name] == row[name] for name in names):
            self.finished.append(row["input_id"])
        else:
            batch.ended.append(row)

    def _fetched_row(self, item: Item, files_dir: Path) -> Row:
        path = files_dir / str(item.path)
        facts = self._remote_facts(item)
        return {**new_row(str(path.absolute()), str(files_dir)), **facts, "is_remote": True}

    def _remote_row(self, item: Item) -> Row:
        facts = {"state": item.state, "reason": item.reason, "detail": item.detail}
        ids = {
            "input_id": _remote_id(item.url),
            "source_id": content_id("unread", item.url),
            "file_name": item.url.rpartition("/")[2] or item.url,
        }
        return {**new_row(item.url, ""), **self._remote_facts(item), **ids, **facts}

    def _remote_facts(self, item: Item) -> dict[str, Any]:
        named = self._remote.get(item.url)
        return {
            "uri": item.url,
            "origin": named.origin if named is not None else None,
            "platform": item.platform.partition(":")[2],
            "attempts": item.attempts,
            **{name: value for name, value in item.facts.items() if name in SOURCE.names},
        }


def _file_row(item: Input, path: Path) -> Row:
    path = path.absolute()  # workers of another node have another working folder
    return {**new_row(str(path), str(path.parent)), "uri": item.uri}


def _stored_row(item: Input, stored: StoredFile) -> Row:
    """Return the row of an object, which is read where it lies."""
    facts = {"file_bytes": stored.size_bytes, "modified_ns": stored.modified_ns}
    return {**new_row(stored.path, ""), "uri": item.uri, **facts}


def _acquired_folder(config: CurationConfig) -> Path:
    """Return where fetched files and members of archives lie; on this machine in any case."""
    if is_remote(config.output_dir):
        return staging_of(config).with_name(f"{staging_of(config).name}{ACQUIRED_DIR}")
    return Path(config.output_dir) / ACQUIRED_DIR


def _problem_row(item: Input) -> Row:
    assert item.problem is not None  # noqa: S101 - the caller looked
    reason, detail = item.problem
    return {
        **new_row(item.uri, ""),
        "uri": item.uri,
        "file_name": Path(item.uri).name,
        "input_id": content_id("input", item.uri),
        "source_id": content_id("unread", item.uri),
        "state": "unreadable",
        "reason": reason,
        "detail": detail,
    }


def _remote_id(url: str) -> str:
    """Return the id of an address: it stays, whatever is found there."""
    return content_id("input", url)


def read_known(config: CurationConfig) -> tuple[list[dict[str, Any]], Footage]:
    """Return what is known of each input, and what can be seen in those that were looked at."""
    footage = Footage(config.duplicates)
    if not CommitLog(config.output_dir).head():
        return [], footage
    dataset = CurationDataset.open(config.output_dir)
    names = ("input_id", "uri", "file_bytes", "modified_ns", "sha256", "state", "reason")
    seen = dataset.table("sources", ["state", *_FOOTAGE_COLUMNS])
    for part in seen.to_batches(max_chunksize=1024):
        for row in part.to_pylist():
            if has_footage(row):
                footage.add(row)
    return dataset.table("sources", names).to_pylist(), footage


def has_footage(row: Mapping[str, Any]) -> bool:
    """Return whether a row of the sources table tells what can be seen in the source."""
    return row["state"] in {"kept", "dropped"} and row["hashes"] is not None
