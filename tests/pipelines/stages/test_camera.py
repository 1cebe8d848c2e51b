"""The camera score against known camera paths, tracked by optical flow through rendered frames.

Steady cameras must be kept,
moving and unstable ones must not.
"""

import cv2
import numpy as np
import pytest

from animaray.models.perception.permissive.optical_flow import OpticalFlowTracker
from animaray.pipelines.policy.policies import STANDARD
from animaray.pipelines.policy.rules import judge
from animaray.pipelines.stages.background import background_change, background_mask
from animaray.pipelines.stages.camera import (
    CameraConfig,
    CameraPath,
    chain,
    choose_points,
    follow_camera,
    score_camera,
)

WIDTH, HEIGHT, FPS, SECONDS = 320, 240, 6.0, 8.0
COUNT = round(FPS * SECONDS)


def world() -> np.ndarray:
    rng = np.random.default_rng(3)
    coarse = np.kron(rng.integers(40, 216, (40, 52, 3)), np.ones((12, 12, 1))).astype(np.uint8)
    return cv2.GaussianBlur(coarse, (0, 0), 2.0)


def view(matrix: np.ndarray, index: int, *, moving_share: float = 0.0) -> np.ndarray:
    """Return what a camera sees; a dark dancer covers the middle, noise is on top."""
    wide = world()
    to_centre = np.array([[1.0, 0, -152.0], [0, 1.0, -120.0]])
    frame = cv2.warpAffine(wide, chain(matrix, to_centre), (WIDTH, HEIGHT))
    if moving_share:
        columns = round(WIDTH * moving_share)
        frame[:, :columns] = np.roll(frame[:, :columns], 7 * index, axis=0)
    left = 130 + round(20 * np.sin(index))
    cv2.rectangle(frame, (left, 60), (left + 50, HEIGHT), (60, 20, 20), -1)
    noise = np.random.default_rng(index).normal(0, 2, frame.shape)
    return (frame + noise).clip(0, 255).astype(np.uint8)


def around_centre(scale: float = 1.0, degrees: float = 0.0, shift: tuple = (0, 0)) -> np.ndarray:
    matrix = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), degrees, scale)
    matrix[:, 2] += np.array(shift) * HEIGHT
    return matrix


def there_and_back(index: int) -> float:
    return 1.0 - abs(2.0 * index / (COUNT - 1) - 1.0)


