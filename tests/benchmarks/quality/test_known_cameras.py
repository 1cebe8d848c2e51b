"""Known camera paths take the way they say, and transitions lie where they say."""

import numpy as np
import pytest

from animaray.datasets.world.clips import ClipSpec, render_clip
from animaray.platform.errors import ConfigError
from benchmarks.quality.known_cameras import CASES, PATHS, camera_case, known_path
from benchmarks.quality.transitions import join_shots

SIZE = {"num_frames": 25, "fps": 6.0, "size": (300, 200)}


@pytest.mark.parametrize(
    ("name", "field", "largest"),
    [
        ("slow_pan", "dx_px", 0.10 * 200),
        ("pan_and_back", "dx_px", 0.20 * 200),
        ("zoom", "scale", 1.15),
        ("zoom_and_back", "scale", 1.15),
        ("roll", "roll_rad", np.radians(3.0)),
        ("punch_in", "scale", 1.2),
        ("shake", "dx_px", 0.03 * 200),
        ("sway", "dx_px", 0.010 * 200),
    ],
)
def test_paths_reach_as_far_as_they_say(name: str, field: str, largest: float) -> None:
    path = known_path(name, **SIZE)
    assert len(path) == 25
    assert max(getattr(move, field) for move in path) == pytest.approx(largest, rel=0.06)
    assert path[0] == known_path("tripod", **SIZE)[0]
    if name.endswith("back"):
        first, last = (getattr(path[place], field) for place in (0, -1))
        assert last == pytest.approx(first, abs=1e-6)


def test_amount_and_direction_scale_and_turn_a_pan() -> None:
    last = known_path("slow_pan", amount=0.5, direction_rad=np.pi / 2, **SIZE)[-1]
    assert (last.dx_px, last.dy_px) == pytest.approx((0.0, 10.0))


def test_all_cases_are_specs_and_strangers_are_refused() -> None:
    for name in CASES:
        spec = camera_case(name, num_frames=8, fps=6.0, size=(96, 96))
        assert bool(spec.camera) == (name in PATHS)
    with pytest.raises(ConfigError, match="camera case"):
        camera_case("orbit", num_frames=8, fps=6.0, size=(96, 96))
    with pytest.raises(ConfigError, match="path out of"):
        known_path("orbit", **SIZE)
    with pytest.raises(ConfigError, match="camera path of 48 moves, got 25"):
        ClipSpec(seed=0, person_seeds=(), camera=known_path("zoom", **SIZE))


def test_given_path_is_what_the_truth_says_and_stirring_moves_its_share() -> None:
    path = known_path("slow_pan", num_frames=4, fps=2.0, size=(96, 96))
    spec = ClipSpec(seed=1, person_seeds=(), num_frames=4, fps=2.0, size=(96, 96), camera=path)
    assert tuple(truth.camera for truth in render_clip(spec).truth.frames) == path
    still = ClipSpec(
        seed=1, person_seeds=(), num_frames=4, fps=2.0, size=(96, 96), stirred_share=0.3
    )
    frames = render_clip(still).frames_uint8
    moved = (frames[0] != frames[2]).any(axis=2).mean()
    assert 0.1 < moved <= 0.35


def test_transitions_lie_where_they_say() -> None:
    shots = [np.full((10, 4, 4, 3), level, np.uint8) for level in (40, 80, 160, 240)]
    frames, known = join_shots(shots, ("cut", "dissolve", "fade"), (0, 3, 5))
    levels = frames[:, 0, 0, 0].tolist()
    assert [(t.kind, t.first, t.last) for t in known] == [
        ("cut", 10, 10), ("dissolve", 17, 19), ("fade", 22, 26),
    ]  # fmt: skip
    assert levels[9:11] == [40, 80]
    assert levels[16:21] == [80, 100, 120, 140, 160]
    assert levels[21] == 160
    assert levels[24] == 0
    assert levels[27:] == [240] * 5
    with pytest.raises(ConfigError, match="transition out of"):
        join_shots(shots[:2], ("wipe",), (3,))
    with pytest.raises(ConfigError, match="shots of more than 12 frames"):
        join_shots(shots[:2], ("fade",), (12,))
