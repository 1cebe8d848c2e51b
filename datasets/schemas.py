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

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

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


class Column(NamedTuple):
    """One column of a table; docs/data-format.md is written from it."""

    kind: str
    """A key of _KINDS."""
    meaning: str
    """What it holds, with its unit; an array's axes in brackets."""


def _columns(text: str) -> dict[str, Column]:
    """Read lines of name, kind and meaning; an indented line goes on with the one above."""
    lines = textwrap.dedent(text).strip().replace("\n    ", " ").splitlines()
    return {
        name: Column(kind, meaning) for name, kind, meaning in (x.split(None, 2) for x in lines)
    }


_SOURCES = _columns("""
    input_id            text   Id of the input: of its address and, for a file, of its bytes
    source_id           text   Id of the bytes: equal files share it
    uri                 text   Path below the named source, or address
    file_name           text   Name of the file
    file_bytes          int    Size, bytes
    modified_ns         int    Time of the last change, Unix time, ns
    sha256              text   Of the file's bytes, hexadecimal
    state               text   How it ended: kept, dropped, unreadable or one of the others above
    reason              text   Code of the reason; null where it was kept
    detail              text   The reason in words
    duplicate_of        text   source_id of the footage that it repeats
    codec               text   Video codec, FFmpeg's name
    width               int    Of the displayed picture, px
    height              int    Of the displayed picture, px
    fps                 float  Frames per second, measured on the frames
    duration_s          float  From the first frame to the end of the last, s
    start_s             float  Time stamp of the first frame, s
    num_frames          int    Frames that could be decoded
    rotation_deg        int    Turn that the file asks players for, degrees, applied already
    pixel_aspect        float  Width of a stored pixel over its height, evened out already
    has_audio           bool   Whether there is sound
    warning             text   What was odd and did not keep it from being read
    num_damaged_frames  int    Frames that the decoder marked as damaged
    cut_times_s         times  Cuts, s
    num_clips           int    Clips that were cut out of it
    hashes              ints   Perceptual hash of 64 bits for each second
    motion_signature    bytes  Coarse picture of what changes, two each second
    origin              text   Named source that it was found in
    platform            text   Site that it was fetched from
    attempts            int    How often it was asked for
    fetched_at          text   When it was fetched, ISO 8601, UTC
    downloader          text   Program and version that fetched it
    format_id           text   The downloader's name of the stream that it took
    uploader_hash       text   Hash of site and uploader; the name is not stored
    upload_date         text   As the site states it, YYYYMMDD
    licence_claimed     text   As the site states it; nobody checked it
    profile             text   Perception profile that measured them
    policy              text   Policy that decided `state`
    code                text   Version of animaray
    config              text   Fingerprint of the curation's settings
""")

