import cv2
import numpy as np
import pytest

from animaray.models.perception.permissive.optical_flow import OpticalFlowConfig, OpticalFlowTracker
from animaray.platform.errors import ConfigError
from animaray.platform.media.video import decode_video


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


def test_point_that_leaves_the_frame_stays_lost_where_nothing_says_where_it_is():
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


def test_point_that_leaves_the_frame_is_found_again_by_the_motion_of_the_others():
    picture = textured(120, 400)
    shifts = [0, 8, 16, 24, 16, 8, 0]
    frames = np.stack([picture[:, 40 + s : 240 + s] for s in shifts])
    others = grid(200, 120, 40, 20)
    points = np.concatenate([np.array([[12.0, 50.0]], dtype=np.float32), others])
    tracks, visibility = OpticalFlowTracker().track(frames, points)
    assert visibility[:, 0].tolist() == [True, True, False, False, False, True, True]
    # Half of its window lies outside the frame at first.
    np.testing.assert_allclose(tracks[5:, 0], points[0] - [[8, 0], [0, 0]], atol=0.6)


def test_what_an_arm_hid_is_seen_again_behind_it_and_never_on_it():
    wall, arm = textured(200, 240), 255 - textured(120, 60)[:, ::-1]
    lefts = [-60, -20, 20, 60, 100, 140, 180, 240]
    frames = np.repeat(wall[None], len(lefts), axis=0)
    for frame, left in zip(frames, lefts, strict=True):
        low, high = max(left, 0), min(left + 60, 240)
        frame[:120, low:high] = arm[:, low - left : high - left]
    points = grid(240, 200, 20, 20)
    tracks, visibility = OpticalFlowTracker().track(frames, points)
    passed = points[:, 1] < 110
    assert visibility[-1, passed].mean() > 0.9
    error = np.linalg.norm(tracks[-1] - points, axis=1)[visibility[-1]]
    assert (error < 0.3).mean() > 0.98
    for index in range(1, 7):
        under = passed & (points[:, 0] > lefts[index] + 12) & (points[:, 0] < lefts[index] + 48)
        at_rest = np.linalg.norm(tracks[index] - points, axis=1) < 2.0
        assert not (visibility[index] & at_rest & under).any()
    # Nothing stood there at all: the wall is not found in what a bare wall shows.
    frames[-1, :120] = int(wall.mean())
    _, visibility = OpticalFlowTracker().track(frames, points)
    assert not visibility[-1, points[:, 1] < 100].any()


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
    with pytest.raises(ConfigError, match=r"min_guides >= 2; got 2\.0, 0\.5 and 1"):
        OpticalFlowConfig(min_guides=1)


@pytest.mark.real
def test_known_pan_of_real_footage(real_data):
    # x13: a window moved right by exactly 4 px a frame; the man in it moves, the park does not.
    frames = decode_video(real_data / "videos/x13.mp4", max_frames=20).frames_uint8
    tracks, visibility = OpticalFlowTracker().track(frames, grid(640, 640, 120, 40))
    kept = visibility[-1]
    assert kept.mean() > 0.5
    moved = np.median(tracks[-1, kept] - tracks[0, kept], axis=0)
    np.testing.assert_allclose(moved, [-4.0 * 19, 0.0], atol=1.0)


@pytest.mark.real
def test_known_zoom_of_real_footage(real_data):
    # x14: zoom in from 1.0 to 1.3 in 96 frames about the centre; 1.075 after a quarter of them.
    frames = decode_video(real_data / "videos/x14.mp4", max_frames=25).frames_uint8
    height, width = frames.shape[1:3]
    tracks, visibility = OpticalFlowTracker().track(frames, grid(width, height, 60, 40))
    kept = visibility[-1]
    centre = np.array([width / 2, height / 2])
    before = np.linalg.norm(tracks[0, kept] - centre, axis=-1)
    after = np.linalg.norm(tracks[-1, kept] - centre, axis=-1)
    assert abs(np.median(after / before) - (1 + 0.3 * 24 / 95)) < 0.012
