import json

import numpy as np
import pytest

from animaray.models.alignment.alignment import PosedPicture, align_clip
from animaray.models.alignment.quality import judge_alignment


def posed(keypoints, confidence=None):
    keypoints = np.asarray(keypoints, np.float32)
    if confidence is None:
        confidence = np.ones(keypoints.shape[:-1], np.float32)
    return PosedPicture(
        keypoints=keypoints, keypoint_confidence=confidence, width_px=100, height_px=100
    )


STANDING = np.stack([np.linspace(30, 60, 18), np.linspace(20, 90, 18)], axis=1)
LEGS = [9, 10, 12, 13]


def judge(reference, clip, method="none"):
    return judge_alignment(method, reference, align_clip(method, reference, clip))


def test_the_same_pose_fits():
    quality = judge(posed(STANDING), posed(STANDING[None].repeat(3, axis=0)))
    assert quality.verdict == "good"
    assert quality.residual == pytest.approx(0, abs=1e-6)
    assert quality.parts_not_shown == ()
    assert quality.describe().startswith("none: good; 0.000 heights apart, 0% of the shown")
    assert json.loads(json.dumps(quality.to_dict()))["method"] == "none"


def test_shown_keypoints_outside_the_picture_are_poor():
    # Half of the driving keypoints lie left of the picture.
    clip = np.where(np.arange(18)[:, None] % 2, STANDING, STANDING - [70, 0])[None]
    quality = judge(posed(STANDING), posed(clip))
    assert quality.shown_out_of_frame_share == 0.5
    assert quality.verdict == "poor"


def test_legs_that_the_picture_does_not_show_may_lie_outside():
    confidence = np.ones(18, np.float32)
    confidence[LEGS] = 0
    clip = STANDING[None].repeat(2, axis=0).copy()
    clip[:, LEGS, 1] += 60
    quality = judge(posed(STANDING, confidence), posed(clip))
    # Of 18 keypoints, those of the legs with y + 60 > 100: all four.
    assert quality.out_of_frame_share == pytest.approx(4 / 18)
    assert quality.shown_out_of_frame_share == 0
    assert quality.verdict == "good"
    assert quality.parts_not_shown == ("legs",)
    assert "picture shows no legs" in quality.describe()


@pytest.mark.parametrize(("shift", "verdict"), [(10, "good"), (20, "usable"), (32, "poor")])
def test_the_distance_decides_between_good_usable_and_poor(shift, verdict):
    # The distance is the shift: 0.1, 0.2 and 0.32 heights.
    quality = judge(posed(STANDING), posed(STANDING[None] + [shift, 0]))
    assert quality.residual == pytest.approx(shift / 100, abs=1e-4)
    assert quality.verdict == verdict