_SCORES = {
    "picture": _columns("""
        picture_luminance_p5    float  Darkest 5 % of a frame, median over frames, 0 to 255
        picture_luminance_p95   float  Brightest 5 %, likewise
        picture_sharpness       float  Laplacian variance at 360 px, median over frames
        picture_flat_share      float  Share of 16 px blocks without texture, median
        picture_damaged_share   float  Share of frames that the decoder marked as damaged
        picture_combed_share    float  Share of moving pixels with combs of unmarked interlacing,
            mean; null where nothing moves
        picture_frame_rate_fps  float  Frames per second
        picture_short_side_px   int    Short side, px
    """),
    "face": _columns("""
        face_found_share     float  Share of sampled frames with a face
        face_confidence      float  Detector's score, median
        face_size_px         float  Short side of the box, median, px
        face_size_share      float  The same as a share of the frame's height
        face_sharpness       float  Laplacian variance of the aligned face, never enlarged, 25th
            percentile
        face_frontal_share   float  Share of faces with |yaw| and |pitch| within limits
        face_single_share    float  Share of frames without a second face of a quarter of its area
        face_complete_share  float  Share of faces with all five landmarks inside the frame
        face_identity_p25    float  Cosine of frontal faces to the most typical of them, 25th
            percentile, on the scale on which one person begins at 0.4 for every recogniser
        face_embedding_norm  float  Length of the recogniser's own output, 25th percentile; null
            where it gives unit vectors
        face_num_sampled     int    Frames that were looked at
    """),
    "pose": _columns("""
        pose_coverage               float  Mean number of the 18 keypoints that are seen
        pose_missing_share_literal  float  Share of frames with more than 70 % of the keypoints
            missing
        pose_missing_share_strict   float  Share of frames with fewer than 70 % of them seen
        pose_single_share           float  Share of frames without a second person of half the
            height
        pose_found_share            float  Share of frames with a person
        pose_framing                text   full, half, close or none
        pose_jitter                 float  Share of the motion that goes back and forth from one
            pose to the next
    """),
    "camera": _columns("""
        camera_drift             float  Farthest way of a picture corner from the clip's start,
            short sides
        camera_jump              float  Largest step of a corner between samples, short sides
        camera_jitter            float  Second difference of the corners, 99th percentile, short
            sides
        camera_log_zoom          float  Largest |log scale|
        camera_roll_deg          float  Largest turn, degrees
        camera_inlier_share      float  Share of background points that move as one, median; a lost
            point moves by itself
        camera_num_points        float  Points that could be followed, 5th percentile
        camera_evidence_share    float  Share of samples with a fit
        camera_look              float  Change of the registered background's luminance, 95th
            percentile, of 1
        camera_background_share  float  Share of the picture that is background, median
        camera_still_change      float  Change of the background's luminance as it stands, 95th
            percentile, of 1
    """),
    "motion": _columns("""
        motion_speed   float  Mean speed of the seen keypoints without the camera's, median over
            time, body heights per second
        motion_change  float  Change of luminance inside the person's box over half a second, 95th
            percentile, of 1
    """),
    "text": _columns("""
        text_share        float   Share of the picture that burned-in text covers, mean over frames
        text_found_share  float   Share of the frames that show some
        text_scene_share  float   Share covered by writing that belongs to the scene, mean
        text_place        text    top, bottom, left, right, middle or all over; null without any
        text_boxes        floats  Left, top, right, bottom as shares of the picture [boxes, 4]
    """),
}  # fmt: skip
SCORES = {family: tuple(scores) for family, scores in _SCORES.items()}
"""Names of the raw scores by family; clip-wide, so that a policy needs no video."""


def _per_family(ending: str, meaning: str) -> dict[str, Column]:
    return {f"{family}_{ending}": Column("text", meaning) for family in FAMILIES}


_CLIPS = {
    **_columns("""
        clip_id          text   Id of source, span and splitter
        input_id         text   Input that it was cut from
        source_id        text   Bytes that it was cut from
        file_name        text   Name of the input's file
        start_s          float  First frame in the source, s
        end_s            float  End in the source, exclusive, s
        start_pts_90k    int    The same, 1/90000 s
        end_pts_90k      int    The same, 1/90000 s
        duration_s       float  Length of the stored video, s
        width            int    Of the stored video, px
        height           int    Of the stored video, px
        fps              float  Frames per second of the stored video
        num_frames       int    Frames of the stored video
        is_variable_fps  bool   Whether the source's rate varies
        splitter         text   Rule that cut it, with its version
    """),
    **{name: column for scores in _SCORES.values() for name, column in scores.items()},
    **_per_family("state", "ok, failed, not_run or undetermined: whether the scores stand"),
    **_per_family("note", "Why not, in words"),
    **_per_family("producer", "Networks that measured them, with their versions"),
    **_columns("""
        identity_embedding  floats  Mean of the frontal faces, unit vector [identity_dim]
        media_file          text    Shard of the video; null where it is not stored
        media_row_group     int     Its row group there
        media_bytes         int     Size of the mp4, bytes
        media_sha256        text    Of the mp4, hexadecimal
    """),
}

_MEDIA = _columns("""
    clip_id  text   Clip
    video    video  The mp4: `bytes`, and `path` as its name
""")

