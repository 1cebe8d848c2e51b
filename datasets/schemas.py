"""Arrow schemas of a curated dataset: explicit, versioned, never inferred.

    sources/   one row per input ever tried, kept or not, with its final state and reason
    clips/     one row per clip, kept and rejected, with raw scores
    media/     one mp4 per row and per row group, uncompressed
    tracks/    keypoints, faces and camera path of a clip
    preview/   a poster and a small video of every clip, rejected ones too
    verdicts/  what one policy says about each clip

Public tables use flat columns and lists, so that pandas, DuckDB and the Hugging Face viewer read
them without help. Arrays of lists are stored flat in C order; their last axes are named below.
`pose_layout` is openpose_18, or whole_body_134 where `further_points` holds feet, face and hands
(116 points of x, y, confidence a pose; models.pose.layouts names them); else that column is null.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from animaray.platform.errors import DatasetError
from animaray.platform.json_text import json_text

SCHEMA_VERSION = 6
_TEXT = frozenset(
    {
        "text_share", "text_found_share", "text_scene_share", "text_place", "text_boxes",
        "text_state", "text_note", "text_producer",
    }
)  # fmt: skip
_FLAGS = frozenset({"flags", "flag_codes"})
_FURTHER = frozenset({"further_points"})
_ADDED_SINCE: dict[str, dict[str, frozenset[str]]] = {
    "3": {
        "clips": _TEXT | {"picture_combed_share", "picture_frame_rate_fps"},
        "verdicts": _FLAGS,
        "tracks": _FURTHER,
    },
    "4": {"clips": _TEXT, "verdicts": _FLAGS, "tracks": _FURTHER},
    "5": {"tracks": _FURTHER},
}
"""Columns that files of an older version lack; they are read as unknown (null)."""

SOURCE_STATES = (
    "kept", "dropped", "unreadable", "duplicate", "failed",
    "unavailable", "blocked", "queued", "expanded",
)  # fmt: skip
"""Every input ends in exactly one of these. An address that was not fetched is unavailable (never
asked for again), blocked (asked for in the next run), failed (tried again) or queued (not asked, to
spare its site); a playlist is expanded."""
FAMILIES = ("picture", "face", "pose", "camera", "motion", "text")
"""Groups of scores that succeed or fail together."""
FAMILY_STATES = ("ok", "failed", "not_run", "undetermined")

_VIDEO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_KINDS: dict[str, pa.DataType] = {
    "text": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "bytes": pa.binary(),
    "video": _VIDEO,
    "picture": _VIDEO,
    "texts": pa.list_(pa.string()),
    "ints": pa.list_(pa.int64()),
    "floats": pa.list_(pa.float32()),
    "times": pa.list_(pa.float64()),
    "bools": pa.list_(pa.bool_()),
}

_SOURCES = {
    "input_id": "text", "source_id": "text", "uri": "text", "file_name": "text",
    "file_bytes": "int", "modified_ns": "int", "sha256": "text",
    "state": "text", "reason": "text", "detail": "text", "duplicate_of": "text",
    "codec": "text", "width": "int", "height": "int", "fps": "float", "duration_s": "float",
    "start_s": "float", "num_frames": "int", "rotation_deg": "int", "pixel_aspect": "float",
    "has_audio": "bool", "warning": "text", "num_damaged_frames": "int",
    "cut_times_s": "times", "num_clips": "int", "hashes": "ints", "motion_signature": "bytes",
    "origin": "text", "platform": "text", "attempts": "int", "fetched_at": "text",
    "downloader": "text", "format_id": "text", "uploader_hash": "text", "upload_date": "text",
    "licence_claimed": "text",
    "profile": "text", "policy": "text", "code": "text", "config": "text",
}  # fmt: skip

SCORES: dict[str, dict[str, str]] = {
    "picture": {
        "picture_luminance_p5": "float", "picture_luminance_p95": "float",
        "picture_sharpness": "float", "picture_flat_share": "float",
        "picture_damaged_share": "float", "picture_combed_share": "float",
        "picture_frame_rate_fps": "float", "picture_short_side_px": "int",
    },
    "face": {
        "face_found_share": "float", "face_confidence": "float", "face_size_px": "float",
        "face_size_share": "float", "face_sharpness": "float", "face_frontal_share": "float",
        "face_single_share": "float", "face_complete_share": "float",
        "face_identity_p25": "float", "face_embedding_norm": "float", "face_num_sampled": "int",
    },
    "pose": {
        "pose_coverage": "float", "pose_missing_share_literal": "float",
        "pose_missing_share_strict": "float", "pose_single_share": "float",
        "pose_found_share": "float", "pose_framing": "text", "pose_jitter": "float",
    },
    "camera": {
        "camera_drift": "float", "camera_jump": "float", "camera_jitter": "float",
        "camera_log_zoom": "float", "camera_roll_deg": "float", "camera_inlier_share": "float",
        "camera_num_points": "float", "camera_evidence_share": "float", "camera_look": "float",
        "camera_background_share": "float", "camera_still_change": "float",
    },
    "motion": {"motion_speed": "float", "motion_change": "float"},
    "text": {
        "text_share": "float", "text_found_share": "float", "text_scene_share": "float",
        "text_place": "text", "text_boxes": "floats",
    },
}  # fmt: skip
"""Raw scores by family; the docstring of the stage that adds them gives unit and meaning."""

_CLIPS = {
    "clip_id": "text", "input_id": "text", "source_id": "text", "file_name": "text",
    "start_s": "float", "end_s": "float", "start_pts_90k": "int", "end_pts_90k": "int",
    "duration_s": "float", "width": "int", "height": "int", "fps": "float", "num_frames": "int",
    "is_variable_fps": "bool", "splitter": "text",
    **{name: kind for scores in SCORES.values() for name, kind in scores.items()},
    **{f"{family}_state": "text" for family in FAMILIES},
    **{f"{family}_note": "text" for family in FAMILIES},
    **{f"{family}_producer": "text" for family in FAMILIES},
    "identity_embedding": "floats",
    "media_file": "text", "media_row_group": "int", "media_bytes": "int", "media_sha256": "text",
}  # fmt: skip

_MEDIA = {"clip_id": "text", "video": "video"}

_TRACKS = {
    "clip_id": "text",
    "pts_s": "times", "frame_index": "ints", "pose_layout": "text",
    "keypoints": "floats", "keypoint_confidence": "floats", "further_points": "floats",
    "num_persons": "ints",
    "face_frames": "ints", "face_boxes": "floats", "face_landmarks": "floats",
    "face_scores": "floats", "face_valid": "bools", "face_count": "ints",
    "face_yaw_deg": "floats", "face_pitch_deg": "floats", "face_sharpness": "floats",
    "identity_embeddings": "floats", "identity_dim": "int",
    "camera_pts_s": "times", "camera_scale": "floats", "camera_roll_rad": "floats",
    "camera_shift": "floats", "camera_inlier_share": "floats", "camera_num_points": "ints",
}  # fmt: skip

_PREVIEW = {
    "clip_id": "text", "file_name": "text", "start_s": "float", "end_s": "float",
    "poster": "picture", "video": "video", "verdict": "text", "reasons": "text",
}  # fmt: skip

_VERDICTS = {
    "clip_id": "text", "source_id": "text", "policy": "text", "policy_fingerprint": "text",
    "state": "text", "keep": "bool", "reasons": "texts", "reason_codes": "texts",
    "flags": "texts", "flag_codes": "texts",
}  # fmt: skip

VERDICT_STATES = ("keep", "drop", "undetermined", "failed")
"""`undetermined` waits for a person to look, `failed` for a filter to run; neither is kept."""

_TABLES = {
    "sources": _SOURCES,
    "clips": _CLIPS,
    "media": _MEDIA,
    "tracks": _TRACKS,
    "preview": _PREVIEW,
    "verdicts": _VERDICTS,
}
TABLES = tuple(_TABLES)


def schema_of(table: str) -> pa.Schema:
    """Return the Arrow schema of a table, with its version and what viewers need to know."""
    columns = _TABLES[table]
    metadata = {"animaray_schema_version": str(SCHEMA_VERSION), "animaray_table": table}
    features = {
        name: {"_type": "Video" if kind == "video" else "Image"}
        for name, kind in columns.items()
        if kind in {"video", "picture"}
    }
    if features:
        # Hugging Face `datasets` and its viewer read this key: without it the column is bytes.
        metadata["huggingface"] = json_text({"info": {"features": _features(columns, features)}})
    fields = [pa.field(name, _KINDS[kind]) for name, kind in columns.items()]
    return pa.schema(fields, metadata=metadata)


def table_of_rows(table: str, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Build an Arrow table of exactly the declared columns.

    Raises:
        DatasetError: A row has a column that the schema does not know, or a wrong type.
    """
    schema = schema_of(table)
    rows = list(rows)
    known = set(schema.names)
    for row in rows:
        if unknown := sorted(set(row) - known):
            raise DatasetError(
                f"Rows of {table} have columns that its schema does not know: {unknown}."
            )
    try:
        return pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DatasetError(f"A row of {table} does not fit its schema: {error}") from error


