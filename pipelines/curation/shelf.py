"""Shelve measured clips: judge them, write their videos, tracks and previews, hand back facts.

Runs where the clips were measured, so that no video travels. Nothing of it counts before the
driver commits the files; what no commit names is swept by the next run.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from animaray.datasets.commit_log import CommittedFile
from animaray.datasets.shards import write_media_shard, write_shard
from animaray.models.pose.further_points import layout_of
from animaray.pipelines.curation.rows import Row
from animaray.pipelines.curation.workplace import Workplace
from animaray.pipelines.policy.policies import Policy
from animaray.pipelines.policy.rules import Verdict
from animaray.pipelines.policy.verdicts import add_verdicts, verdict_row
from animaray.pipelines.stages.faces import FaceTracks
from animaray.pipelines.stages.pose import PoseTracks

MAX_MEDIA_FILE_BYTES = 256 * 1024**2
"""Of videos in one file of the media table; also what a worker holds of them in memory."""
_POSE_COLUMNS = ("pts_s", "frame_index", "keypoints", "keypoint_confidence", "num_persons")
_FACE_COLUMNS = {
    "face_frames": "frame_index", "face_boxes": "boxes", "face_landmarks": "landmarks",
    "face_scores": "scores", "face_valid": "valid", "face_count": "count",
    "face_yaw_deg": "yaw_deg", "face_pitch_deg": "pitch_deg", "face_sharpness": "sharpness",
    "identity_embeddings": "embeddings",
}  # fmt: skip
"""Columns of the tracks table by what `FaceTracks` calls them."""
_STAGED = ("media_path", "preview_path", "poster_path")


def shelve(clips: Sequence[Row], place: Workplace) -> list[Row]:
    """Judge clips and write their files, several clips a file.

    Args:
        clips: Measured together; each has ended or was looked at.

    Returns:
        Their rows as `rows.SHELVED` has them; the first one names the files.
    """
    policies = place.policies
    judged = [add_verdicts(clip, policies, place.config.store_media) for clip in clips]
    files, places = _write_media(judged, place)
    tracks = [row for clip in judged if (row := _tracks_row(clip)) is not None]
    previews = [_preview_row(clip, policies[0].name) for clip in judged if clip.get("preview_path")]
    files += [
        write_shard(place.address, table, rows, token=place.token)
        for table, rows in (("tracks", tracks), ("preview", previews))
        if rows
    ]
    for clip in judged:
        for name in _STAGED:
            if clip.get(name):
                Path(clip[name]).unlink(missing_ok=True)
    rows = [_facts(clip, policies, places.get(clip["clip_id"], {})) for clip in judged]
    rows[0]["files"] = [asdict(file) for file in files]
    return rows


def _write_media(
    judged: Sequence[Row], place: Workplace
) -> tuple[list[CommittedFile], dict[str, dict[str, Any]]]:
    """Write videos, a bounded number of bytes per file and in memory at a time."""
    stored = {clip["clip_id"]: Path(clip["media_path"]) for clip in judged if clip["stores_media"]}
    files: list[CommittedFile] = []
    places: dict[str, dict[str, Any]] = {}
    for part in _parts(stored, MAX_MEDIA_FILE_BYTES):
        videos = {clip_id: path.read_bytes() for clip_id, path in part.items()}
        media, groups = write_media_shard(place.address, videos, token=place.token)
        files.append(media)
        places |= {
            clip_id: {
                "media_file": media.path,
                "media_row_group": groups[clip_id],
                "media_bytes": len(video),
                "media_sha256": hashlib.sha256(video).hexdigest(),
            }
            for clip_id, video in videos.items()
        }
    return files, places


def _parts(files: Mapping[str, Path], max_bytes: int) -> list[dict[str, Path]]:
    """Split files, in the order of their ids, into parts of at most so many bytes or one file."""
    parts: list[dict[str, Path]] = []
    room = 0
    for clip_id in sorted(files):
        size = files[clip_id].stat().st_size
        if not parts or size > room:
            parts.append({})
            room = max_bytes
        parts[-1][clip_id] = files[clip_id]
        room -= size
    return parts


def _facts(clip: Row, policies: Sequence[Policy], place: Mapping[str, Any]) -> Row:
    """Return what the driver is told of a clip."""
    return {
        "clip_id": clip["clip_id"],
        "input_id": clip["input_id"],
        "source_id": clip["source_id"],
        "file_name": clip["file_name"],
        "start_s": clip["clip_start_s"],
        "end_s": clip["clip_end_s"],
        "start_pts_90k": clip["start_pts_90k"],
        "end_pts_90k": clip["end_pts_90k"],
        "duration_s": clip.get("clip_duration_s"),
        "width": clip.get("clip_width"),
        "height": clip.get("clip_height"),
        "fps": clip.get("clip_fps"),
        "num_frames": clip.get("clip_num_frames"),
        "is_variable_fps": clip.get("is_variable_fps"),
        "splitter": clip["splitter"],
        **clip["scores"],
        "identity_embedding": clip.get("identity_embedding"),
        **place,
        **{name: clip[name] for name in ("state", "reason", "detail", "seconds")},
        "verdicts": [
            verdict_row(clip["clip_id"], clip["source_id"], policy, clip["verdicts"][policy.name])
            for policy in policies
        ],
    }


def _preview_row(clip: Row, policy: str) -> dict[str, Any]:
    verdict: Verdict = clip["verdicts"][policy]
    poster, video = Path(clip["poster_path"]), Path(clip["preview_path"])
    return {
        "clip_id": clip["clip_id"],
        "file_name": clip["file_name"],
        "start_s": clip["clip_start_s"],
        "end_s": clip["clip_end_s"],
        "poster": {"bytes": poster.read_bytes(), "path": f"{clip['clip_id']}.jpg"},
        "video": {"bytes": video.read_bytes(), "path": f"{clip['clip_id']}.mp4"},
        "verdict": verdict.state,
        "reasons": "; ".join(verdict.reasons),
    }


def _tracks_row(clip: Row) -> dict[str, Any] | None:
    """Return the clip's tracks, or None when not even faces were looked for."""
    faces: FaceTracks | None = clip.get("face_tracks")
    poses: PoseTracks | None = clip.get("pose_tracks")
    if faces is None and poses is None:
        return None
    row: dict[str, Any] = {
        "clip_id": clip["clip_id"],
        **{name: _flat(poses, name) for name in _POSE_COLUMNS},
        **{name: _flat(faces, source) for name, source in _FACE_COLUMNS.items()},
        "pose_layout": layout_of(None if poses is None else poses.further_points),
        "identity_dim": 0 if faces is None else faces.embeddings.shape[1],
    }
    if poses is not None and poses.further_points is not None:
        row["further_points"] = _flat(poses, "further_points")
    path = clip.get("camera_path")
    if path is not None:
        linear = path.transforms[:, :, :2]
        row |= {
            "camera_pts_s": (path.pts_s - path.pts_s[0]).tolist(),
            "camera_scale": np.sqrt(np.abs(np.linalg.det(linear))).tolist(),
            "camera_roll_rad": np.arctan2(linear[:, 1, 0], linear[:, 0, 0]).tolist(),
            "camera_shift": (path.transforms[:, :, 2] / min(path.size)).ravel().tolist(),
            "camera_inlier_share": path.inlier_share.tolist(),
            "camera_num_points": path.num_points.tolist(),
        }
    return row


def _flat(tracks: PoseTracks | FaceTracks | None, name: str) -> list[Any]:
    """Return an array of tracks as a column holds it; nothing where they were not looked for."""
    values: list[Any] = [] if tracks is None else getattr(tracks, name).ravel().tolist()
    return values
