"""The camera stage on mp4 files of the generated world, people masked where they truly are.

The whole table of eleven cases and 75 seconds is benchmarks/quality/camera_table.py.
"""

from pathlib import Path

import numpy as np
import pytest

from animaray.datasets.world.clips import RenderedClip, render_clip
from animaray.models.perception.permissive.optical_flow import OpticalFlowTracker
from animaray.pipelines.curation.clip_samples import ClipSamples
from animaray.pipelines.policy.policies import STANDARD
from animaray.pipelines.policy.rules import judge
from animaray.pipelines.stages.camera import CameraStage
from animaray.pipelines.stages.faces import FaceTracks
from animaray.pipelines.stages.pose import PoseTracks
from animaray.platform.media.video import write_mp4
from benchmarks.quality.known_cameras import camera_case

FPS, SECONDS, SIDE = 6.0, 5.0, 256
COUNT = round(FPS * SECONDS)


def true_poses(clip: RenderedClip) -> PoseTracks:
    people = [frame.persons[0] for frame in clip.truth.frames]
    keypoints = np.stack([person.keypoints for person in people]).astype(np.float32)
    seen = np.stack([person.keypoint_visible for person in people]).astype(np.float32)
    return PoseTracks(
        pts_s=np.arange(COUNT) / FPS,
        frame_index=np.arange(COUNT),
        keypoints=keypoints,
        keypoint_confidence=seen,
        num_persons=np.ones(COUNT, dtype=np.int64),
        people=tuple(
            np.concatenate([points, there[:, None]], axis=1)[None]
            for points, there in zip(keypoints, seen, strict=True)
        ),
    )


def no_faces() -> FaceTracks:
    numbers = dict.fromkeys(("scores", "second_area", "yaw_deg", "pitch_deg", "sharpness"))
    return FaceTracks(
        frame_index=np.arange(2),
        boxes=np.zeros((2, 4), np.float32),
        landmarks=np.zeros((2, 5, 2), np.float32),
        valid=np.zeros(2, dtype=bool),
        count=np.zeros(2, dtype=np.int64),
        embeddings=np.zeros((2, 4), np.float32),
        **{name: np.zeros(2, np.float32) for name in numbers},
    )


@pytest.mark.parametrize(
    ("case", "codes"),
    [
        ("tripod", set()),
        ("background_moves", {"background_moves"}),
        ("pan_and_back", {"camera_drifts"}),
        ("hard_cut", {"camera_jumps", "background_changes", "camera_unclear"}),
    ],
)
def test_rendered_cameras(tmp_path: Path, case: str, codes: set[str]) -> None:
    clip = render_clip(camera_case(case, num_frames=COUNT, fps=FPS, size=(SIDE, SIDE), seed=3))
    write_mp4(tmp_path / "clip.mp4", clip.frames_uint8, FPS)
    row = {
        "samples": ClipSamples(str(tmp_path / "clip.mp4")),
        "clip_fps": FPS,
        "pose_tracks": true_poses(clip),
        "face_tracks": no_faces(),
    }
    scores = CameraStage(OpticalFlowTracker())(row)["camera_scores"]
    found = set(judge({**scores, "camera_state": "ok"}, STANDARD).codes)
    found = {code for code in found if code.startswith(("camera", "background"))}
    assert found & codes or found == codes == set(), scores
