"""The schemas: explicit, versioned, readable by other tools."""

import json

import pyarrow as pa
import pytest

from animaray.datasets.schemas import (
    SCORES,
    TABLES,
    check_schema,
    concat_versions,
    schema_of,
    table_of_rows,
)
from animaray.platform.errors import DatasetError


def test_every_table_carries_its_version() -> None:
    for table in TABLES:
        metadata = schema_of(table).metadata
        assert metadata[b"animaray_schema_version"] == b"6"
        assert metadata[b"animaray_table"] == table.encode()


def test_video_columns_are_told_to_the_viewer() -> None:
    features = json.loads(schema_of("media").metadata[b"huggingface"])["info"]["features"]
    assert features["video"] == {"_type": "Video"}
    assert features["clip_id"] == {"dtype": "string", "_type": "Value"}
    video = schema_of("media").field("video").type
    assert video == pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    preview = json.loads(schema_of("preview").metadata[b"huggingface"])["info"]["features"]
    assert preview["poster"] == {"_type": "Image"}


def test_every_score_is_a_flat_column_of_clips() -> None:
    names = set(schema_of("clips").names)
    for family, scores in SCORES.items():
        assert set(scores) <= names
        assert f"{family}_state" in names


def test_missing_columns_become_null() -> None:
    table = table_of_rows("verdicts", [{"clip_id": "a", "keep": True}])
    assert table["reasons"].to_pylist() == [None]


def test_unknown_columns_and_wrong_types_are_refused() -> None:
    with pytest.raises(DatasetError, match="does not know: \\['colour'\\]"):
        table_of_rows("verdicts", [{"clip_id": "a", "colour": 1}])
    with pytest.raises(DatasetError, match="does not fit its schema"):
        table_of_rows("verdicts", [{"clip_id": "a", "keep": "yes"}])


@pytest.mark.parametrize("version", ["3", "4"])
def test_verdicts_from_before_there_were_flags_are_read_without(version: str) -> None:
    rows = table_of_rows("verdicts", [{"clip_id": "a", "keep": True}])
    old = rows.drop_columns(["flags", "flag_codes"]).replace_schema_metadata(
        {"animaray_schema_version": version, "animaray_table": "verdicts"}
    )
    check_schema("verdicts", old.schema, "here")
    both = concat_versions("verdicts", [old, rows], rows.column_names)
    assert both["flags"].to_pylist() == [None, None]
    with pytest.raises(DatasetError, match="are not those of the table"):
        check_schema("verdicts", old.drop_columns(["keep"]).schema, "here")


@pytest.mark.parametrize("version", ["3", "4", "5"])
def test_tracks_from_before_there_were_hands_are_read_without(version: str) -> None:
    rows = table_of_rows("tracks", [{"clip_id": "a", "pose_layout": "openpose_18"}])
    old = rows.drop_columns(["further_points"]).replace_schema_metadata(
        {"animaray_schema_version": version, "animaray_table": "tracks"}
    )
    check_schema("tracks", old.schema, "here")
    both = concat_versions("tracks", [old, rows], rows.column_names)
    assert both["further_points"].to_pylist() == [None, None]


def test_foreign_schemas_are_refused() -> None:
    schema = schema_of("verdicts")
    check_schema("verdicts", schema, "here")
    older = schema.with_metadata({b"animaray_schema_version": b"0"})
    with pytest.raises(DatasetError, match="schema version 0, expected 6"):
        check_schema("verdicts", older, "here")
    more = schema.append(pa.field("extra", pa.string()))
    with pytest.raises(DatasetError, match="are not those of the table"):
        check_schema("verdicts", more, "here")
