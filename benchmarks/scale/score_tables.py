"""Write a dataset whose scores are drawn, not measured: for tests and measurements at any size.

Tables, ids, commits and (where asked) videos have the form that curation gives them; the scores are
random around the limits of the shipped policies, so that every rule bites somewhere.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from animaray.datasets.commit_log import CommitLog, CommittedFile
from animaray.datasets.schemas import FAMILIES, SCORES
from animaray.datasets.shards import write_media_shard, write_shard
from animaray.datasets.writers import writing
from animaray.platform.media.video import encode_jpeg, encode_mp4
from animaray.platform.storage import content_id

_FPS = 12.0
TYPICAL: Mapping[str, tuple[float, float]] = {
    "picture_luminance_p5": (20.0, 0.6), "picture_luminance_p95": (200.0, 0.3),
    "picture_sharpness": (150.0, 0.9), "picture_flat_share": (0.02, 1.0),
    "picture_damaged_share": (0.01, 1.0), "picture_combed_share": (0.01, 0.8),
    "picture_frame_rate_fps": (25.0, 0.2), "face_found_share": (0.95, 0.08),
    "face_confidence": (0.8, 0.1), "face_size_px": (70.0, 0.6), "face_size_share": (0.16, 0.5),
    "face_sharpness": (300.0, 0.8), "face_frontal_share": (0.9, 0.12),
    "face_single_share": (0.97, 0.05), "face_complete_share": (0.97, 0.05),
    "face_identity_p25": (0.55, 0.3), "face_embedding_norm": (20.0, 0.2),
    "face_num_sampled": (4.0, 0.0), "pose_coverage": (15.0, 0.2),
    "pose_missing_share_literal": (0.02, 1.0), "pose_missing_share_strict": (0.1, 1.2),
    "pose_single_share": (0.95, 0.06), "pose_found_share": (0.97, 0.03), "pose_jitter": (0.2, 0.5),
    "camera_drift": (0.01, 1.0), "camera_jump": (0.005, 1.0), "camera_jitter": (0.003, 1.0),
    "camera_log_zoom": (0.008, 1.0), "camera_roll_deg": (0.4, 1.0),
    "camera_inlier_share": (0.9, 0.1), "camera_num_points": (120.0, 0.8),
    "camera_evidence_share": (0.98, 0.03), "camera_look": (0.02, 0.9),
    "camera_background_share": (0.4, 0.4), "camera_still_change": (0.02, 0.8),
    "motion_speed": (0.1, 1.2), "motion_change": (0.04, 0.9), "text_share": (0.01, 1.0),
    "text_found_share": (0.3, 0.5), "text_scene_share": (0.01, 1.0),
}  # fmt: skip
"""Median and spread (of the logarithm) of each drawn score."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreTables:
    """How large a dataset to write."""

    num_sources: int = 8
    """Inputs; all are readable and give clips."""
    clips_per_source: int = 1
    """Clips of each."""
    sources_per_commit: int = 4
    """As in a curation run; each commit adds a file to each table."""
    num_identities: int = 4
    """People; source i shows person i modulo this."""
    identity_dim: int = 16
    """Length of the identity embeddings."""
    num_frames: int = 12
    """Frames of each clip, at 12 a second."""
    size_px: tuple[int, int] = (64, 96)
    """Width and height of the videos."""
    with_media: bool = False
    """Whether videos, previews and tracks are written, too."""
    seed: int = 0
    """Same seed, same dataset."""


def write_score_dataset(address: str | Path, tables: ScoreTables) -> Path:
    """Write sources and clips (and media, preview, tracks) without verdicts.

    Returns:
        The address, as a path: of use for a local folder.
    """
    with writing(address) as writer:
        log = CommitLog(address, writer)
        for start in range(0, tables.num_sources, tables.sources_per_commit):
            numbers = range(start, min(start + tables.sources_per_commit, tables.num_sources))
            sources = [draw_source(number, tables) for number in numbers]
            files = _write_sources(address, numbers, sources, tables, writer.token)
            facts = {
                "code": "animaray.datasets.world",
                "config": str(tables.seed),
                "profile": "generated",
            }
            log.commit(files, inputs=[source["input_id"] for source in sources], facts=facts)
    return Path(address)


