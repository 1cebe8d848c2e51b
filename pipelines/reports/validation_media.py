"""Check videos, tracks and encoded clips of a dataset against what its clips declare."""

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from av.error import FFmpegError

from animaray.datasets.encoded_clips import EncodedClip, open_encoded_clips
from animaray.datasets.encoded_index import ENCODED_DIR
from animaray.datasets.reader import ClipTracks, CurationDataset, tracks_of_row
from animaray.datasets.schemas import schema_of
from animaray.datasets.table_rows import one_array
from animaray.platform.errors import DatasetError

Report = Callable[[str, str, str], None]

_UNIT_SLACK = 1e-3
_LATENTS = ("latents", "latent_std", "reference_latents", "reference_latent_std")
_PER_FRAME = (
    *_LATENTS, "keypoints", "further_points", "face_boxes", "identity_embeddings", "raw_identities",
)  # fmt: skip
_CLIP_FACTS = (
    "clip_id", "media_file", "media_row_group", "media_bytes", "media_sha256", "num_frames", "fps",
    "duration_s", "is_variable_fps", "width", "height", "pose_state",
)  # fmt: skip
_WHOLE_SHARE = 0.999
_STEP_SLACK = 0.05


def check_media(dataset: CurationDataset, report: Report, *, decode: bool) -> int:
    """Check every stored video; return how many were decoded."""
    for file in dataset.snapshot.of_table("media"):
        for message in _layout_problems(dataset.open_file(file)):
            report("media", file.path, message)
    num_decoded = 0
    clips = dataset.table("clips", _CLIP_FACTS)
    is_stored = pc.is_in(clips["clip_id"], value_set=one_array(dataset.large_table_ids("media")))
    is_named = pc.is_valid(clips["media_file"])
    for clip_id in clips["clip_id"].filter(pc.and_not(is_stored, is_named)).to_pylist():
        report("media", clip_id, "a video is stored that its clip does not name")
    for clip_id in clips["clip_id"].filter(pc.and_not(is_named, is_stored)).to_pylist():
        report("media", clip_id, "its video is not in the media table")
    # In the order in which they lie, so that each file is opened once.
    order = [("media_file", "ascending"), ("media_row_group", "ascending")]
    there = clips.filter(pc.and_(is_named, is_stored)).sort_by(order)
    for clip in _rows_of(there):
        clip_id = clip["clip_id"]
        try:
            video = dataset.media_bytes(clip_id)
        except DatasetError as error:
            report("media", clip_id, error.message)
            continue
        for message in _byte_problems(video, clip):
            report("media", clip_id, message)
        if decode:
            tracks = _tracks_of(dataset, clip_id) if dataset.has_row("tracks", clip_id) else None
            for message in _decode_problems(video, clip, tracks):
                report("frames", clip_id, message)
        num_decoded += decode
    return num_decoded


def _rows_of(rows: pa.Table) -> Iterator[dict[str, Any]]:
    """Yield rows, of which few are there at a time."""
    for batch in rows.to_batches(max_chunksize=4096):
        yield from batch.to_pylist()


def _tracks_of(dataset: CurationDataset, clip_id: str) -> ClipTracks | None:
    """Return the tracks of a clip; None where they are broken, which `check_tracks` tells."""
    try:
        return dataset.tracks(clip_id)
    except ValueError:
        return None


def check_tracks(dataset: CurationDataset, report: Report) -> None:
    """Check poses and faces of every clip."""
    clips = dataset.table("clips", _CLIP_FACTS)
    known = one_array(clips["clip_id"])
    for batch in dataset.large_table_batches("tracks", schema_of("tracks").names):
        places = pc.index_in(batch["clip_id"], value_set=known)
        own = clips.take(places).to_pylist()
        for row, clip in zip(batch.to_pylist(), own, strict=True):
            if clip["clip_id"] is not None:
                _check_tracks_row(row, clip, report)


