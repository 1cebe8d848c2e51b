"""Look at a clip in its source before it is cut: what every policy drops is not worth storing.

A few frames show whether a clip may be lost: faces, bodies, and how the picture moves. Only where
they speak against it under every policy is it measured as stored clips are, from the source's
frames; and only what is then still dropped by every policy, by a margin, ends here, with a preview,
without a video (perception_worker). All other clips are cut and measured as they are stored, so
that what is kept is judged by what is kept.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from animaray.models.perception.protocols import Perception, PointTracker
from animaray.pipelines.curation.config import CurationConfig
from animaray.pipelines.curation.rows import Row
from animaray.pipelines.policy.policies import Policy
from animaray.pipelines.policy.sure_drops import is_dropped_by_all
from animaray.pipelines.stages.background import background_mask
from animaray.pipelines.stages.camera import CameraStage, follow_camera, score_camera
from animaray.pipelines.stages.cut_clip import shrink
from animaray.pipelines.stages.faces import FaceStage, FaceTracks
from animaray.pipelines.stages.foreground import people_mask
from animaray.pipelines.stages.pose import PoseStage
from animaray.platform.media.video import DecodedVideo, FrameSelection, TimedFrame

_FEW_FACES, _FEW_POSES = 6, 4
"""Frames of a clip that are looked at before anything else is."""
_MOVES_SHORT_SIDE_PX = 192
"""Size at which the camera is followed: half as large takes a quarter of the time."""
_MOVES = ("camera_drift", "camera_jump", "camera_log_zoom", "camera_roll_deg")
"""What may be said of a camera before it is known where people are."""


class FirstLook:
    """Tell which clips may be lost; holds the networks."""

    def __init__(
        self,
        perception: Perception,
        tracker: PointTracker,
        config: CurationConfig,
        policies: Sequence[Policy],
    ) -> None:
        """Take the networks that measure, too.

        Args:
            policies: All that a clip might be kept by.
        """
        self._policies = policies
        self._tracker = tracker
        self._camera_config = config.camera
        self._camera = CameraStage(tracker, config.camera)
        self._faces = FaceStage(
            perception.face_detector, perception.identity_embedder, config.faces
        )
        # Single frames, far apart: nobody is followed from one to the next.
        alone = replace(config.pose, least_looks_fps=config.pose.max_fps)
        self._pose = PoseStage(perception.pose_estimator, alone)

    def may_be_lost(self, row: Row) -> bool:
        """Return whether a few frames are such that every policy would drop the clip.

        Args:
            row: A clip that is not cut yet, with samples, clip_fps, clip_num_frames, clip_width and
                clip_height; what is looked at stays there for who measures it.
        """
        frames = row["samples"].take(self._faces.selection(row), keeps=True)
        faces = self._faces({**row, "samples": _Few(_thinned(frames, _FEW_FACES))})
        seen = {"face_scores": faces["face_scores"], "face_state": "ok"}
        if self._speaks_against(seen):
            return True
        moves = self._moves(row, faces["face_tracks"])
        seen |= {"camera_scores": moves, "camera_state": "ok"}
        if self._speaks_against(seen):
            return True
        bodies = self._pose({**row, "samples": _Few(_thinned(frames, _FEW_POSES))})
        seen |= {"pose_scores": bodies["pose_scores"], "pose_state": "ok"}
        return self._speaks_against(seen)

    def _speaks_against(self, seen: Mapping[str, Any]) -> bool:
        return is_dropped_by_all(seen, self._policies)

    def _moves(self, row: Row, faces: FaceTracks) -> dict[str, Any]:
        """Follow the whole picture but for heads and what lies below them."""
        config = self._camera_config
        clip = row["samples"].take(self._camera.selection(row), keeps=True)
        frames = np.stack([shrink(frame, _MOVES_SHORT_SIDE_PX) for frame in clip.frames_uint8])
        height, width = frames.shape[1:3]
        boxes = faces.boxes[faces.valid] * np.float32(width / clip.info.width)
        people = people_mask(np.zeros((0, 18, 3), np.float32), boxes, (width, height))
        mask = background_mask(
            people, padding_px=config.person_padding_px, margin_share=config.margin_share
        )
        path = follow_camera(frames, clip.pts_s, [mask] * len(frames), self._tracker, config)
        scores = score_camera(path)
        return {name: scores[name] for name in _MOVES}


@dataclass(frozen=True, slots=True)
class _Few:
    """Frames that are there already, in place of a clip's samples."""

    clip: DecodedVideo

    def take(self, _selection: FrameSelection) -> DecodedVideo:
        return self.clip

    def stream(self, selection: FrameSelection) -> Iterator[TimedFrame]:
        for pts_s, frame in zip(self.clip.pts_s, self.clip.frames_uint8, strict=True):
            small = selection.short_side_px or min(frame.shape[:2])
            yield TimedFrame(float(pts_s), shrink(frame, small))


def _thinned(clip: DecodedVideo, count: int) -> DecodedVideo:
    """Return at most so many frames of a clip, spread evenly."""
    places = np.linspace(0, len(clip.pts_s) - 1, min(count, len(clip.pts_s))).round().astype(int)
    return replace(clip, frames_uint8=clip.frames_uint8[places], pts_s=clip.pts_s[places])