def _write_sources(
    address: str | Path,
    numbers: range,
    sources: Sequence[Mapping[str, Any]],
    tables: ScoreTables,
    token: str,
) -> list[CommittedFile]:
    """Write all files of one commit."""
    clips = [
        draw_clip(number, index, source, tables)
        for number, source in zip(numbers, sources, strict=True)
        for index in range(tables.clips_per_source)
    ]
    files = [write_shard(address, "sources", sources, token=token)]
    if tables.with_media:
        videos = {clip["clip_id"]: _video(clip, tables) for clip in clips}
        media, groups = write_media_shard(address, videos, token=token)
        tracks = [_tracks(clip, tables) for clip in clips]
        previews = [_preview(clip, videos[clip["clip_id"]]) for clip in clips]
        files += [
            media,
            write_shard(address, "tracks", tracks, token=token),
            write_shard(address, "preview", previews, token=token),
        ]
        for clip in clips:
            video = videos[clip["clip_id"]]
            clip |= {
                "media_file": media.path, "media_row_group": groups[clip["clip_id"]],
                "media_bytes": len(video), "media_sha256": hashlib.sha256(video).hexdigest(),
            }  # fmt: skip
    return [*files, write_shard(address, "clips", clips, token=token)]


def draw_source(number: int, tables: ScoreTables) -> dict[str, Any]:
    """Return one row of the sources table."""
    name = f"video_{number:05d}.mp4"
    digest = hashlib.sha256(f"{tables.seed} {number}".encode()).hexdigest()
    rng = np.random.default_rng([tables.seed, number, 1])
    duration_s = tables.clips_per_source * tables.num_frames / _FPS
    width, height = tables.size_px
    return {
        "input_id": content_id("input", name, digest), "source_id": content_id("source", digest),
        "uri": name, "file_name": name, "file_bytes": 1000 + number, "modified_ns": number,
        "sha256": digest, "state": "kept", "reason": None, "detail": "", "codec": "h264",
        "width": width, "height": height, "fps": _FPS, "duration_s": duration_s, "start_s": 0.0,
        "num_frames": tables.clips_per_source * tables.num_frames, "rotation_deg": 0,
        "pixel_aspect": 1.0, "has_audio": False, "num_damaged_frames": 0, "cut_times_s": [],
        "num_clips": tables.clips_per_source,
        "hashes": rng.integers(-(2**63), 2**63 - 1, max(1, round(duration_s))).tolist(),
        "motion_signature": rng.bytes(128), "profile": "generated", "policy": "standard",
        "code": "animaray.datasets.world", "config": str(tables.seed),
    }  # fmt: skip


def draw_clip(
    number: int, index: int, source: Mapping[str, Any], tables: ScoreTables
) -> dict[str, Any]:
    """Return one row of the clips table: clip `index` of source `number`."""
    rng = np.random.default_rng([tables.seed, number, index, 2])
    start_s = index * tables.num_frames / _FPS
    end_s = start_s + tables.num_frames / _FPS
    start_pts, end_pts = round(start_s * 90_000), round(end_s * 90_000)
    scores: dict[str, Any] = {}
    for name, (median, spread) in TYPICAL.items():
        value = median * float(np.exp(spread * rng.standard_normal()))
        scores[name] = min(value, 1.0) if "_share" in name or name.endswith("_p10") else value
    scores["face_num_sampled"] = 4
    scores["picture_short_side_px"] = int(rng.choice([240, 480, 720, 1080]))
    scores["pose_framing"] = str(rng.choice(["full", "half", "close"]))
    if rng.random() < 0.7:  # most clips have no text at all
        scores |= {
            "text_share": 0.0,
            "text_found_share": 0.0,
            "text_place": None,
            "text_boxes": None,
        }
    else:
        scores |= {"text_place": "bottom", "text_boxes": [0.2, 0.85, 0.8, 0.95]}
    identity = _identity(number, tables)
    return {
        "clip_id": content_id("clip", source["sha256"], start_pts, end_pts, "world"),
        "input_id": source["input_id"], "source_id": source["source_id"],
        "file_name": source["file_name"], "start_s": start_s, "end_s": end_s,
        "start_pts_90k": start_pts, "end_pts_90k": end_pts, "duration_s": end_s - start_s,
        "width": tables.size_px[0], "height": tables.size_px[1], "fps": _FPS,
        "num_frames": tables.num_frames, "is_variable_fps": False, "splitter": "world",
        **{name: scores[name] for family in SCORES.values() for name in family},
        **{f"{family}_state": "ok" for family in FAMILIES},
        **{f"{family}_producer": "drawn" for family in FAMILIES},
        "identity_embedding": identity.tolist(),
    }  # fmt: skip