def check_schema(table: str, found: pa.Schema, where: str) -> None:
    """Refuse a file of another schema or of a version that cannot be read.

    Raises:
        DatasetError: The file's version or columns are not among those that we know.
    """
    version = (found.metadata or {}).get(b"animaray_schema_version", b"none").decode()
    if version != str(SCHEMA_VERSION) and version not in _ADDED_SINCE:
        raise DatasetError(
            f"{where} has schema version {version}, expected {SCHEMA_VERSION}.",
            fix="Curate the videos again with this version, or read it with the one that wrote it.",
            reason="schema_version",
        )
    lacking = _ADDED_SINCE.get(version, {}).get(table, frozenset())
    expected = pa.schema([field for field in schema_of(table) if field.name not in lacking])
    if not found.equals(expected):
        raise DatasetError(
            f"The columns of {where} are not those of the table {table}.",
            fix="The file was changed by another program; restore it.",
            reason="schema",
        )


def concat_versions(table: str, parts: Sequence[pa.Table], columns: Sequence[str]) -> pa.Table:
    """Put rows of files of any readable version together; what a file lacks is null.

    Args:
        table: Name of the schema.
        parts: Of each file, the wanted columns that it has.
        columns: Wanted columns.
    """
    whole = schema_of(table).remove_metadata()
    empty = pa.schema([whole.field(name) for name in columns]).empty_table()
    bare = [part.replace_schema_metadata(None) for part in parts]
    return pa.concat_tables([empty, *bare], promote_options="default").select(columns)


def _features(columns: Mapping[str, str], media: Mapping[str, Any]) -> dict[str, Any]:
    names = {"text": "string", "int": "int64", "float": "float64", "bool": "bool"}
    return {
        name: media.get(name) or {"dtype": names[kind], "_type": "Value"}
        for name, kind in columns.items()
    }
