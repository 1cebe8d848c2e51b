"""Write a dataset of any number of clips at the metadata level, column by column.

Tables, ids, commits and checksums have the form that curation gives them; scores are drawn around
the limits of the shipped policies (`score_tables.TYPICAL`), keypoints are noise, and a video is a
few bytes, so that a million clips take minutes. Small files are merged at the end, as a run does.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from animaray.datasets.commit_log import CommitLog, CommittedFile
from animaray.datasets.compaction import merge_small_files
from animaray.datasets.schemas import FAMILIES, SCORES, schema_of
from animaray.datasets.shards import write_media_shard, write_table
from animaray.platform.storage import content_id
from benchmarks.scale.score_tables import TYPICAL

_FPS = 12.0
_NUM_KEYPOINTS = 18


@dataclass(frozen=True, kw_only=True, slots=True)
class ManyClips:
    """How large a dataset to write."""

    num_clips: int
    """Clips, all of readable inputs."""
    clips_per_source: int = 10
    """Clips of each input."""
    sources_per_commit: int = 100
    """Each commit adds a file to each table."""
    num_frames: int = 12
    """Frames, and poses, of each clip."""
    identity_dim: int = 16
    """Length of the identity embeddings."""
    with_media: bool = True
    """Whether there is a media table."""


def write_many_clips(root: Path | str, size: ManyClips) -> None:
    """Write sources, clips, tracks and media without verdicts, and merge the small files."""
    log = CommitLog(root)
    num_sources = -(-size.num_clips // size.clips_per_source)
    for start in range(0, num_sources, size.sources_per_commit):
        numbers = range(start, min(start + size.sources_per_commit, num_sources))
        digests = [hashlib.sha256(f"{number}".encode()).hexdigest() for number in numbers]
        sources = _sources(numbers, digests, size)
        clips = _clips(sources, np.random.default_rng(start), size)
        files = [_write(root, "sources", sources), _write(root, "tracks", _tracks(clips, size))]
        if size.with_media:
            clips |= _write_media(root, clips["clip_id"], files)
        files.append(_write(root, "clips", clips))
        facts = {"code": "benchmarks", "config": "many_clips", "profile": "generated"}
        log.commit(files, inputs=sources["input_id"], facts=facts)
    merge_small_files(root, min_files=2)


def _write(root: Path | str, table: str, columns: dict[str, Any]) -> CommittedFile:
    """Write columns as a file of a table, by id; what is not given is null."""
    schema = schema_of(table)
    count = len(next(iter(columns.values())))
    arrays = [
        pa.array(columns[field.name], type=field.type)
        if field.name in columns
        else pa.nulls(count, field.type)
        for field in schema
    ]
    rows = pa.table(arrays, schema=schema)
    key = "input_id" if table == "sources" else "clip_id"
    return write_table(root, table, rows.sort_by(key))


def _sources(numbers: range, digests: list[str], size: ManyClips) -> dict[str, Any]:
    count = len(numbers)
    names = [f"video_{number:07d}.mp4" for number in numbers]
    pairs = zip(names, digests, strict=True)
    return {
        "input_id": [content_id("input", name, digest) for name, digest in pairs],
        "source_id": [content_id("source", digest) for digest in digests],
        "uri": names, "file_name": names, "sha256": digests, "state": ["kept"] * count,
        "codec": ["h264"] * count, "fps": [_FPS] * count, "profile": ["generated"] * count,
        "duration_s": [size.clips_per_source * size.num_frames / _FPS] * count,
        "num_clips": [size.clips_per_source] * count, "policy": ["standard"] * count,
        "code": ["benchmarks"] * count, "config": ["many_clips"] * count,
    }  # fmt: skip


def _clips(sources: dict[str, Any], rng: np.random.Generator, size: ManyClips) -> dict[str, Any]:
    each, count = size.clips_per_source, len(sources["input_id"]) * size.clips_per_source
    starts_s = np.tile(np.arange(each) * size.num_frames / _FPS, count // each)
    lengths_s = np.full(count, size.num_frames / _FPS)
    starts_pts = np.round(starts_s * 90_000).astype(np.int64)
    ends_pts = np.round((starts_s + lengths_s) * 90_000).astype(np.int64)
    own = {
        name: np.repeat(np.array(sources[name]), each).tolist()
        for name in ("input_id", "source_id", "file_name", "sha256")
    }
    spans = zip(own.pop("sha256"), starts_pts.tolist(), ends_pts.tolist(), strict=True)
    scores: dict[str, Any] = {}
    for name, (median, spread) in TYPICAL.items():
        values = median * np.exp(spread * rng.standard_normal(count))
        scores[name] = np.minimum(values, 1.0) if "_share" in name else values
    identities = rng.standard_normal((count, size.identity_dim)).astype(np.float32)
    identities /= np.linalg.norm(identities, axis=1, keepdims=True)
    return {
        **own,
        **{name: scores[name] for names in SCORES.values() for name in names if name in scores},
        **{f"{family}_state": ["ok"] * count for family in FAMILIES},
        **{f"{family}_producer": ["drawn"] * count for family in FAMILIES},
        "clip_id": [content_id("clip", *span, "benchmark") for span in spans],
        "splitter": ["benchmark"] * count, "start_s": starts_s, "end_s": starts_s + lengths_s,
        "start_pts_90k": starts_pts, "end_pts_90k": ends_pts, "duration_s": lengths_s,
        "width": np.full(count, 720), "height": np.full(count, 1280), "fps": np.full(count, _FPS),
        "num_frames": np.full(count, size.num_frames), "is_variable_fps": np.zeros(count, bool),
        "face_num_sampled": np.full(count, 4),
        "picture_short_side_px": rng.choice([240, 480, 720, 1080], count),
        "pose_framing": rng.choice(["full", "half", "close"], count).tolist(),
        "identity_embedding": list(identities),
    }  # fmt: skip


def _tracks(clips: dict[str, Any], size: ManyClips) -> dict[str, Any]:
    count, frames = len(clips["clip_id"]), size.num_frames
    rng = np.random.default_rng(count)
    times_s, index = np.arange(frames) / _FPS, np.arange(frames)
    shape = (count, frames * _NUM_KEYPOINTS)
    faces = max(1, frames // 6)
    identities = np.repeat(np.stack(clips["identity_embedding"]), faces, axis=0)
    per_face = {
        "face_frames": index[::6][:faces], "face_boxes": [200.0, 100.0, 400.0, 300.0] * faces,
        "face_landmarks": [250.0] * 10 * faces, "face_scores": [0.9] * faces,
        "face_valid": [True] * faces, "face_count": [1] * faces,
    }  # fmt: skip
    return {
        "clip_id": clips["clip_id"], "pose_layout": ["openpose_18"] * count,
        "pts_s": [times_s] * count, "frame_index": [index] * count,
        "keypoints": list(rng.uniform(0, 1280, (count, 2 * shape[1])).astype(np.float32)),
        "keypoint_confidence": list(rng.uniform(0.2, 1.0, shape).astype(np.float32)),
        "num_persons": [np.ones(frames, np.int64)] * count,
        **{name: [np.array(value)] * count for name, value in per_face.items()},
        "identity_embeddings": list(identities.reshape(count, -1)),
        "identity_dim": [size.identity_dim] * count,
    }  # fmt: skip


def _write_media(
    root: Path | str, clip_ids: list[str], files: list[CommittedFile]
) -> dict[str, list[Any]]:
    """Write a few bytes as the video of each clip; return what the clips table says of them."""
    videos = {clip_id: f"video of {clip_id}".encode() for clip_id in clip_ids}
    file, groups = write_media_shard(root, videos)
    files.append(file)
    return {
        "media_file": [file.path] * len(clip_ids),
        "media_row_group": [groups[clip_id] for clip_id in clip_ids],
        "media_bytes": [len(videos[clip_id]) for clip_id in clip_ids],
        "media_sha256": [hashlib.sha256(videos[clip_id]).hexdigest() for clip_id in clip_ids],
    }
