"""The online calling convention, kept by a predictor that really looks at the frames."""

import builtins
import sys
import types

import cv2
import numpy as np
import pytest
import torch

from animaray.models.perception.paper.cotracker import CoTrackerConfig, CoTrackerTracker
from animaray.models.perception.permissive.optical_flow import OpticalFlowTracker
from animaray.models.perception.profiles import load_point_tracker
from animaray.models.perception.protocols import PointTracker
from animaray.pipelines.stages.background import background_mask
from animaray.pipelines.stages.camera import (
    CameraConfig,
    follow_camera,
    score_camera,
)
from animaray.platform.errors import ConfigError, MachineError, WeightsError
from benchmarks.rehearsal.packages.cotracker.predictor import CoTrackerOnlinePredictor, OnlineShifts


def pan(num_frames: int, step_px: float = 1.0, size: tuple[int, int] = (96, 128)) -> np.ndarray:
    noise = np.random.default_rng(1).integers(0, 255, (size[0], 400, 3)).astype(np.uint8)
    wide = cv2.GaussianBlur(noise, (0, 0), 2)
    wide = cv2.normalize(wide, None, 0, 255, cv2.NORM_MINMAX)
    starts = [round(step_px * index) for index in range(num_frames)]
    return np.stack([wide[:, start : start + size[1]] for start in starts])


def points(count: int = 6) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.uniform([40, 10], [120, 86], (count, 2)).astype(np.float32)


@pytest.mark.parametrize(
    ("num_frames", "chunks"),
    [
        (2, [2]), (8, [8]), (9, [9]), (16, [16]), (17, [16, 9]), (24, [16, 16]),
        (37, [16, 16, 16, 13]),
    ],
)  # fmt: skip
def test_chunks_overlap_and_the_answer_covers_the_clip(num_frames, chunks):
    predictor = OnlineShifts()
    tracker = CoTrackerTracker(predictor)
    assert isinstance(tracker, PointTracker)
    start = points()
    tracks, visible = tracker.track(pan(num_frames), start)
    assert predictor.chunks == chunks
    expected = start[None] - np.arange(num_frames)[:, None, None] * np.array([1.0, 0.0])
    # A chunk in the wrong place would be eight pixels off.
    np.testing.assert_allclose(tracks, expected, atol=0.7)
    assert visible.all()
    np.testing.assert_array_equal(tracks[0], start)


def test_one_object_serves_clip_after_clip_and_many_points_in_passes():
    tracker = CoTrackerTracker(OnlineShifts(), CoTrackerConfig(points_at_once=4))
    many = points(10)
    whole, _ = CoTrackerTracker(OnlineShifts()).track(pan(20), many)
    for _ in range(2):
        tracks, visible = tracker.track(pan(20), many)
        np.testing.assert_allclose(tracks, whole, atol=1e-4)
        assert visible.shape == (20, 10)


def test_points_outside_the_frame_are_invisible():
    tracker = CoTrackerTracker(OnlineShifts())
    tracks, visible = tracker.track(pan(20), np.array([[5.0, 40.0]], dtype=np.float32))
    assert tracks[10, 0, 0] < 0
    assert visible[:5].all()
    assert not visible[6:].any()


def test_nothing_to_follow_asks_the_network_nothing():
    predictor = OnlineShifts()
    tracks, visible = CoTrackerTracker(predictor).track(pan(1), points())
    assert visible.shape == (1, 6)
    tracks, visible = CoTrackerTracker(predictor).track(pan(5), np.zeros((0, 2), np.float32))
    assert tracks.shape == (5, 0, 2)
    assert predictor.chunks == []


def test_camera_scores_are_those_of_the_permissive_tracker():
    frames = pan(40, step_px=0.5, size=(200, 260))
    times = np.arange(40) / 6.0
    nobody = np.zeros((200, 260), bool)
    masks = [background_mask(nobody, padding_px=6, margin_share=0.05)] * 40
    scores = [
        score_camera(follow_camera(frames, times, masks, tracker, CameraConfig()))
        for tracker in (CoTrackerTracker(OnlineShifts()), OpticalFlowTracker())
    ]
    assert scores[0].keys() == scores[1].keys()
    assert scores[0]["camera_drift"] == pytest.approx(20 / 200, abs=0.01)
    for name, value in scores[1].items():
        assert scores[0][name] == pytest.approx(value, rel=0.05, abs=0.012), name


def test_predictor_that_answers_otherwise_is_refused():
    class Short(OnlineShifts):
        def __call__(self, *arguments, **options):
            tracks, visible = super().__call__(*arguments, **options)
            return (None, None) if tracks is None else (tracks[:, :-1], visible[:, :-1])

    with pytest.raises(MachineError, match="19 frames for a clip of 20") as caught:
        CoTrackerTracker(Short()).track(pan(20), points())
    assert "co-tracker@82e02e8" in caught.value.fix


def test_absent_package_says_how_to_get_it(monkeypatch):
    real_import = builtins.__import__

    def without(name, *rest, **options):
        if name.startswith("cotracker"):
            raise ImportError(name)
        return real_import(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MachineError, match="package is not installed") as caught:
        load_point_tracker("paper")
    assert "pip install 'git+https://github.com/facebookresearch/co-tracker@" in caught.value.fix
    assert "--profile permissive" in caught.value.fix


@pytest.fixture
def package(monkeypatch):
    module = types.ModuleType("cotracker.predictor")
    module.CoTrackerOnlinePredictor = CoTrackerOnlinePredictor
    monkeypatch.setitem(sys.modules, "cotracker", types.ModuleType("cotracker"))
    monkeypatch.setitem(sys.modules, "cotracker.predictor", module)
    return module


def test_missing_weights_say_how_to_get_them(package, monkeypatch, tmp_path):
    monkeypatch.setenv("ANIMARAY_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("ANIMARAY_WEIGHTS", raising=False)
    with pytest.raises(WeightsError, match="animaray weights pull paper/cotracker3"):
        load_point_tracker("paper")


@pytest.mark.parametrize("wrap", [dict, lambda state: {"model": state}])
def test_weights_are_loaded_as_plain_tensors(package, tmp_path, wrap):
    network = torch.nn.Linear(3, 2)
    torch.save(wrap(network.state_dict()), tmp_path / "scaled_online.pth")
    tracker = CoTrackerTracker.load(tmp_path / "scaled_online.pth", CoTrackerConfig(device="cpu"))
    loaded = tracker._predictor.model
    torch.testing.assert_close(loaded.weight, network.weight)
    assert not loaded.weight.requires_grad
    tracks, _ = tracker.track(pan(20), points())
    assert tracks.shape == (20, 6, 2)


def test_weights_of_another_network_are_refused(package, tmp_path):
    torch.save(torch.nn.Linear(5, 2).state_dict(), tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="does not hold CoTracker3's online network"):
        CoTrackerTracker.load(tmp_path / "other.pth")


def test_older_package_is_refused(package):
    package.CoTrackerOnlinePredictor = lambda *, checkpoint: checkpoint
    with pytest.raises(MachineError, match="not the one this was made for"):
        load_point_tracker("paper")


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="points_at_once >= 1, got 0"):
        CoTrackerConfig(points_at_once=0)
