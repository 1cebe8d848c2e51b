"""Measure how much the main person moves, the camera's own motion taken out.

Reads: samples, pose_tracks, face_tracks, camera_path, clip_width. Adds: motion_scores. Drops:
nothing. What each score says: datasets/schemas.py; a photograph held for seconds has neither.
"""

from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64

from animaray.pipelines.stages.camera import CameraPath
from animaray.pipelines.stages.faces import FaceTracks
from animaray.pipelines.stages.pose import MIN_CONFIDENCE, PoseTracks
from animaray.platform.media.video import DecodedVideo, FrameSelection

READS = ("samples", "pose_tracks", "face_tracks", "camera_path", "clip_width")
ADDS = ("motion_scores",)
DROPS: tuple[str, ...] = ()

_LAG_S = 0.5
_SAMPLE_FPS = 4.0
SELECTION = FrameSelection(fps=_SAMPLE_FPS, short_side_px=240)
"""Frames looked at."""
_SHOULDERS = [2, 5]
SHOULDER_WIDTH, FACE_HEIGHT = 0.23, 0.11
"""Proportions of a standing adult, in body heights."""
_VISIBLE_FULL = 0.88


def measure_motion(row: dict[str, Any]) -> dict[str, Any]:
    """Score one clip."""
    poses: PoseTracks = row["pose_tracks"]
    path: CameraPath = row["camera_path"]
    steady = steady_keypoints(poses, path, row["clip_width"])
    seen = poses.keypoint_confidence >= MIN_CONFIDENCE
    height_px = body_height_px(poses, row["face_tracks"])
    scores = {
        "motion_speed": keypoint_speed(steady, seen, poses.pts_s) / height_px,
        "motion_change": _change_inside(row["samples"].take(SELECTION), poses),
    }
    return {**row, "motion_scores": scores}


def steady_keypoints(
    poses: PoseTracks, path: CameraPath, clip_width: int
) -> Float64[np.ndarray, "poses 18 2"]:
    """Return keypoints as a camera that stays at the clip's first view would see them, pixels."""
    scale = path.size[0] / clip_width
    nearest = np.abs(path.pts_s[None] - path.pts_s[0] - poses.pts_s[:, None]).argmin(axis=1)
    steady = np.empty((*poses.keypoints.shape[:2], 2), dtype=np.float64)
    for index, sample in enumerate(nearest):
        inverse = cv2.invertAffineTransform(path.transforms[sample])
        points = poses.keypoints[index].astype(np.float64) * scale
        steady[index] = (points @ inverse[:, :2].T + inverse[:, 2]) / scale
    return steady


def keypoint_speed(
    keypoints: Float64[np.ndarray, "poses 18 2"],
    seen: Bool[np.ndarray, "poses 18"],
    pts_s: Float64[np.ndarray, " poses"],
) -> float:
    """Return the median over time of the mean speed of the seen keypoints, pixels per second.

    Places half a second apart are compared: from one pose to the next a detector's noise is as
    large as a slow motion.
    """
    speeds = []
    for first, time_s in enumerate(pts_s):
        second = int(np.searchsorted(pts_s, time_s + _LAG_S - 1e-6))
        if second >= len(pts_s):
            break
        both = seen[first] & seen[second]
        if both.any():
            way = np.linalg.norm(keypoints[second] - keypoints[first], axis=1)[both].mean()
            speeds.append(way / (pts_s[second] - time_s))
    return float(np.median(speeds)) if speeds else 0.0


def body_height_px(poses: PoseTracks, faces: FaceTracks) -> float:
    """Estimate the person's full height from what is in the picture, pixels, at least 1."""
    seen = poses.keypoint_confidence >= MIN_CONFIDENCE
    estimates = [1.0]
    heights = [
        np.ptp(points[visible, 1])
        for points, visible in zip(poses.keypoints, seen, strict=True)
        if visible.sum() >= 2
    ]
    if heights:
        estimates.append(float(np.percentile(heights, 90)) / _VISIBLE_FULL)
    both = seen[:, _SHOULDERS].all(axis=1)
    if both.any():
        shoulders = poses.keypoints[both][:, _SHOULDERS]
        width = np.linalg.norm(shoulders[:, 1] - shoulders[:, 0], axis=1)
        estimates.append(float(np.percentile(width, 90)) / SHOULDER_WIDTH)
    if faces.valid.any():
        tall = (faces.boxes[:, 3] - faces.boxes[:, 1])[faces.valid]
        estimates.append(float(np.median(tall)) / FACE_HEIGHT)
    return max(estimates)


def _change_inside(clip: DecodedVideo, poses: PoseTracks) -> float:
    """Compare the person's box with itself half a second before."""
    scale = min(clip.frames_uint8.shape[1:3]) / min(clip.info.width, clip.info.height)
    lag = round(_LAG_S * _SAMPLE_FPS)
    greys = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip.frames_uint8]
    times = clip.pts_s - clip.pts_s[0]
    changes = []
    for index in range(lag, len(greys)):
        box = _box_at(poses, float(times[index]), scale)
        left, top, right, bottom = box.round().astype(int).clip(0)
        one, two = (grey[top:bottom, left:right] for grey in (greys[index - lag], greys[index]))
        if one.size:
            changes.append(float(cv2.absdiff(one, two).mean()) / 255.0)
    return float(np.percentile(changes, 95)) if changes else 0.0


def _box_at(poses: PoseTracks, time_s: float, scale: float) -> Float32[np.ndarray, " 4"]:
    """Return the main person's padded box at a time; the whole picture where nobody is."""
    index = int(np.abs(poses.pts_s - time_s).argmin())
    visible = poses.keypoint_confidence[index] >= MIN_CONFIDENCE
    if not visible.any():
        return np.array([0, 0, 1e5, 1e5], dtype=np.float32)
    points = poses.keypoints[index][visible] * scale
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.1 * float((high - low).max())
    return np.concatenate([low - margin, high + margin]).astype(np.float32)