def _check_tracks_row(row: Mapping[str, Any], clip: Mapping[str, Any], report: Report) -> None:
    clip_id = clip["clip_id"]
    try:
        tracks = tracks_of_row(row)
    except ValueError as error:
        report("frames", clip_id, f"its arrays have lengths that do not agree: {error}")
        return
    for message in _pose_problems(tracks, clip):
        report("frames", clip_id, message)
    for message in _face_problems(tracks):
        report("faces", clip_id, message)
    for message in _mask_problems(tracks.face_boxes, tracks.face_valid, clip):
        report("masks", clip_id, message)


def check_encoded_clips(dataset: CurationDataset, report: Report) -> None:
    """Check the encoded clips, if there are any."""
    names = {file.table for file in dataset.snapshot.files}
    clip_ids = set(dataset.table("clips", ["clip_id"])["clip_id"].to_pylist())
    for name in sorted(name for name in names if name.startswith(f"{ENCODED_DIR}/")):
        table = open_encoded_clips(dataset.store, name.split("/", 1)[1])
        for clip_id in table.clip_ids:
            if clip_id not in clip_ids:
                report("conditions", clip_id, f"{name} encodes a clip that does not exist")
                continue
            item = table.load(clip_id)
            lengths = {
                field: len(getattr(item, field))
                for field in _PER_FRAME
                if getattr(item, field) is not None
            }
            if len(set(lengths.values())) != 1:
                report("conditions", clip_id, f"{name}: lengths differ: {lengths}")
            if not all(
                np.isfinite(getattr(item, field).astype(np.float32)).all()
                for field in _LATENTS
                if field in lengths
            ):
                report("conditions", clip_id, f"{name}: latents are not finite")
            norms = np.linalg.norm(item.identity_embeddings[item.identity_valid], axis=1)
            if (np.abs(norms - 1.0) > _UNIT_SLACK).any():
                report("conditions", clip_id, f"{name}: a valid identity is no unit vector")
            if not _raw_fits(item):
                report("conditions", clip_id, f"{name}: a raw identity is not along its unit one")
            size = {"width": item.width_px, "height": item.height_px}
            for message in _mask_problems(item.face_boxes, item.face_box_valid, size):
                report("masks", clip_id, f"{name}: {message}")


def _raw_fits(item: EncodedClip) -> bool:
    if item.raw_identities is None:
        return True
    raw, unit = (
        rows[item.identity_valid] for rows in (item.raw_identities, item.identity_embeddings)
    )
    cosines = (raw * unit).sum(axis=1)
    return bool((cosines >= (1 - _UNIT_SLACK) * np.linalg.norm(raw, axis=1)).all())


def _layout_problems(file: pq.ParquetFile) -> Iterator[str]:
    metadata = file.metadata
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group)
        if rows.num_rows != 1:
            yield f"row group {group} holds {rows.num_rows} videos, not 1"
        kinds = {rows.column(column).compression for column in range(rows.num_columns)}
        if kinds != {"UNCOMPRESSED"}:
            yield f"row group {group} is compressed: {', '.join(sorted(kinds))}"


def _byte_problems(video: bytes, clip: Mapping[str, Any]) -> Iterator[str]:
    if len(video) != clip["media_bytes"]:
        yield f"{len(video)} bytes, not {clip['media_bytes']}"
    elif hashlib.sha256(video).hexdigest() != clip["media_sha256"]:
        yield "its bytes differ from the checksum of its clip"


def _decode_problems(
    video: bytes, clip: Mapping[str, Any], tracks: ClipTracks | None
) -> Iterator[str]:
    """Compare a video with its clip; our own bytes, so they are decoded in this process."""
    try:
        with av.open(io.BytesIO(video)) as container:
            frames = [(f.width, f.height, f.time) for f in container.decode(video=0)]
    except (FFmpegError, IndexError) as error:
        yield f"its video does not decode: {error}"
        return
    sizes = [frame[:2] for frame in frames]
    if len(sizes) != clip["num_frames"]:
        yield f"{clip['num_frames']} frames declared, {len(sizes)} decoded"
    else:
        yield from _time_problems(np.array([frame[2] for frame in frames]), clip, tracks)
    if len(set(sizes)) > 1:
        yield f"its frames have {len(set(sizes))} sizes"
    elif sizes and sizes[0] != (clip["width"], clip["height"]):
        yield f"{clip['width']}x{clip['height']} declared, {sizes[0][0]}x{sizes[0][1]} decoded"


