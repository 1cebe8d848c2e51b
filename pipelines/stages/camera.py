"""Measure how the camera moves, from background points outside the people.

Reads: samples, clip_fps, pose_tracks, face_tracks. Adds: camera_scores, camera_path. Drops:
nothing. What each score says: datasets/schemas.py; lengths are in units of the picture's short
side. still_change is next to nothing before a blank wall, which gives no points to follow.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64, UInt8

from animaray.models.perception.protocols import PointTracker
from animaray.pipelines.stages.background import (
    background_change,
    background_mask,
    far_from_people,
)
from animaray.pipelines.stages.faces import FaceTracks
from animaray.pipelines.stages.foreground import people_mask
from animaray.pipelines.stages.pose import PoseTracks
from animaray.platform.media.video import FrameSelection

READS = ("samples", "clip_fps", "pose_tracks", "face_tracks")
ADDS = ("camera_scores", "camera_path")
DROPS: tuple[str, ...] = ()

_FACE_REACH_S = 0.5
_CLEARLY_MORE = 0.1
"""Share of the points by which one fit is better than another."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CameraConfig:
    """How the background is followed."""

    sample_fps: float = 6.0
    """Samples per second."""
    short_side_px: int = 384
    """Size at which points are followed."""
    window_s: float = 6.0
    """Points are chosen anew after this time, seconds; windows are chained."""
    cell_px: int = 16
    """One point at most is taken from each square of this side."""
    margin_share: float = 0.05
    """Border without points, share of the short side: points there hardly move."""
    min_texture: float = 3e-5
    """Least eigenvalue of the gradient matrix of a point worth following (luminance in [0, 1])."""
    person_padding_px: int = 6
    """People are drawn this much wider, pixels at `short_side_px`."""
    people_reach: tuple[float, ...] = (0.15, 0.08)
    """Points this near to people may be lost behind hair, clothes or a hand that the mask does not
    know, and are not missed; of the square root of the people's area. The next value is taken
    where fewer than `min_fit_points` lie further away."""
    noise_multiple: float = 5.0
    """Inlier tolerance over the tracker's own noise; 3 loses a tripod's points."""
    tolerance_px: tuple[float, float] = (0.75, 3.0)
    """Least and largest inlier tolerance, pixels at `short_side_px`."""
    min_fit_points: int = 12
    """With fewer usable points a sample has no fit."""
    min_fit_inliers: float = 0.4
    """With a smaller share of points that move as one a sample has no fit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CameraPath:
    """The similarity that takes the first sample's background to each sample's."""

    pts_s: Float64[np.ndarray, " samples"]
    transforms: Float64[np.ndarray, "samples 2 3"]
    """Pixels of the sampled size; the last fit is held where there is none."""
    has_fit: Bool[np.ndarray, " samples"]
    inlier_share: Float64[np.ndarray, " samples"]
    """Share of followable points that move as one; NaN where there were too few to tell."""
    num_points: Int64[np.ndarray, " samples"]
    changes: Float64[np.ndarray, " samples"]
    """Change of the registered background since the window's start; as it stands without a fit."""
    still_change: Float64[np.ndarray, " samples"]
    """Change of the background as it stands."""
    background_share: Float64[np.ndarray, " samples"]
    """Share of the picture outside people and border."""
    size: tuple[int, int]
    """Width and height of the sampled frames, pixels."""


