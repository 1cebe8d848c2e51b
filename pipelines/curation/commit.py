"""Turn finished rows into table rows and commit them, all tables of a batch at once."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from animaray.datasets.commit_log import CommitLog, CommittedFile
from animaray.datasets.shards import write_media_shard, write_shard
from animaray.datasets.writers import writing
from animaray.models.pose.further_points import layout_of
from animaray.pipelines.curation.config import CurationConfig
from animaray.pipelines.curation.stage_runner import Row
from animaray.pipelines.policy.policies import POLICIES, find_policy, policy_fingerprint
from animaray.pipelines.policy.rules import Verdict
from animaray.pipelines.policy.verdicts import add_verdicts, verdict_row
from animaray.pipelines.stages.faces import FaceTracks
from animaray.pipelines.stages.pose import PoseTracks
from animaray.platform.config import config_to_dict, fingerprint

_SOURCE_COLUMNS = (
    "input_id", "source_id", "uri", "file_name", "file_bytes", "modified_ns", "sha256",
    "codec", "width", "height", "fps", "duration_s", "start_s", "num_frames", "rotation_deg",
    "pixel_aspect", "has_audio", "warning", "num_damaged_frames", "cut_times_s", "hashes",
    "motion_signature", "origin", "platform", "attempts", "fetched_at", "downloader", "format_id",
    "uploader_hash", "upload_date", "licence_claimed",
)  # fmt: skip
MAX_MEDIA_FILE_BYTES = 256 * 1024**2
"""Of videos in one file of the media table; also what a commit holds of them in memory."""
_POSE_COLUMNS = ("pts_s", "frame_index", "keypoints", "keypoint_confidence", "num_persons")
_FACE_COLUMNS = {
    "face_frames": "frame_index", "face_boxes": "boxes", "face_landmarks": "landmarks",
    "face_scores": "scores", "face_valid": "valid", "face_count": "count",
    "face_yaw_deg": "yaw_deg", "face_pitch_deg": "pitch_deg", "face_sharpness": "sharpness",
    "identity_embeddings": "embeddings",
}  # fmt: skip
"""Columns of the tracks table by what `FaceTracks` calls them."""
_STAGED = ("media_path", "preview_path", "poster_path")


class BatchCommitter:
    """Commit finished sources of one curation run."""

    def __init__(self, config: CurationConfig) -> None:
        self._config = config
        self._root = config.output_dir
        self._log = CommitLog(config.output_dir)
        first = find_policy(config.policy)
        self._policies = [first, *(p for p in POLICIES.values() if p.name != first.name)]
        self._code = f"animaray {version('animaray')}"
        self._fingerprint = fingerprint(config)

    def commit(
        self, sources: Mapping[str, Row], clips: Sequence[Row]
    ) -> tuple[list[Row], list[Row]]:
        """Write and commit sources with all their clips.

        Args:
            sources: Row of each source by input_id; its state is None when its clips decide.
            clips: Rows of all clips of these sources; a row without a clip only ends its source.

        Returns:
            What the sources table now says of them, and the judged clips.
        """
        judged = [
            add_verdicts(clip, self._policies, self._config.store_media)
            for clip in clips
            if clip["clip_id"] is not None
        ]
        endings = {clip["input_id"]: clip for clip in clips if clip["clip_id"] is None}
        source_rows = []
        for input_id, source in sources.items():
            own = [clip for clip in judged if clip["input_id"] == input_id]
            source_rows.append(self._source_row(endings.get(input_id, source), source, own))
        with writing(self._root):
            self._write(source_rows, judged)
        for clip in judged:
            for name in _STAGED:
                if clip.get(name):
                    Path(clip[name]).unlink(missing_ok=True)
        return source_rows, judged

    def _write(self, sources: Sequence[Mapping[str, Any]], judged: Sequence[Row]) -> None:
        files = [write_shard(self._root, "sources", sources)]
        if judged:
            files += self._write_clips(judged)
        facts = {
            "code": self._code,
            "config": self._fingerprint,
            "profile": self._config.profile,
            "policy": config_to_dict(self._policies[0]),
            "policies": {policy.name: policy_fingerprint(policy) for policy in self._policies},
        }
        self._log.commit(files, inputs=sorted(row["input_id"] for row in sources), facts=facts)

    def _write_clips(self, judged: Sequence[Row]) -> list[CommittedFile]:
        files, places = self._write_media(judged)
        clips = [{**_clip_row(clip), **places.get(clip["clip_id"], {})} for clip in judged]
        files.append(write_shard(self._root, "clips", clips))
        tracks = [row for clip in judged if (row := _tracks_row(clip)) is not None]
        previews = [
            _preview_row(clip, self._policies[0].name)
            for clip in judged
            if clip.get("preview_path")
        ]
        if tracks:
            files.append(write_shard(self._root, "tracks", tracks))
        if previews:
            files.append(write_shard(self._root, "preview", previews))
        for policy in self._policies:
            rows = [
                verdict_row(
                    clip["clip_id"], clip["source_id"], policy, clip["verdicts"][policy.name]
                )
                for clip in judged
            ]
            folder = f"verdicts/{policy.name}"
            files.append(write_shard(self._root, "verdicts", rows, folder=folder))
        return files

    def _write_media(
        self, judged: Sequence[Row]
    ) -> tuple[list[CommittedFile], dict[str, dict[str, Any]]]:
        """Write videos, a bounded number of bytes per file and in memory at a time."""
        stored = {
            clip["clip_id"]: Path(clip["media_path"]) for clip in judged if clip["stores_media"]
        }
        files: list[CommittedFile] = []
        places: dict[str, dict[str, Any]] = {}
        for part in _parts(stored, MAX_MEDIA_FILE_BYTES):
            videos = {clip_id: path.read_bytes() for clip_id, path in part.items()}
            media, groups = write_media_shard(self._root, videos)
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

    def _source_row(self, ending: Row, source: Row, clips: Sequence[Row]) -> dict[str, Any]:
        if ending["state"] is not None:
            state = {name: ending[name] for name in ("state", "reason", "detail")}
        else:
            state = source_state([clip["verdicts"][self._policies[0].name] for clip in clips])
        return {
            **{name: source.get(name) for name in _SOURCE_COLUMNS},
            **state,
            "duplicate_of": source.get("duplicate_of"),
            "num_clips": len(clips),
            "profile": self._config.profile,
            "policy": self._policies[0].name,
            "code": self._code,
            "config": self._fingerprint,
        }


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


def source_state(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return the final state of a source from what a policy says about its clips."""
    kept = sum(verdict.keep for verdict in verdicts)
    state = state_of_clips([verdict.state for verdict in verdicts])
    if kept:
        return {"state": state, "reason": None, "detail": f"{kept} of {len(verdicts)} clips kept"}
    codes = Counter(code for verdict in verdicts for code in verdict.codes)
    return {
        "state": state,
        "reason": codes.most_common(1)[0][0] if codes else None,
        "detail": "; ".join(
            dict.fromkeys(text for verdict in verdicts for text in verdict.reasons)
        ),
    }


def state_of_clips(states: Sequence[str]) -> str:
    """Return the final state of a source from the verdict states of its clips."""
    if "keep" in states:
        return "kept"
    return "failed" if states and all(state == "failed" for state in states) else "dropped"


def _clip_row(clip: Row) -> dict[str, Any]:
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