def _identity(number: int, tables: ScoreTables) -> np.ndarray:
    rng = np.random.default_rng([tables.seed, number % tables.num_identities, 3])
    person = rng.standard_normal(tables.identity_dim)
    own = np.random.default_rng([tables.seed, number, 4]).standard_normal(tables.identity_dim)
    vector = person + 0.15 * own
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def _video(clip: Mapping[str, Any], tables: ScoreTables) -> bytes:
    rng = np.random.default_rng(int(clip["clip_id"][:8], 16))
    width, height = tables.size_px
    room = cv2.resize(rng.integers(40, 216, (6, 4, 3), dtype=np.uint8), (width, height))
    frames = np.repeat(room[None], tables.num_frames, axis=0)
    for index in range(tables.num_frames):
        left = 4 + 2 * index % (width // 2)
        frames[index, height // 3 : height // 2, left : left + width // 4] = 250
    return encode_mp4(frames, _FPS, crf=23)


def _preview(clip: Mapping[str, Any], video: bytes) -> dict[str, Any]:
    colour = [int(clip["clip_id"][place : place + 2], 16) for place in (0, 2, 4)]
    poster = np.full((48, 32, 3), colour, dtype=np.uint8)
    return {
        "clip_id": clip["clip_id"], "file_name": clip["file_name"], "start_s": clip["start_s"],
        "end_s": clip["end_s"],
        "poster": {"bytes": encode_jpeg(poster), "path": f"{clip['clip_id']}.jpg"},
        "video": {"bytes": video, "path": f"{clip['clip_id']}.mp4"},
        "verdict": "keep", "reasons": "",
    }  # fmt: skip


def _tracks(clip: Mapping[str, Any], tables: ScoreTables) -> dict[str, Any]:
    rng = np.random.default_rng([tables.seed, int(clip["clip_id"][:8], 16), 5])
    count, (width, height) = tables.num_frames, tables.size_px
    body = rng.uniform(0.2, 0.8, (18, 2)) * (width, height)
    keypoints = body[None] + np.cumsum(rng.normal(0.0, 0.5, (count, 18, 2)), axis=0)
    faces = list(range(0, count, 6))
    left, top = 0.4 * width, 0.1 * height
    box = [left, top, left + 0.2 * width, top + 0.2 * height]
    marks = rng.uniform(0.42, 0.58, (5, 2)) * (width, height) * (1.0, 0.3)
    identity = np.array(clip["identity_embedding"], dtype=np.float32)
    return {
        "clip_id": clip["clip_id"], "pose_layout": "openpose_18",
        "pts_s": (np.arange(count) / _FPS).tolist(), "frame_index": list(range(count)),
        "keypoints": keypoints.ravel().tolist(), "keypoint_confidence": [0.9] * (18 * count),
        "num_persons": [1] * count, "face_frames": faces, "face_boxes": box * len(faces),
        "face_landmarks": marks.ravel().tolist() * len(faces), "face_scores": [0.9] * len(faces),
        "face_valid": [True] * len(faces), "face_count": [1] * len(faces),
        "face_yaw_deg": [0.0] * len(faces), "face_pitch_deg": [0.0] * len(faces),
        "face_sharpness": [300.0] * len(faces),
        "identity_embeddings": np.tile(identity, len(faces)).tolist(),
        "identity_dim": tables.identity_dim,
    }  # fmt: skip
