import cv2
import numpy as np
import pytest

from animaray.models.frozen.optical_flow import OpticalFlowConfig, OpticalFlowTracker
from animaray.platform.errors import ConfigError
from animaray.platform.video import decode_video


def textured(height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(1).integers(0, 255, (height, width, 3)).astype(np.float32)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX).astype(
        np.uint8
    )


def grid(width: int, height: int, margin: int, step: int) -> np.ndarray:
    x, y = np.meshgrid(
        np.arange(margin, width - margin, step), np.arange(margin, height - margin, step)
    )
    return np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float32)


def test_pan_is_followed_to_a_fraction_of_a_pixel():
    picture = textured(240, 400)
    # The window moves right by 5 px and down by 2 px a frame: the scene moves the other way.
    frames = np.stack([picture[2 * t : 2 * t + 200, 5 * t : 5 * t + 300] for t in range(12)])
    points = grid(300, 200, 70, 20)
    tracks, visibility = OpticalFlowTracker().track(frames, points)
    expected = points[None] - np.arange(12)[:, None, None] * np.array([5.0, 2.0])
    assert visibility.all()
    assert np.abs(tracks - expected).max() < 0.2
    np.testing.assert_array_equal(tracks[0], points)


def test_point_that_leaves_the_frame_is_lost_for_good():
    picture = textured(100, 400)
    shifts = [0, 8, 16, 24, 16, 8, 0]
    frames = np.stack([picture[:, 40 + s : 240 + s] for s in shifts])
    points = np.array([[12.0, 50.0], [150.0, 50.0]], dtype=np.float32)
    tracks, visibility = OpticalFlowTracker().track(frames, points)
    # The first point is at 12, 4, then outside; it comes back into view but stays lost.
    assert visibility[:, 0].tolist() == [True, True, False, False, False, False, False]
    assert visibility[:, 1].all()
    np.testing.assert_allclose(tracks[6, 1], points[1], atol=0.3)
    np.testing.assert_array_equal(tracks[2:, 0], np.repeat(tracks[1:2, 0], 5, axis=0))


def test_cut_loses_the_points():
    frames = np.stack([textured(120, 160), textured(240, 320)[60:180, 80:240][::-1, ::-1]])
    _, visibility = OpticalFlowTracker().track(frames, grid(160, 120, 20, 20))
    assert visibility[0].all()
    assert visibility[1].mean() < 0.2


def test_nothing_to_follow_gives_empty_tracks():
    tracks, visibility = OpticalFlowTracker().track(
        np.zeros((3, 20, 20, 3), dtype=np.uint8), np.zeros((0, 2), dtype=np.float32)
    )
    assert tracks.shape == (3, 0, 2)
    assert visibility.shape == (3, 0)


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="max_round_trip_px > 0; got 21, 3 and 0"):
        OpticalFlowConfig(max_round_trip_px=0.0)


@pytest.mark.real
def test_known_pan_of_real_footage(real_data):
    # x13: a window moved right by exactly 4 px a frame; the man in it moves, the park does not.
    frames = decode_video(real_data / "videos" / "x13.mp4", max_frames=20).frames_uint8
    tracks, visibility = OpticalFlowTracker().track(frames, grid(640, 640, 120, 40))
    kept = visibility[-1]
    assert kept.mean() > 0.5
    moved = np.median(tracks[-1, kept] - tracks[0, kept], axis=0)
    np.testing.assert_allclose(moved, [-4.0 * 19, 0.0], atol=1.0)


@pytest.mark.real
def test_known_zoom_of_real_footage(real_data):
    # x14: zoom in from 1.0 to 1.3 in 96 frames about the centre; 1.075 after a quarter of them.
    frames = decode_video(real_data / "videos" / "x14.mp4", max_frames=25).frames_uint8
    height, width = frames.shape[1:3]
    tracks, visibility = OpticalFlowTracker().track(frames, grid(width, height, 60, 40))
    kept = visibility[-1]
    centre = np.array([width / 2, height / 2])
    before = np.linalg.norm(tracks[0, kept] - centre, axis=-1)
    after = np.linalg.norm(tracks[-1, kept] - centre, axis=-1)
    assert abs(np.median(after / before) - (1 + 0.3 * 24 / 95)) < 0.012
