"""Tell other people's programs which files of a dataset count: derived, and never read by us.

    live_files.json              every file that counts, for DuckDB, pandas, Polars
    README.md                    the same as `configs:`, for Hugging Face `datasets` and its viewer
    TABLE/_delta_log/*.json      the same as a Delta Lake log, for Spark, Polars, deltalake

Between a withdrawal and the compaction that takes out its rows, files that hold some of them are
left out: others see fewer rows, never a withdrawn one. All three are written anew from the commit
log, so a writer that was killed before it published leaves an older, true state, until the next.
"""

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from animaray.datasets.commit_log import CommitLog, CommittedFile, Snapshot
from animaray.datasets.delta_log import set_delta_files
from animaray.datasets.reader import CurationDataset
from animaray.datasets.schemas import TABLES
from animaray.platform.json_text import json_text
from animaray.platform.stores import Store, open_store

LIVE_FILES = "live_files.json"
README = "README.md"
_FRONT = re.compile(r"\A---\n(.*?\n)---\n", re.DOTALL)
_MAX_TRIES = 20
_PAUSES = 20
_ABOUT = """
# A curated dataset of video clips

Written by animaray. Only files that the commit log counts are named here: read them by these names,
not by a pattern, because replaced files stay in the folders for a while.

```python
from datasets import load_dataset

clips = load_dataset("FOLDER")                # or "media", "tracks", "verdicts-standard", ...
```

```sql
set variable clips = (
    select list('FOLDER/' || path) from 'FOLDER/live_files.json' where "table" = 'clips');
select * from read_parquet(getvariable('clips'));
```

```python
from deltalake import DeltaTable

clips = DeltaTable("FOLDER/clips").to_pyarrow_table()
```
"""


def publish(address: str | Path | Store) -> None:
    """Write the three lists for the newest version."""
    store = open_store(address)
    for _ in range(_MAX_TRIES):
        snapshot = CommitLog(store).snapshot()
        files = shown_files(store, snapshot)
        _write_list(store, files)
        _write_readme(store, files)
        for table in sorted({file.table for entry in snapshot.entries for file in entry.files}):
            if table.split("/")[0] in TABLES:
                own = [file for file in files if file.table == table]
                set_delta_files(store, table, own, snapshot.version)
        # Who published an older state last sees here that a newer one exists.
        if CommitLog(store).head() == snapshot.version:
            return


class Publisher:
    """Publishes after commits of a long run: as often as that costs a twentieth of the time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._not_before_s = 0.0

    def after_commit(self) -> None:
        """Publish unless the last time was too short ago for what it cost."""
        began_s = time.monotonic()
        if began_s >= self._not_before_s:
            publish(self._store)
            ended_s = time.monotonic()
            self._not_before_s = ended_s + _PAUSES * (ended_s - began_s)


def shown_files(store: Store, snapshot: Snapshot) -> list[CommittedFile]:
    """Return the tables' files that count and hold no row of a withdrawn source."""
    done = {name for entry in snapshot.entries if entry.kind == "compact" for name in entry.inputs}
    pending = snapshot.withdrawn - done
    counting = [file for file in snapshot.files if file.table.split("/")[0] in TABLES]
    if not pending:
        return counting
    dataset = CurationDataset(store, snapshot)
    hidden = {
        "source_id": pa.array(sorted(pending), type=pa.string()),
        "clip_id": pa.array(sorted(dataset.withdrawn_clip_ids()), type=pa.string()),
    }
    return [file for file in counting if not _holds(dataset, file, hidden)]


def _holds(
    dataset: CurationDataset, file: CommittedFile, hidden: Mapping[str, pa.StringArray]
) -> bool:
    parquet = dataset.open_file(file)
    column = next(name for name in hidden if name in parquet.schema_arrow.names)
    found = parquet.read(columns=[column]).column(column)
    return bool(pc.any(pc.is_in(found, value_set=hidden[column])).as_py())


def _write_list(store: Store, files: Iterable[CommittedFile]) -> None:
    rows = [
        {"table": file.table, "path": file.path, "rows": file.rows, "size_bytes": file.size_bytes}
        for file in files
    ]
    store.write(LIVE_FILES, (json_text(rows, indent=1) + "\n").encode())


def _write_readme(store: Store, files: Sequence[CommittedFile]) -> None:
    """Set `configs` in the front matter; what else stands there, or below, is the owner's.

    A README.md that nobody can read as text with such a front stays as it is.
    """
    try:
        text = store.read(README).decode()
    except FileNotFoundError:
        text = _ABOUT
    except UnicodeDecodeError:
        return
    found = _FRONT.match(text)
    try:
        front = (yaml.safe_load(found[1]) or {}) if found else {}
    except yaml.YAMLError:
        return
    if not isinstance(front, dict):
        return
    paths: dict[str, list[str]] = {}
    for file in files:
        paths.setdefault(file.table, []).append(file.path)
    front["configs"] = [
        {
            "config_name": table.replace("/", "-"),
            **({"default": True} if table == "clips" else {}),
            "data_files": [{"split": "train", "path": names}],
        }
        for table, names in sorted(paths.items())
    ]
    body = text[found.end() :] if found else text
    head = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    data = f"---\n{head}---\n{body}".encode()
    if data != text.encode():
        store.write(README, data)
