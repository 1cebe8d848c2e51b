"""Rows between stages: every column there, whatever a stage gave; nothing that nobody declared."""

import pytest

from animaray.datasets.schemas import schema_of
from animaray.pipelines.curation.rows import (
    CLIP,
    GROUP,
    SHELVED,
    SOURCE,
    new_row,
    rows_of,
    table_of,
)
from animaray.platform.errors import DatasetError


def test_a_row_of_any_state_has_the_same_columns() -> None:
    before = table_of([{**new_row("a.mp4", "/"), "uri": "a.mp4"}], SOURCE)
    shot = {"start_s": 0.0, "end_s": 2.0, "cut_before": False, "cut_after": True}
    after = table_of(
        [{**rows_of(before)[0], "shots": [shot], "hashes": [-5], "seconds": {"probe": 0.5}}], SOURCE
    )
    assert before.schema.equals(after.schema)
    (row,) = rows_of(after)
    assert (row["shots"], row["hashes"], row["seconds"]) == ([shot], [-5], {"probe": 0.5})


def test_a_group_of_clips_is_one_row() -> None:
    clips = [{"clip_id": name, "path": "a.mp4", "seconds": {}} for name in "ab"]
    (group,) = rows_of(table_of([{"clips": clips}], GROUP))
    assert [clip["clip_id"] for clip in group["clips"]] == ["a", "b"]
    assert set(group["clips"][0]) == set(CLIP.names)
    assert group["clips"][0]["seconds"] == {}


def test_what_is_shelved_has_the_columns_of_the_table() -> None:
    assert set(schema_of("clips").names) < set(SHELVED.names)
    assert table_of([], SHELVED).schema.equals(SHELVED)


def test_a_column_that_nobody_declared_is_refused() -> None:
    with pytest.raises(DatasetError, match="samples"):
        table_of([{**new_row("a", "/"), "samples": None}], SOURCE)
    with pytest.raises(DatasetError, match="does not fit"):
        table_of([{**new_row("a", "/"), "width": "wide"}], SOURCE)