def _time_problems(
    times_s: np.ndarray, clip: Mapping[str, Any], tracks: ClipTracks | None
) -> Iterator[str]:
    """Compare the frames' times with the clip's length and rate, and with those of its poses."""
    if len(times_s) == 0 or (np.diff(times_s) <= 0).any():
        yield "its frames are not in the order of time"
        return
    step_s = 1.0 / clip["fps"]
    length_s = float(times_s[-1] - times_s[0]) + step_s
    if abs(length_s - clip["duration_s"]) > step_s:
        yield f"{clip['duration_s']:.3f} s declared, its frames last {length_s:.3f} s"
    places = (times_s - times_s[0]) * clip["fps"]
    if not clip["is_variable_fps"] and np.abs(places - np.round(places)).max() > _STEP_SLACK:
        yield f"its frames do not lie on a grid of {clip['fps']:.6g} a second"
    if tracks is None or len(tracks.frame_index) != len(tracks.pts_s):
        return
    inside = tracks.frame_index < len(times_s)
    known = times_s[tracks.frame_index[inside]]
    if len(known) and np.abs(known - tracks.pts_s[inside]).max() > step_s / 2:
        yield "its poses have other times than their frames"


def _pose_problems(tracks: ClipTracks, clip: Mapping[str, Any]) -> Iterator[str]:
    index, count = tracks.frame_index, clip["num_frames"]
    if len(index) == 0:
        if clip["pose_state"] == "ok":
            yield "poses are said to be there, but there are none"
        return
    if len(index) != len(tracks.pts_s):
        yield f"{len(index)} poses with {len(tracks.pts_s)} times"
        return
    steps = np.diff(index)
    if (steps <= 0).any() or (np.diff(tracks.pts_s) <= 0).any():
        yield "poses are not in the order of time"
        return
    step = int(steps[0]) if len(steps) else max(1, count)
    expected = -(-count // step)
    if index[0] != 0 or (steps != step).any() or len(index) != expected:
        yield f"{len(index)} poses for {count} frames, expected {expected} (each {step}.)"
    if tracks.further_points is not None and not np.isfinite(tracks.further_points).all():
        yield "hands, face or feet are not finite"
    faces = tracks.face_frames
    if len(faces) and (faces.min() < 0 or faces.max() >= count):
        yield f"a face was seen in frame {faces.max()} of {count}"


def _face_problems(tracks: ClipTracks) -> Iterator[str]:
    lengths = {len(tracks.face_frames), len(tracks.face_valid), len(tracks.face_scores)}
    if len(lengths) != 1:
        yield f"faces, marks and scores differ in number: {sorted(lengths)}"
        return
    valid = tracks.face_valid
    if not valid.any():
        return
    norms = np.linalg.norm(tracks.identity_embeddings[valid], axis=1)
    if tracks.identity_embeddings.shape[1] == 0 or (norms < _UNIT_SLACK).any():
        yield "a face is marked valid, but its embedding is a zero vector"
    elif (np.abs(norms - 1.0) > _UNIT_SLACK).any():
        yield "a valid face's embedding is no unit vector"
    boxes = tracks.face_boxes[valid]
    extent = boxes[:, 2:] - boxes[:, :2]
    if not np.isfinite(boxes).all() or (extent <= 0).any():
        yield "a valid face's box is empty"


def _mask_problems(boxes: np.ndarray, valid: np.ndarray, size: Mapping[str, Any]) -> Iterator[str]:
    if not valid.any():
        return
    limits = np.array([size["width"], size["height"], size["width"], size["height"]])
    inside = np.clip(boxes[valid], 0, limits)
    shares = (inside[:, 2:] - inside[:, :2]).prod(axis=1) / (size["width"] * size["height"])
    if (shares >= _WHOLE_SHARE).any():
        yield "a face's box covers the whole picture"
