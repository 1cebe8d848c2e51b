import numpy as np
import pytest

from animaray.models.alignment.alignment import PosedPicture, align_clip
from animaray.models.alignment.published_fit import published_fit
from animaray.platform.errors import PoseError

SEEN = np.ones(18, bool)


def points(seed=0):
    return np.random.default_rng(seed).uniform(0.2, 0.8, (18, 2))


def posed(keypoints, width, height, confidence=1.0):
    return PosedPicture(
        keypoints=(keypoints * [width, height]).astype(np.float32),
        keypoint_confidence=np.full(keypoints.shape[:-1], confidence, np.float32),
        width_px=width,
        height_px=height,
    )


def test_moved_and_scaled_pose_comes_back():
    reference = points()
    driving = (reference - [0.1, -0.2]) / 1.7
    transform = published_fit(reference, SEEN, np.stack([driving] * 3))
    assert np.allclose(transform.scale, 1.7)
    assert np.allclose(transform.shift, [0.1, -0.2])
    assert np.allclose(transform.apply(driving), reference)


def test_elbows_wrists_and_unseen_reference_points_do_not_count():
    reference = points()
    driving = reference.copy()
    driving[[3, 4, 6, 7, 16]] += 5.0
    seen = SEEN.copy()
    seen[16] = False
    transform = published_fit(reference, seen, driving[None])
    assert np.allclose(transform.scale, 1)
    assert np.allclose(transform.shift, 0, atol=1e-9)


def test_only_heights_decide_the_scale():
    # Twice as wide but as high: the scale stays 1 and only the centres meet.
    reference = points()
    transform = published_fit(reference, SEEN, (reference * [2.0, 1.0])[None])
    assert np.allclose(transform.scale, 1)
    used = [0, 1, 2, 5, *range(8, 18)]
    assert transform.shift[0] == pytest.approx(-reference[used, 0].mean())


def test_nobody_to_fit_is_refused():
    with pytest.raises(PoseError, match="got 0 frames and 14 keypoints"):
        published_fit(points(), SEEN, np.zeros((0, 18, 2)))
    with pytest.raises(PoseError, match="got 1 frames and 0 keypoints"):
        published_fit(points(), ~SEEN, points()[None])


def test_method_fit_moves_the_clip_into_the_references_picture():
    reference = points()
    driving = (reference - 0.1) / 1.25
    pose = align_clip("fit", posed(reference, 300, 200), posed(np.stack([driving] * 2), 90, 120))
    assert np.allclose(pose.keypoints, reference * [300, 200], atol=0.01)
    assert pose.report.residual == pytest.approx(0, abs=1e-4)
    assert pose.report.scale == pytest.approx(1.25, rel=1e-4)
    assert pose.report.rotation_rad == 0
    assert pose.report.visible_share == 1


def test_frames_without_a_person_do_not_count():
    reference = points()
    clip = np.stack([reference, np.full((18, 2), 7.0)])
    driving = posed(clip, 100, 100)
    driving.keypoint_confidence[1] = 0
    pose = align_clip("fit", posed(reference, 100, 100), driving)
    assert np.allclose(pose.keypoints[0], reference * 100, atol=0.01)
    empty = posed(clip, 100, 100, confidence=0.0)
    with pytest.raises(PoseError, match="got 0 frames"):
        align_clip("fit", posed(reference, 100, 100), empty)