_TRACKS = _columns("""
    clip_id              text    Clip
    pts_s                times   Times of the poses in the clip's video, s [poses]
    frame_index          ints    Frames of the poses [poses]
    pose_layout          text    openpose_18, or whole_body_134 with `further_points`
    keypoints            floats  Main person, px of the stored video [poses, 18, 2]
    keypoint_confidence  floats  0 to 1; 0 where nobody was found [poses, 18]
    further_points       floats  Feet, face and hands: x, y, confidence [poses, 116, 3]
    num_persons          ints    People of at least half the main person's height [poses]
    face_frames          ints    Frames in which faces were looked for [faces]
    face_boxes           floats  Main face: left, top, right, bottom, px [faces, 4]
    face_landmarks       floats  Eyes, nose, corners of the mouth, px [faces, 5, 2]
    face_scores          floats  Detector's score, 0 to 1 [faces]
    face_valid           bools   Whether a face was found; else zeros stand beside it [faces]
    face_count           ints    Faces of the frame [faces]
    face_yaw_deg         floats  Turn to the side, degrees [faces]
    face_pitch_deg       floats  Turn up or down, degrees [faces]
    face_sharpness       floats  Laplacian variance of the aligned face [faces]
    identity_embeddings  floats  Unit vectors [faces, identity_dim]
    identity_dim         int     Numbers of one embedding
    camera_pts_s         times   Times of the camera's samples from the first, s [samples]
    camera_scale         floats  Scale against the first sample [samples]
    camera_roll_rad      floats  Turn against it, radians [samples]
    camera_shift         floats  Shift of the picture's origin, short sides [samples, 2]
    camera_inlier_share  floats  Share of points that move as one; NaN with too few [samples]
    camera_num_points    ints    Usable points [samples]
""")

_PREVIEW = _columns("""
    clip_id    text     Clip
    file_name  text     Name of the input's file
    start_s    float    First frame in the source, s
    end_s      float    End in the source, exclusive, s
    poster     picture  A JPEG: `bytes`, and `path` as its name
    video      video    A small mp4, likewise
    verdict    text     What the run's policy said when it was written
    reasons    text     And why, in words
""")

_VERDICTS = _columns("""
    clip_id             text   Clip
    source_id           text   Bytes that it was cut from
    policy              text   Policy's name
    policy_fingerprint  text   Hash of its thresholds
    state               text   keep, drop, undetermined (a person must look) or failed (a filter)
    keep                bool   Whether `state` is keep
    reasons             texts  Code, value and threshold of each broken rule, in words
    reason_codes        texts  The codes alone
    flags               texts  What rules that only flag found, in words
    flag_codes          texts  Their codes alone
""")

COLUMNS = {
    "sources": _SOURCES,
    "clips": _CLIPS,
    "media": _MEDIA,
    "tracks": _TRACKS,
    "preview": _PREVIEW,
    "verdicts": _VERDICTS,
}
"""The columns of each table, in their order."""
TABLES = tuple(COLUMNS)


def schema_of(table: str) -> pa.Schema:
    """Return the Arrow schema of a table, with its version and what viewers need to know."""
    columns = {name: column.kind for name, column in COLUMNS[table].items()}
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
        parts: Of each file, the wanted columns that it has.
    """
    whole = schema_of(table).remove_metadata()
    # Not `empty_table`, which imports pandas: as long as opening a dataset of any size.
    empty = pa.Table.from_batches([], schema=pa.schema([whole.field(name) for name in columns]))
    bare = [part.replace_schema_metadata(None) for part in parts]
    return pa.concat_tables([empty, *bare], promote_options="default").select(columns)


def _features(columns: Mapping[str, str], media: Mapping[str, Any]) -> dict[str, Any]:
    names = {"text": "string", "int": "int64", "float": "float64", "bool": "bool"}
    return {
        name: media.get(name) or {"dtype": names[kind], "_type": "Value"}
        for name, kind in columns.items()
    }
