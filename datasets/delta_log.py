"""A Delta Lake log beside the Parquet files of a table, so that Delta readers see what counts.

    TABLE/_delta_log/00000000000000000000.json   protocol, schema, and the files that count
    TABLE/_delta_log/00000000000000000001.json   what was added and removed since

It is written here and not by `deltalake`, because every writer must write it: one without that
package (128 MB) would leave a log that still names what was withdrawn meanwhile. Readers of version
1 of the protocol are enough. Each table has its own log, so Delta readers see each table at some
commit of ours, not all tables at the same one.

References:
    Delta Transaction Log Protocol, sections Actions and Schema Serialization Format.
"""

import json
import re
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from animaray.datasets.commit_log import CommittedFile
from animaray.datasets.schemas import schema_of
from animaray.platform.errors import StoreError
from animaray.platform.json_text import json_text
from animaray.platform.stores import Store

DELTA_LOG = "_delta_log"
_ENTRY = re.compile(r"\d{20}\.json")
_MAX_TRIES = 20
_NAMES = {
    pa.string(): "string",
    pa.int64(): "long",
    pa.float64(): "double",
    pa.float32(): "float",
    pa.bool_(): "boolean",
    pa.binary(): "binary",
}


@dataclass(slots=True)
class _State:
    """What a Delta log says at its newest entry."""

    num_entries: int = 0
    paths: set[str] = field(default_factory=set)
    """Files that count, relative to the table."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Id and schema; empty where there is no log."""
    version: int = 0
    """Version of the dataset that was published."""


def set_delta_files(store: Store, table: str, files: Sequence[CommittedFile], version: int) -> None:
    """Add an entry after which a table's Delta log names exactly these files.

    Args:
        version: Of the dataset; nothing is done where a newer one was published.

    Raises:
        StoreError: Others took every number that was tried.
    """
    folder = f"{table}/{DELTA_LOG}"
    wanted = {file.path.removeprefix(f"{table}/"): file for file in files}
    schema = json_text(_delta_type(pa.struct(list(schema_of(table.split("/")[0])))))
    for _ in range(_MAX_TRIES):
        state = _read_state(store, folder)
        is_same = state.paths == wanted.keys() and state.metadata.get("schemaString") == schema
        if state.version > version or is_same:
            return
        changes = _changes(state, wanted, schema, version)
        data = "".join(f"{json_text(change)}\n" for change in changes).encode()
        if store.write_if_absent(f"{folder}/{state.num_entries:020d}.json", data):
            return
    raise StoreError(
        f"{store}/{folder} could not be written: others came first {_MAX_TRIES} times.",
        fix=f"Publish again: animaray dataset compact {store}",
    )


def _read_state(store: Store, folder: str) -> _State:
    names = sorted(file.path for file in store.files(folder))
    names = [name for name in names if _ENTRY.fullmatch(name.rpartition("/")[2])]
    state = _State(num_entries=len(names))
    for name in names:
        for line in store.read(name).splitlines():
            action = json.loads(line)
            if "add" in action:
                state.paths.add(action["add"]["path"])
            if "remove" in action:
                state.paths.discard(action["remove"]["path"])
            state.metadata |= action.get("metaData", {})
            state.version = action.get("commitInfo", {}).get("datasetVersion", state.version)
    return state


def _changes(
    state: _State, wanted: Mapping[str, CommittedFile], schema: str, version: int
) -> Iterable[dict[str, Any]]:
    """Yield the actions that lead from what the log says to what it should say."""
    now_ms = time.time_ns() // 1_000_000
    yield {"commitInfo": {
        "timestamp": now_ms, "operation": "WRITE", "operationParameters": {},
        "engineInfo": "animaray", "datasetVersion": version, "nonce": uuid.uuid4().hex,
    }}  # fmt: skip
    if not state.metadata:
        yield {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}
    if state.metadata.get("schemaString") != schema:
        yield {"metaData": {
            "id": state.metadata.get("id", str(uuid.uuid4())), "schemaString": schema,
            "format": {"provider": "parquet", "options": {}}, "partitionColumns": [],
            "configuration": {}, "createdTime": state.metadata.get("createdTime", now_ms),
        }}  # fmt: skip
    for path in sorted(state.paths - wanted.keys()):
        yield {"remove": {"path": path, "deletionTimestamp": now_ms, "dataChange": True}}
    for path in sorted(wanted.keys() - state.paths):
        file = wanted[path]
        yield {"add": {
            "path": path, "partitionValues": {}, "size": file.size_bytes,
            "modificationTime": now_ms, "dataChange": True,
            "stats": json_text({"numRecords": file.rows}),
        }}  # fmt: skip


def _delta_type(kind: pa.DataType) -> str | dict[str, Any]:
    """Return what Delta Lake calls an Arrow type."""
    if pa.types.is_list(kind):
        return {"type": "array", "elementType": _delta_type(kind.value_type), "containsNull": True}
    if pa.types.is_struct(kind):
        fields = [
            {"name": f.name, "type": _delta_type(f.type), "nullable": True, "metadata": {}}
            for f in kind
        ]
        return {"type": "struct", "fields": fields}
    return _NAMES[kind]