def matrices(case: str) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    paths = {
        "tripod": lambda _: around_centre(),
        "sway of 1 %": lambda i: around_centre(shift=(0.005 * np.sin(i / 8), 0)),
        "slow pan, 10 %": lambda i: around_centre(shift=(0.10 * i / COUNT, 0)),
        "pan 20 % and back": lambda i: around_centre(shift=(0.20 * there_and_back(i), 0)),
        "zoom 1.15": lambda i: around_centre(scale=1 + 0.15 * i / COUNT),
        "zoom 1.15 and back": lambda i: around_centre(scale=1 + 0.15 * there_and_back(i)),
        "roll 3 degrees": lambda i: around_centre(degrees=3.0 * i / COUNT),
        "punch-in 1.2": lambda i: around_centre(scale=1.2 if i > COUNT // 2 else 1.0),
        "shake for a second": lambda i: around_centre(
            shift=tuple(rng.normal(0, 0.03, 2)) if 20 <= i < 26 else (0, 0)
        ),
    }
    return [paths[case](index) for index in range(COUNT)]


def mask_of(people: np.ndarray) -> np.ndarray:
    config = CameraConfig()
    return background_mask(
        people, padding_px=config.person_padding_px, margin_share=config.margin_share
    )


def scores_of(frames: np.ndarray) -> dict[str, float]:
    people = np.zeros((HEIGHT, WIDTH), dtype=bool)
    people[50:, 100:220] = True
    masks = [mask_of(people)] * len(frames)
    times = np.arange(len(frames)) / FPS
    path = follow_camera(frames, times, masks, OpticalFlowTracker(), CameraConfig())
    return score_camera(path)


def camera_codes(scores: dict[str, float]) -> set[str]:
    return set(judge({**scores, "camera_state": "ok"}, STANDARD).codes) - {
        f"{family}_not_run" for family in ("picture", "face", "pose", "motion")
    }


@pytest.mark.parametrize("case", ["tripod", "sway of 1 %"])
def test_steady_cameras_are_kept(case: str) -> None:
    scores = scores_of(np.stack([view(m, i) for i, m in enumerate(matrices(case))]))
    assert camera_codes(scores) == set()
    assert scores["camera_inlier_share"] > 0.9
    assert scores["camera_evidence_share"] == 1.0


@pytest.mark.parametrize(
    ("case", "code"),
    [
        ("slow pan, 10 %", "camera_drifts"),
        ("pan 20 % and back", "camera_drifts"),
        ("zoom 1.15", "camera_zooms"),
        ("zoom 1.15 and back", "camera_zooms"),
        ("roll 3 degrees", "camera_rolls"),
        ("punch-in 1.2", "camera_jumps"),
        ("shake for a second", "camera_shakes"),
    ],
)
def test_moving_cameras_are_dropped(case: str, code: str) -> None:
    scores = scores_of(np.stack([view(m, i) for i, m in enumerate(matrices(case))]))
    assert code in camera_codes(scores)


def test_moving_background_is_dropped() -> None:
    frames = np.stack([view(around_centre(), i, moving_share=0.35) for i in range(COUNT)])
    assert camera_codes(scores_of(frames)) & {"background_moves", "background_changes"}


def test_points_that_the_tracker_loses_count_as_moving() -> None:
    """A third of the background is new in every sample, as wild water is: nothing to follow."""
    frames = np.stack([view(around_centre(), i) for i in range(COUNT)])
    rng = np.random.default_rng(5)
    for frame in frames:
        noise = rng.integers(0, 255, (20, 8, 3)).astype(np.uint8)
        frame[:, :96] = cv2.resize(noise, (96, HEIGHT), interpolation=cv2.INTER_CUBIC)
    scores = scores_of(frames)
    assert scores["camera_inlier_share"] < 0.7
    assert "background_moves" in camera_codes(scores)


def test_hard_cut_is_never_kept() -> None:
    frames = np.stack([view(around_centre(), i) for i in range(COUNT)])
    frames[COUNT // 2 :] = frames[COUNT // 2 :, ::-1, ::-1]
    assert camera_codes(scores_of(frames))


def test_blank_wall_that_stands_still_is_kept() -> None:
    frames = np.full((COUNT, HEIGHT, WIDTH, 3), 200, dtype=np.uint8)
    scores = scores_of(frames)
    assert scores["camera_num_points"] == 0
    assert camera_codes(scores) == set()


def test_blank_wall_that_changes_is_undetermined_not_kept() -> None:
    levels = 180 + 40 * (np.arange(COUNT) % 2)
    frames = np.repeat(levels.astype(np.uint8), HEIGHT * WIDTH * 3)
    verdict = judge(
        {**scores_of(frames.reshape(COUNT, HEIGHT, WIDTH, 3)), "camera_state": "ok"}, STANDARD
    )
    assert "camera_unclear" in verdict.codes
    assert not verdict.keep


def test_scores_of_a_known_path_are_exact() -> None:
    """A shift by 6 px of 240, a zoom by 1.1 about the corner and a turn by 2 degrees."""
    angle = np.radians(2.0)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]])
    transforms = np.stack(
        [
            np.eye(2, 3),
            np.array([[1.0, 0, 6.0], [0, 1.0, 0]]),
            np.array([[1.1, 0, 0], [0, 1.1, 0]]),
            turn,
        ]
    )
    path = CameraPath(
        pts_s=np.arange(4) / 6,
        transforms=transforms,
        has_fit=np.ones(4, dtype=bool),
        inlier_share=np.array([0.0, 0.9, 0.8, 0.7]),
        num_points=np.full(4, 100),
        changes=np.zeros(4),
        still_change=np.zeros(4),
        background_share=np.ones(4),
        size=(320, 240),
    )
    scores = score_camera(path)
    assert scores["camera_log_zoom"] == pytest.approx(np.log(1.1))
    assert scores["camera_roll_deg"] == pytest.approx(2.0)
    # Zooming moves the far corner, 400 px from the fixed one, by 40 px of 240.
    assert scores["camera_drift"] == pytest.approx(40 / 240)
    assert scores["camera_inlier_share"] == pytest.approx(0.8)
    assert scores["camera_num_points"] == 100


def test_chaining_applies_the_earlier_transform_first() -> None:
    zoom = np.array([[2.0, 0, 0], [0, 2.0, 0]])
    shift = np.array([[1.0, 0, 5.0], [0, 1.0, 0]])
    # Shift by 5, then double: x -> 2 * (x + 5).
    np.testing.assert_allclose(chain(zoom, shift), [[2, 0, 10], [0, 2, 0]])


def test_points_lie_on_texture_outside_people_and_border() -> None:
    people = np.zeros((HEIGHT, WIDTH), dtype=bool)
    people[:, :160] = True
    config = CameraConfig()
    mask = mask_of(people)
    points = choose_points(view(around_centre(), 0), mask, config)
    assert len(points) > 40
    assert points[:, 0].min() > 160 + config.person_padding_px - 1
    assert points[:, 1].min() >= round(config.margin_share * HEIGHT)
    assert len(choose_points(np.full((HEIGHT, WIDTH, 3), 90, np.uint8), mask, config)) == 0


def test_change_in_one_piece_with_people_is_theirs_unless_it_is_too_large() -> None:
    config = CameraConfig()
    wall = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    people = np.zeros((HEIGHT, WIDTH), dtype=bool)
    people[60:, 120:200] = True
    mask = mask_of(people)
    still = np.eye(2, 3)

    def change(of: tuple[slice, slice], *, is_spared: bool = True) -> float:
        later = wall.copy()
        later[of] = 220
        margin = config.margin_share if is_spared else None
        return background_change((wall, mask), (later, mask), still, spared_margin=margin)

    arm = (slice(100, 120), slice(60, 130))
    assert change(arm, is_spared=False) > 0.01
    assert change(arm) < 0.002
    # The same piece of wall, but not beside anybody.
    lamp = (slice(100, 120), slice(20, 90))
    assert change(lamp) == pytest.approx(change(lamp, is_spared=False))
    # Half the room is no arm.
    assert change((slice(0, HEIGHT), slice(0, 125))) > 0.15
