"""Hard cuts from one score of each frame, equal to those of PySceneDetect's two detectors."""

import cv2
import numpy as np
import pytest

from animaray.pipelines.stages.shot_detection import ChangeDetector, ShotsConfig, find_cuts

scenedetect = pytest.importorskip("scenedetect", reason="PySceneDetect is not installed")


def library_cuts(frames: np.ndarray, config: ShotsConfig) -> list[int]:
    detectors = [
        scenedetect.AdaptiveDetector(
            adaptive_threshold=config.adaptive_ratio,
            min_content_val=config.min_adaptive_change,
            min_scene_len=3,
        ),
        scenedetect.ContentDetector(threshold=config.content_change, min_scene_len=3),
    ]
    cuts: set[int] = set()
    for index, frame in enumerate(frames):
        now, picture = (
            scenedetect.FrameTimecode(index, 25.0),
            cv2.cvtColor(frame, cv2.COLOR_RGB2BGR),
        )
        for detector in detectors:
            cuts |= {cut.frame_num for cut in detector.process_frame(now, picture)}
    return sorted(cuts - {0})


@pytest.mark.parametrize("seed", range(12))
def test_cuts_are_those_of_the_library(seed: int) -> None:
    """Scenes of one to a dozen frames, still or noisy, alike or not, and flashes."""
    rng = np.random.default_rng(seed)
    scenes = []
    while sum(map(len, scenes)) < 300:
        picture = rng.integers(0, 256, (1, 12, 16, 3))
        strength, length = rng.choice([0, 2, 12, 40]), int(rng.choice([1, 1, 2, 3, 4, 8, 25]))
        noise = rng.integers(-strength, strength + 1, (length, 12, 16, 3))
        share = rng.choice([0.1, 0.3, 1.0])
        before = scenes[-1][-1:] if scenes else picture
        scenes.append((before * (1 - share) + picture * share + noise).clip(0, 255))
    frames = np.concatenate(scenes).astype(np.uint8)
    config = ShotsConfig()
    detector = ChangeDetector(config)
    for frame in frames:
        detector.add(frame)
    found = list(detector.borders(np.arange(len(frames)) / 25.0).cuts)
    assert found == library_cuts(frames, config)
    assert len(found) > 5


def test_a_burst_of_changes_is_one_cut() -> None:
    scores = [0.0] * 10 + [90.0] + [0.0] * 10 + [90.0, 90.0, 90.0, 80.0, 90.0] + [0.0] * 10
    quiet = ShotsConfig(adaptive_ratio=1e9, min_adaptive_change=1e9)
    assert find_cuts(scores, quiet) == [10, 21, 25]