class CameraStage:
    """Measure the camera of clips; holds the point tracker."""

    def __init__(self, tracker: PointTracker, config: CameraConfig | None = None) -> None:
        self._tracker = tracker
        self._config = config or CameraConfig()
        self.networks = tracker.name

    def selection(self, row: dict[str, Any]) -> FrameSelection:
        """Return which frames of a clip are looked at."""
        config = self._config
        return FrameSelection(
            fps=min(config.sample_fps, row["clip_fps"]), short_side_px=config.short_side_px
        )

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Score one clip."""
        config = self._config
        clip = row["samples"].take(self.selection(row))
        height, width = clip.frames_uint8.shape[1:3]
        scale = width / clip.info.width
        times = clip.pts_s - clip.pts_s[0]
        masks = [
            background_mask(
                people_mask(people, faces, (width, height)),
                padding_px=config.person_padding_px,
                margin_share=config.margin_share,
            )
            for people, faces in people_at(times, row["pose_tracks"], row["face_tracks"], scale)
        ]
        path = follow_camera(clip.frames_uint8, clip.pts_s, masks, self._tracker, config)
        return {**row, "camera_path": path, "camera_scores": score_camera(path)}


def follow_camera(
    frames_uint8: UInt8[np.ndarray, "samples height width 3"],
    pts_s: Float64[np.ndarray, " samples"],
    masks: list[Bool[np.ndarray, "height width"]],
    tracker: PointTracker,
    config: CameraConfig,
) -> CameraPath:
    """Chain the background's similarity transforms over windows of a clip.

    Args:
        frames_uint8: RGB samples.
        pts_s: Their times, seconds.
        masks: Per sample, where the background may be followed.
        tracker: Follows points within a window.
    """
    num_samples, height, width = frames_uint8.shape[:3]
    transforms = np.tile(np.eye(2, 3), (num_samples, 1, 1))
    has_fit = np.zeros(num_samples, dtype=bool)
    inlier_share, changes, still_change = np.zeros((3, num_samples))
    num_points = np.zeros(num_samples, dtype=np.int64)

    # Windows that share one sample: points are found in the first and followed to the last.
    rate = (num_samples - 1) / max(float(pts_s[-1] - pts_s[0]), 1e-3)
    length = max(2, round(config.window_s * rate) + 1)
    start = 0
    while start < num_samples:
        end = min(num_samples, start + length)
        window = frames_uint8[start:end]
        fits = _follow_window(window, masks[start:end], tracker, config)
        for offset, fit in enumerate(fits):
            index = start + offset
            if offset == 0 and start > 0:
                continue  # already fitted as the last sample of the window before
            # How much of the background changed: as it lies, and after the camera's way is undone.
            num_points[index] = fit.num_points
            views = (window[0], masks[start]), (window[offset], masks[index])
            still_change[index] = background_change(*views, np.eye(2, 3))
            has_fit[index] = fit.transform is not None
            inlier_share[index] = fit.inlier_share
            if fit.transform is not None:
                transforms[index] = chain(fit.transform, transforms[start])
                changes[index] = background_change(
                    *views, fit.transform, spared_margin=config.margin_share
                )
            elif index > 0:
                transforms[index] = transforms[index - 1]
                if fits[0].num_points >= config.min_fit_points:
                    # All points are lost at once: what is seen is another place.
                    changes[index] = still_change[index]
        if end == num_samples:
            break
        start = end - 1
    return CameraPath(
        pts_s=pts_s,
        transforms=transforms,
        has_fit=has_fit,
        inlier_share=inlier_share,
        num_points=num_points,
        changes=changes,
        still_change=still_change,
        background_share=np.array([mask.mean() for mask in masks]),
        size=(width, height),
    )


def score_camera(path: CameraPath) -> dict[str, Any]:
    """Score a camera path."""
    width, height = path.size
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], dtype=np.float64)
    linear, offset = path.transforms[:, :, :2], path.transforms[:, :, 2]
    places = (np.einsum("sij,kj->ski", linear, corners) + offset[:, None]) / min(width, height)
    drift = np.linalg.norm(places - places[0], axis=2).max(axis=1)
    steps = np.linalg.norm(np.diff(places, axis=0), axis=2)
    bends = np.linalg.norm(np.diff(places, n=2, axis=0), axis=2)
    scale = np.sqrt(np.abs(np.linalg.det(linear)))
    roll = np.unwrap(np.arctan2(linear[:, 1, 0], linear[:, 0, 0]))
    fitted = path.has_fit[1:]
    shares = path.inlier_share[1:][~np.isnan(path.inlier_share[1:])]
    return {
        "camera_drift": float(drift.max()),
        "camera_jump": float(steps.max(initial=0.0)),
        "camera_jitter": float(np.percentile(bends.max(axis=1), 99)) if len(bends) else 0.0,
        "camera_log_zoom": float(np.abs(np.log(scale)).max()),
        "camera_roll_deg": float(np.degrees(np.abs(roll - roll[0]).max())),
        "camera_inlier_share": float(np.median(shares)) if len(shares) else None,
        "camera_num_points": float(np.percentile(path.num_points[1:], 5)) if len(fitted) else 0.0,
        "camera_evidence_share": float(fitted.mean()) if len(fitted) else 0.0,
        "camera_look": float(np.percentile(path.changes[1:], 95)) if len(fitted) else 0.0,
        "camera_background_share": float(np.median(path.background_share)),
        "camera_still_change": float(np.percentile(path.still_change, 95)),
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class _Fit:
    """One sample against its window's start."""

    transform: Float64[np.ndarray, "2 3"] | None
    inlier_share: float
    num_points: int
    is_inlier: Bool[np.ndarray, " points"] = field(default_factory=lambda: np.zeros(0, dtype=bool))
    """Of the points that were fitted."""


