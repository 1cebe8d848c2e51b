import numpy as np
import pytest

from animaray.models.perception.protocols import PersonPose
from animaray.models.subjects.motion import estimate_motion
from animaray.platform.errors import PoseError


def test_gaps_are_interpolated_and_marked(marker_perception, marker_picture):
    frames = np.stack([marker_picture(left=left) for left in (8, 8, 24)])
    frames[1] = 0
    motion = estimate_motion(frames, marker_perception.pose_estimator)
    assert motion.is_filled.tolist() == [False, True, False]
    assert np.allclose(motion.keypoints[1] - motion.keypoints[0], [8, 0])
    assert np.allclose(motion.keypoints[2] - motion.keypoints[0], [16, 0])
    assert (motion.width_px, motion.height_px) == (64, 64)
    assert motion.posed().keypoints.shape == (3, 18, 2)


def test_gaps_at_the_ends_are_held(marker_perception, marker_picture):
    frames = np.stack([marker_picture()] * 4)
    frames[0] = frames[3] = 0
    motion = estimate_motion(frames, marker_perception.pose_estimator)
    assert np.allclose(motion.keypoints, motion.keypoints[1])


def test_the_same_person_is_followed():
    class Two:
        """The largest person changes in the second frame."""

        name = "two"

        def __init__(self):
            self.calls = 0

        def estimate(self, frame):  # noqa: ARG002
            order = [10.0, 50.0] if self.calls == 0 else [51.0, 11.0]
            self.calls += 1
            return [
                PersonPose(
                    keypoints=np.full((18, 2), place, np.float32),
                    keypoint_confidence=np.ones(18, np.float32),
                )
                for place in order
            ]

    motion = estimate_motion(np.zeros((2, 64, 64, 3), np.uint8), Two())
    assert motion.keypoints[:, 0, 0].tolist() == [10, 11]


def test_a_video_of_nobody_is_refused(marker_perception, marker_picture):
    frames = np.stack([marker_picture()] * 5)
    frames[1:4] = 0
    with pytest.raises(PoseError, match="3 of 5 frames"):
        estimate_motion(frames, marker_perception.pose_estimator)
