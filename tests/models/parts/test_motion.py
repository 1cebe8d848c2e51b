"""Motion from one person to another: like for like, without delay."""

from dataclasses import replace

import numpy as np
import pytest

from animaray.models.parts.landmarks import PersonLandmarks
from animaray.models.parts.retarget import Retargeter
from animaray.models.parts.smoothing import smooth_people
from tests.models.parts.synthetic_people import standing


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1.7, 40.0)])
def test_the_own_pose_moves_nothing_however_large_the_driver_is(scale: float, shift: float) -> None:
    reference = standing()
    driver = reference.mapped(scale, np.array([shift, shift]))
    retargeter = Retargeter(reference, [driver, driver])
    assert retargeter.match == pytest.approx(0.0, abs=1e-9)
    target = retargeter.target(driver)
    assert target.points[11:] == pytest.approx(reference.points[11:], abs=1e-6)
    assert target.points[:11].mean(0) == pytest.approx(reference.points[:11].mean(0), abs=1e-6)
    assert target.face is not None
    assert target.face[:, :2] == pytest.approx(reference.face[:, :2], abs=0.3)


def test_a_raised_arm_is_raised_with_the_own_length() -> None:
    reference = standing()
    raised = standing(p13=(195, 110), p15=(245, 110))
    tall = [person.mapped(2.0, np.zeros(2)) for person in (reference, raised)]
    target = Retargeter(reference, tall).target(tall[1])
    upper = target.points[13] - target.points[11]
    assert upper[1] == pytest.approx(0.0, abs=1e-6)
    assert np.linalg.norm(upper) == pytest.approx(50.0, rel=0.05)


def test_the_head_turns_no_further_than_the_photo_allows() -> None:
    from animaray.models.parts.landmarks import axes_of, head_angles

    reference = standing()
    centre = reference.face.mean(axis=0)
    spun = (reference.face - centre) @ axes_of(np.array([0.9, 0.0, 0.0])).T + centre
    target = Retargeter(reference, [reference, replace(reference, face=spun)], uses_hips=False)
    angles = head_angles(target.target(replace(reference, face=spun)).face)
    assert abs(angles[0]) == pytest.approx(0.35, abs=0.02)


def jittered(fps: float) -> tuple[list[PersonLandmarks | None], list[PersonLandmarks | None]]:
    rng = np.random.default_rng(0)
    clip: list[PersonLandmarks | None] = [
        replace(standing(), body=standing().body + rng.normal(0, 0.5, (33, 3))) for _ in range(30)
    ]
    return clip, smooth_people(clip, fps, "body")


def test_still_points_become_steady_and_jumps_keep_their_time() -> None:
    raw, smooth = jittered(25.0)
    spread = [np.std([p.points for p in clip if p], axis=0).mean() for clip in (raw, smooth)]
    assert spread[1] < 0.65 * spread[0]
    jump: list[PersonLandmarks | None] = [standing()] * 10 + [standing(p15=(185, 60))] * 10
    moved = smooth_people(jump, 25.0, "body")
    assert moved[9].points[15] == pytest.approx((185, 210))
    assert moved[10].points[15] == pytest.approx((185, 60))


def test_slow_clips_and_gaps_stay_as_they_are() -> None:
    raw, same = jittered(8.0)
    assert same == raw
    assert smooth_people([standing(), None, standing()], 25.0, "body")[1] is None