def _follow_window(
    frames_uint8: UInt8[np.ndarray, "samples height width 3"],
    masks: list[Bool[np.ndarray, "height width"]],
    tracker: PointTracker,
    config: CameraConfig,
) -> list[_Fit]:
    points = choose_points(frames_uint8[0], masks[0], config)
    first = _Fit(transform=np.eye(2, 3), inlier_share=1.0, num_points=len(points))
    if len(points) < config.min_fit_points:
        nothing = _Fit(transform=None, inlier_share=np.nan, num_points=len(points))
        return [first, *([nothing] * (len(frames_uint8) - 1))]
    tracks, visible = tracker.track(frames_uint8, points)
    fits = [first]
    never_hidden = np.ones((len(config.people_reach), len(points)), dtype=bool)
    for index in range(1, len(frames_uint8)):
        # Where a person has come to stand, the tracker follows the person.
        usable = visible[index] & _lies_on(masks[index], tracks[index])
        fit = _fit(points[usable], tracks[index][usable], config)
        if fit.transform is not None:
            expected = points @ fit.transform[:, :2].T + fit.transform[:, 2]
            for place, reach in enumerate(config.people_reach):
                far = far_from_people(masks[index], reach, config.margin_share)
                never_hidden[place] &= _lies_on(far, expected)
            fit = replace(fit, inlier_share=_rigid_share(fit, usable, never_hidden, config))
        fits.append(fit)
    return fits


def _rigid_share(
    fit: _Fit,
    usable: Bool[np.ndarray, " points"],
    followable: Bool[np.ndarray, "reaches points"],
    config: CameraConfig,
) -> float:
    """Return the share of followable points that are seen to move with the background."""
    agrees = np.zeros(len(usable), dtype=bool)
    agrees[usable] = fit.is_inlier
    for chosen in followable:
        if chosen.sum() >= config.min_fit_points:
            return float(agrees[chosen].mean())
    return fit.inlier_share


def _lies_on(
    mask: Bool[np.ndarray, "height width"], points: Float[np.ndarray, "points 2"]
) -> Bool[np.ndarray, " points"]:
    """Return which points lie in the picture and where the mask is true."""
    height, width = mask.shape
    columns, rows = points.round().astype(int).T
    inside = (columns >= 0) & (rows >= 0) & (columns < width) & (rows < height)
    return inside & mask[rows.clip(0, height - 1), columns.clip(0, width - 1)]


