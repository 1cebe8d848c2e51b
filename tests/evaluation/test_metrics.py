"""Metrics on cases whose value is known."""

import math

import numpy as np
import pytest

from animaray.evaluation.metrics import (
    embed_largest_faces,
    identity_similarity,
    keypoint_distance,
    l1,
    psnr,
    ssim,
)
from animaray.models.perception.protocols import FaceDetection, Perception
from animaray.platform.errors import UsageError


def video(value: int, frames: int = 3) -> np.ndarray:
    return np.full((frames, 32, 24, 3), value, np.uint8)


def test_l1_of_constant_videos_is_their_difference() -> None:
    assert l1(video(10), video(61)) == pytest.approx(51 / 255)
    assert l1(video(61), video(10)) == pytest.approx(51 / 255)  # no wrap-around of uint8
    assert l1(video(5), video(5)) == 0.0


def test_psnr_of_a_constant_difference() -> None:
    # A difference of 255 everywhere is 0 dB, one of 25.5 is 20 dB; wrapping uint8 gets both wrong.
    assert psnr(video(0), video(255)) == pytest.approx(0.0)
    half = video(0)
    half[:, :16] = 255  # half of the pixels differ: 10 log10(2) dB
    assert psnr(half, video(0)) == pytest.approx(10 * math.log10(2))
    assert psnr(video(7), video(7)) == math.inf


def test_psnr_is_a_mean_over_frames() -> None:
    frames = video(0, 2)
    frames[1] = 255
    truth = video(0, 2)
    truth[0] = 51  # 51/255 = 0.2: 13.979 dB, and 0 dB
    assert psnr(frames, truth) == pytest.approx(-10 * math.log10(0.2**2) / 2)


def test_ssim_of_equal_and_of_constant_videos() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2, 32, 24, 3), dtype=np.uint8)
    assert ssim(noise, noise) == pytest.approx(1.0)
    # Constant pictures have no variance: what is left is (2ab + c1) / (a^2 + b^2 + c1).
    # The stabilising constant is the square of one hundredth of 255.
    c1 = 2.55**2
    expected = (2 * 100 * 150 + c1) / (100**2 + 150**2 + c1)
    assert ssim(video(100), video(150)) == pytest.approx(expected)
    assert ssim(noise, 255 - noise) < 0


@pytest.mark.parametrize("metric", [l1, psnr, ssim])
def test_videos_of_other_sizes_are_refused(metric) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match="two videos of equal size"):
        metric(video(0), video(0, 4))
    with pytest.raises(UsageError, match="at least one frame"):
        metric(video(0, 0), video(0, 0))


def test_frames_without_a_face_are_counted_and_not_averaged() -> None:
    embeddings = np.array([[1, 0], [0, 1], [np.nan, np.nan], [-0.6, 0.8]], np.float32)
    found = identity_similarity(embeddings, np.array([2, 0], np.float32))
    np.testing.assert_allclose(found.per_frame, [1, 0, np.nan, -0.6], atol=1e-6)
    assert found.mean == pytest.approx((1 + 0 - 0.6) / 3)
    assert found.num_without_face == 1


def test_video_without_any_face_has_no_mean() -> None:
    found = identity_similarity(
        np.full((2, 3), np.nan, np.float32), np.array([1, 0, 0], np.float32)
    )
    assert math.isnan(found.mean)
    assert found.num_without_face == 2


@pytest.mark.parametrize("bad", [0.0, float("nan")])
def test_useless_reference_is_refused(bad: float) -> None:
    with pytest.raises(UsageError, match="reference embedding of some length"):
        identity_similarity(np.zeros((1, 2), np.float32), np.array([bad, 0], np.float32))


class BrightFaces:
    """A detector that sees a face where the picture is bright."""

    name = "bright"

    def detect(self, frame):  # type: ignore[no-untyped-def]
        if frame.mean() < 100:
            return []
        box = np.array([0, 0, 4, 4], np.float32)
        return [FaceDetection(box=box, score=1.0, landmarks=np.zeros((5, 2), np.float32))]


class ColourIdentity:
    """An embedder whose identity is the picture's mean colour."""

    name, embedding_dim, crop_height_px, crop_width_px = "colour", 3, 4, 4

    def template(self):  # type: ignore[no-untyped-def]
        return np.zeros((5, 2), np.float32)

    def embed(self, frame, landmarks):  # type: ignore[no-untyped-def]
        assert landmarks.shape == (5, 2)
        colour = frame.mean(axis=(0, 1)).astype(np.float32)
        return colour / np.linalg.norm(colour)

    def embed_crops(self, crops):  # type: ignore[no-untyped-def]
        raise NotImplementedError


class Nothing:
    """No poses."""

    name = "nothing"

    def estimate(self, frame):  # type: ignore[no-untyped-def]
        raise NotImplementedError


def test_csim_looks_at_the_pictures() -> None:
    perception = Perception(
        profile="test", face_detector=BrightFaces(), identity_embedder=ColourIdentity(),
        pose_estimator=Nothing(),
    )  # fmt: skip
    frames = np.zeros((3, 8, 8, 3), np.uint8)
    frames[0] = (200, 200, 200)
    frames[1] = (255, 0, 255)
    assert np.isnan(embed_largest_faces(frames, perception)[2]).all()
    faces = embed_largest_faces(frames, perception)
    found = identity_similarity(faces, np.array([1, 0, 0], np.float32))
    # White against red is 1/sqrt(3), magenta against red 1/sqrt(2); the dark frame has no face.
    np.testing.assert_allclose(found.per_frame[:2], [3**-0.5, 2**-0.5], atol=1e-6)
    assert found.num_without_face == 1


def test_keypoint_distance_is_in_heights_over_visible_points() -> None:
    truth = np.zeros((2, 18, 2))
    keypoints = truth + np.array([3.0, 4.0])  # 5 px off
    keypoints[1] *= 2  # 10 px off
    visible = np.ones((2, 18), bool)
    assert keypoint_distance(keypoints, truth, visible, 100.0) == pytest.approx(0.075)
    visible[1] = False
    assert keypoint_distance(keypoints, truth, visible, 100.0) == pytest.approx(0.05)
    visible[0] = False
    assert math.isnan(keypoint_distance(keypoints, truth, visible, 100.0))
