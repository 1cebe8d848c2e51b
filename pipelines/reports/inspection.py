"""Look into a dataset: its tables, commits and policies; or all that is stored of one clip."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from animaray.datasets.commit_log import CommitLog
from animaray.datasets.reader import CurationDataset
from animaray.models.pose.further_points import layout_of
from animaray.pipelines.policy.policies import policy_fingerprint
from animaray.pipelines.policy.verdicts import applied_policy
from animaray.platform.errors import DatasetError


def inspect_dataset(root: Path | str) -> dict[str, Any]:
    """Return what a dataset holds: tables, inputs by state, policies, lineage.

    Args:
        root: Dataset folder.

    Raises:
        DatasetError: There is no dataset.
    """
    dataset = CurationDataset.open(root)
    tables: dict[str, dict[str, int]] = {}
    for file in dataset.snapshot.files:
        entry = tables.setdefault(file.table, {"files": 0, "rows": 0, "bytes": 0})
        entry["files"] += 1
        entry["rows"] += file.rows
        entry["bytes"] += file.size_bytes
    clips, sources = dataset.clips(), dataset.sources()
    seconds = {clip["clip_id"]: clip["duration_s"] or 0.0 for clip in clips}
    policies = {}
    for name in dataset.policies():
        kept = [row["clip_id"] for row in dataset.verdicts(name) if row["keep"]]
        hours = sum(seconds[clip_id] for clip_id in kept) / 3600
        policies[name] = {
            "fingerprint": policy_fingerprint(applied_policy(dataset, name)),
            "kept_clips": len(kept),
            "kept_hours": hours,
        }
    commits = CommitLog(dataset.root).commits(dataset.snapshot.version)
    return {
        "dataset": str(root),
        "version": dataset.snapshot.version,
        "commits": dict(Counter(entry.kind for entry in commits)),
        "tables": tables,
        "sources_by_state": dict(Counter(row["state"] for row in sources).most_common()),
        "num_clips": len(clips),
        "hours": sum(seconds.values()) / 3600,
        "policies": policies,
        "profiles": sorted({row["profile"] for row in sources if row["profile"]}),
        "code": sorted({row["code"] for row in sources if row["code"]}),
        "configs": sorted({row["config"] for row in sources if row["config"]}),
        "withdrawn": sorted(dataset.snapshot.withdrawn),
    }


def inspect_clip(root: Path | str, clip_id: str) -> dict[str, Any]:
    """Return all that is stored of one clip: facts, verdicts, video, poses and faces.

    Args:
        root: Dataset folder.
        clip_id: Its id.

    Raises:
        DatasetError: There is no dataset, or no such clip.
    """
    dataset = CurationDataset.open(root)
    clip = dataset.clip(clip_id)
    embedding = clip.pop("identity_embedding")
    verdicts = {
        name: row
        for name in dataset.policies()
        for row in dataset.verdicts(name)
        if row["clip_id"] == clip_id
    }
    tracks = None
    if clip_id in dataset.large_table_ids("tracks"):
        found = dataset.tracks(clip_id)
        confidence = found.keypoint_confidence
        tracks = {
            "poses": len(found.pts_s),
            "pose_layout": layout_of(found.further_points),
            "mean_keypoint_confidence": float(confidence.mean()) if confidence.size else None,
            "visible_keypoints": np.round((confidence > 0.3).sum(axis=1)).astype(int).tolist(),
            "faces_sampled": len(found.face_frames),
            "faces_valid": int(found.face_valid.sum()),
            "camera": dataset.camera_path(clip_id),
        }
    return {
        "clip": clip,
        "identity_dim": 0 if embedding is None else len(embedding),
        "verdicts": {
            name: {key: row[key] for key in ("state", "keep", "reasons", "flags")}
            for name, row in verdicts.items()
        },
        "video_bytes": clip["media_bytes"],
        "tracks": tracks,
    }


def extract_clip(root: Path | str, clip_id: str, folder: Path) -> list[Path]:
    """Write the stored video, preview and poster of a clip into a folder; return the files.

    Args:
        root: Dataset folder.
        clip_id: Its id.
        folder: Made when missing.

    Raises:
        DatasetError: There is no dataset or no such clip, or nothing of it was stored.
    """
    dataset = CurationDataset.open(root)
    clip = dataset.clip(clip_id)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    if clip["media_file"] is not None:
        path = folder / f"{clip_id}.mp4"
        path.write_bytes(dataset.media_bytes(clip_id))
        written.append(path)
    if clip_id in dataset.large_table_ids("preview"):
        preview = dataset.preview(clip_id)
        for name, data in (("jpg", preview["poster"]), ("preview.mp4", preview["video"])):
            path = folder / f"{clip_id}.{name}"
            path.write_bytes(data)
            written.append(path)
    if not written:
        raise DatasetError(
            f"Neither video nor preview of clip {clip_id} was stored.", reason="no_media"
        )
    return written