def _fit(
    before: Float32[np.ndarray, "points 2"],
    after: Float32[np.ndarray, "points 2"],
    config: CameraConfig,
) -> _Fit:
    """Fit a similarity by RANSAC with a tolerance that follows the tracker's noise."""
    count = len(before)
    if count < config.min_fit_points:
        return _Fit(transform=None, inlier_share=np.nan, num_points=count)
    low, high = config.tolerance_px
    rough, _ = cv2.estimateAffinePartial2D(before, after, method=cv2.LMEDS)
    if rough is None:
        return _Fit(transform=None, inlier_share=0.0, num_points=count)
    residual = np.linalg.norm(before @ rough[:, :2].T + rough[:, 2] - after, axis=1)
    tolerance = float(np.clip(config.noise_multiple * np.median(residual), low, high))
    transform, _ = cv2.estimateAffinePartial2D(
        before, after, method=cv2.RANSAC, ransacReprojThreshold=tolerance, confidence=0.999
    )
    if transform is None:
        return _Fit(transform=None, inlier_share=0.0, num_points=count)
    agrees_with_rough = residual <= tolerance
    residual = np.linalg.norm(before @ transform[:, :2].T + transform[:, 2] - after, axis=1)
    is_inlier = residual <= tolerance
    if agrees_with_rough.mean() > is_inlier.mean() + _CLEARLY_MORE:
        # Where near and far move apart RANSAC may end with the worse of the two.
        transform, is_inlier = rough, agrees_with_rough
    share = float(is_inlier.mean())
    if share < config.min_fit_inliers:
        return _Fit(transform=None, inlier_share=share, num_points=count)
    return _Fit(transform=transform, inlier_share=share, num_points=count, is_inlier=is_inlier)


def choose_points(
    frame: UInt8[np.ndarray, "height width 3"],
    mask: Bool[np.ndarray, "height width"],
    config: CameraConfig,
) -> Float32[np.ndarray, "points 2"]:
    """Return the most textured point of each cell of the background, pixels."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255.0
    texture = cv2.cornerMinEigenVal(grey, blockSize=5, ksize=3)
    texture[~mask] = 0.0
    cell = config.cell_px
    rows, columns = (side // cell for side in texture.shape)
    cells = texture[: rows * cell, : columns * cell].reshape(rows, cell, columns, cell)
    cells = cells.transpose(0, 2, 1, 3).reshape(rows * columns, cell * cell)
    best = cells.argmax(axis=1)
    good = cells[np.arange(len(cells)), best] >= config.min_texture
    index = np.flatnonzero(good)
    y = (index // columns) * cell + best[good] // cell
    x = (index % columns) * cell + best[good] % cell
    return np.stack([x, y], axis=1).astype(np.float32)


def chain(
    after: Float64[np.ndarray, "2 3"], before: Float64[np.ndarray, "2 3"]
) -> Float64[np.ndarray, "2 3"]:
    """Return the transform that applies `before`, then `after`."""
    linear = after[:, :2] @ before[:, :2]
    offset = after[:, :2] @ before[:, 2] + after[:, 2]
    return np.concatenate([linear, offset[:, None]], axis=1)


def people_at(
    times_s: Float64[np.ndarray, " samples"], poses: PoseTracks, faces: FaceTracks, scale: float
) -> list[tuple[Float32[np.ndarray, "_ 18 3"], Float32[np.ndarray, "_ 4"]]]:
    """Return, per sample, everyone in the three nearest poses and the nearest faces.

    Args:
        times_s: Times from the clip's start, seconds.
        poses: What the pose stage found.
        faces: What the face stage found.
        scale: From pixels of the clip to pixels of the samples.
    """
    face_times = np.interp(faces.frame_index, poses.frame_index, poses.pts_s)
    valid = np.flatnonzero(faces.valid)
    found = []
    for time_s in times_s:
        nearest = np.argsort(np.abs(poses.pts_s - time_s))[:3]
        people = np.concatenate([poses.people[index] for index in nearest]).copy()
        people[:, :, :2] *= scale
        near = valid[np.abs(face_times[valid] - time_s) <= _FACE_REACH_S]
        found.append((people, (faces.boxes[near] * scale).astype(np.float32)))
    return found
