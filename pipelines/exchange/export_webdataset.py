"""Export kept clips as WebDataset: tar files that stream from anywhere.

    shard-000000.tar    <clip_id>.mp4, <clip_id>.json, <clip_id>.pose.npy, <clip_id>.jpg, ...

The part before the first dot is the key, the rest names the column. Equal datasets give equal
bytes: no times, owners or random order. `pose.npy` is float32, poses x 18 x (x, y, confidence);
`further.npy` holds 116 more of each pose (feet, face, hands) where curation looked for them.
"""

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from animaray.datasets.reader import CurationDataset
from animaray.platform.disk import check_room
from animaray.platform.errors import DatasetError
from animaray.platform.json_text import json_text
from animaray.platform.storage import write_bytes_atomic, write_json_atomic

_OTHER_BYTES = 512 * 1024
"""Of a clip besides its video: poster, facts, poses, identity."""


def export_webdataset(
    root: str | Path,
    out: Path,
    *,
    policy: str = "standard",
    shard_bytes: int = 256 * 1024**2,
    advance: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Write the kept clips of a dataset; return (and store as index.json) what each shard holds.

    Args:
        out: Folder to write; must be empty or missing.
        shard_bytes: Begin a new shard before it would grow beyond this.
        advance: Told each clip that is complete.

    Raises:
        DatasetError: The folder is not empty.
    """
    dataset = CurationDataset.open(root)
    clip_ids = dataset.kept_clips(policy)
    if out.is_dir() and any(out.iterdir()):
        raise DatasetError(f"{out} is not empty.", fix="Choose another folder.", reason="conflict")
    media = sum(dataset.clip(clip_id)["media_bytes"] or 0 for clip_id in clip_ids)
    check_room(out, media + len(clip_ids) * _OTHER_BYTES, "The export")
    out.mkdir(parents=True, exist_ok=True)
    verdicts = {row["clip_id"]: row for row in dataset.verdicts(policy)}
    shards: list[dict[str, Any]] = []
    pending: list[tuple[str, dict[str, bytes]]] = []
    size = 0
    for clip_id in clip_ids:
        parts = dict(_parts(dataset, clip_id, verdicts[clip_id]))
        own = sum(len(data) + 1024 for data in parts.values())
        if pending and size + own > shard_bytes:
            shards.append(_write_shard(out, len(shards), pending))
            pending, size = [], 0
        pending.append((clip_id, parts))
        size += own
        advance(clip_id)
    shards.append(_write_shard(out, len(shards), pending))
    index = {
        "version": dataset.snapshot.version, "policy": policy, "num_clips": len(clip_ids),
        "shards": shards,
    }  # fmt: skip
    write_json_atomic(out / "index.json", index)
    return index


def _parts(
    dataset: CurationDataset, clip_id: str, verdict: dict[str, Any]
) -> Iterator[tuple[str, bytes]]:
    clip = dataset.clip(clip_id)
    embedding = clip.pop("identity_embedding")
    clip["reasons"] = verdict["reasons"]
    tracks = dataset.tracks(clip_id)
    facts = {
        **clip,
        "pose_pts_s": tracks.pts_s.tolist(),
        "pose_frame_index": tracks.frame_index.tolist(),
        "face_frames": tracks.face_frames.tolist(),
        "face_valid": tracks.face_valid.tolist(),
        "face_boxes": tracks.face_boxes.tolist(),
    }
    yield "mp4", dataset.media_bytes(clip_id)
    yield "jpg", dataset.preview(clip_id)["poster"]
    yield "json", json_text(facts, sort_keys=True).encode()
    pose = np.concatenate([tracks.keypoints, tracks.keypoint_confidence[..., None]], axis=-1)
    yield "pose.npy", _npy(pose.astype(np.float32))
    if tracks.further_points is not None:
        yield "further.npy", _npy(tracks.further_points)
    if embedding is not None:
        yield "identity.npy", _npy(np.asarray(embedding, dtype=np.float32))


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _write_shard(
    out: Path, number: int, clips: list[tuple[str, dict[str, bytes]]]
) -> dict[str, Any]:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for clip_id, parts in clips:
            for column, data in parts.items():
                entry = tarfile.TarInfo(f"{clip_id}.{column}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    name = f"shard-{number:06d}.tar"
    write_bytes_atomic(out / name, buffer.getvalue())
    return {"file": name, "num_clips": len(clips), "size_bytes": len(buffer.getvalue())}
