"""Commit finished sources with all tables of theirs at once; facts only, no video comes by here."""

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import pyarrow as pa

from animaray.datasets.commit_log import CommitLog, CommittedFile, Writer
from animaray.datasets.publication import Publisher
from animaray.datasets.schemas import schema_of
from animaray.datasets.shards import write_shard, write_table
from animaray.pipelines.curation.rows import SOURCE, Row
from animaray.pipelines.curation.workplace import Workplace
from animaray.pipelines.policy.policies import policy_fingerprint
from animaray.platform.config import config_to_dict, fingerprint
from animaray.platform.stores import open_store

_SOURCE_COLUMNS = tuple(name for name in schema_of("sources").names if name in SOURCE.names)


class Committer:
    """Commits finished sources of one curation run."""

    def __init__(self, place: Workplace, writer: Writer) -> None:
        self._store, self._token = open_store(place.address), writer.token
        self._log = CommitLog(self._store, writer)
        self._publisher = Publisher(self._store)
        self._policies = place.policies
        self._common = {
            "profile": place.config.profile,
            "policy": place.policies[0].name,
            "code": f"animaray {version('animaray')}",
            "config": fingerprint(place.config),
        }

    def commit(self, sources: Sequence[Row], shelved: Sequence[pa.Table] = ()) -> list[Row]:
        """Commit sources with all their clips.

        Args:
            sources: Their rows; the state is None where the clips decide.
            shelved: Rows of all their clips, as `rows.SHELVED` has them.

        Returns:
            What the sources table now says of them.
        """
        clips = pa.concat_tables(shelved).combine_chunks() if shelved else None
        files = [] if clips is None else self._write_clips(clips)
        verdicts = {} if clips is None else _verdicts_by_source(clips, self._policies[0].name)
        rows = [self._source_row(row, verdicts.get(row["input_id"], ())) for row in sources]
        facts = {
            "code": self._common["code"],
            "config": self._common["config"],
            "profile": self._common["profile"],
            "policy": config_to_dict(self._policies[0]),
            "policies": {policy.name: policy_fingerprint(policy) for policy in self._policies},
        }
        files = [write_shard(self._store, "sources", rows, token=self._token), *files]
        self._log.commit(files, inputs=sorted(row["input_id"] for row in rows), facts=facts)
        self._publisher.after_commit()
        return rows

    def _write_clips(self, clips: pa.Table) -> list[CommittedFile]:
        """Write what the driver writes of clips; the workers wrote the rest."""
        told = [file for files in clips["files"].to_pylist() for file in files or ()]
        written = [CommittedFile(**file) for file in told]
        written.append(self._write("clips", clips))
        verdicts = pa.Table.from_struct_array(clips["verdicts"].combine_chunks().flatten())
        for policy in self._policies:
            of_policy = verdicts.filter(pa.compute.equal(verdicts["policy"], policy.name))
            folder = f"verdicts/{policy.name}"
            written.append(self._write("verdicts", of_policy, folder))
        return written

    def _write(self, table: str, rows: pa.Table, folder: str | None = None) -> CommittedFile:
        schema = schema_of(table)
        ordered = rows.select(schema.names).sort_by("clip_id").cast(schema)
        return write_table(self._store, table, ordered, folder=folder, token=self._token)

    def _source_row(self, source: Row, verdicts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        state = {name: source[name] for name in ("state", "reason", "detail")}
        if source["state"] is None:
            state = source_state(verdicts)
        facts = {name: source.get(name) for name in _SOURCE_COLUMNS}
        return {**facts, **state, "num_clips": len(verdicts), **self._common}


def _verdicts_by_source(clips: pa.Table, policy: str) -> dict[str, list[dict[str, Any]]]:
    """Return what one policy says about the clips of each source, in the order of the clips."""
    found: dict[str, list[dict[str, Any]]] = {}
    columns = clips.select(["input_id", "verdicts"]).to_pylist()
    for row in columns:
        found.setdefault(row["input_id"], []).extend(
            verdict for verdict in row["verdicts"] if verdict["policy"] == policy
        )
    return found


def source_state(verdicts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the final state of a source from what a policy says about its clips."""
    kept = sum(verdict["keep"] for verdict in verdicts)
    state = state_of_clips([verdict["state"] for verdict in verdicts])
    if kept:
        return {"state": state, "reason": None, "detail": f"{kept} of {len(verdicts)} clips kept"}
    codes = Counter(code for verdict in verdicts for code in verdict["reason_codes"])
    return {
        "state": state,
        "reason": codes.most_common(1)[0][0] if codes else None,
        "detail": "; ".join(
            dict.fromkeys(text for verdict in verdicts for text in verdict["reasons"])
        ),
    }


def state_of_clips(states: Sequence[str]) -> str:
    """Return the final state of a source from the verdict states of its clips."""
    if "keep" in states:
        return "kept"
    return "failed" if states and all(state == "failed" for state in states) else "dropped"
