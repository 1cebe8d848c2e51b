"""The calibration set: what a case promises is in its picture and its truth."""

import cv2
import numpy as np
import pytest

from benchmarks.quality.calibration_cases import (
    GROUPS,
    CalibrationCase,
    calibration_cases,
    face_width_px,
    render_case,
)

SMALL = {"size": 96, "num_frames": 6, "fps": 8.0}


def first_of(group: str, place: int = 0) -> CalibrationCase:
    return [case for case in calibration_cases(0, **SMALL) if case.group == group][place]


def sharpness(frames: np.ndarray) -> float:
    return float(np.mean([cv2.Laplacian(frame, cv2.CV_64F).var() for frame in frames]))


def test_set_is_seeded_and_covers_every_group() -> None:
    cases = calibration_cases(0)
    assert cases == calibration_cases(0)
    assert cases != calibration_cases(1)
    assert len({case.name for case in cases}) == len(cases) > 150
    assert {case.group for case in cases} == set(GROUPS)
    for case in cases:
        assert len(case.spec.camera) in {0, case.spec.num_frames}


def test_head_only_leaves_head_points_alone() -> None:
    clip = render_case(first_of("framing", 1))
    whole = render_case(first_of("framing", 0))
    assert max(truth.persons[0].keypoint_visible.sum() for truth in clip.truth.frames) <= 5
    assert min(truth.persons[0].keypoint_visible.sum() for truth in whole.truth.frames) >= 6
    # The window is one and a half faces high.
    box = clip.truth.frames[0].persons[0].face_box
    assert box[3] - box[1] == pytest.approx(96 / 1.5, rel=0.15)


def test_blur_is_measured_in_faces_and_softens_the_picture() -> None:
    sharp, blurred = first_of("blur", 0), first_of("blur", 7)
    assert (sharp.blur_share, blurred.blur_share) == (0.003, 0.12)
    # Scenes differ in detail, so a case is compared with itself.
    assert sharpness(render_case(blurred).frames_uint8) < 0.6 * sharpness(
        render_case(CalibrationCase(name="x", group="blur", spec=blurred.spec)).frames_uint8
    )


def test_frozen_picture_stands_still_and_another_person_takes_over() -> None:
    frozen = render_case(first_of("frozen"))
    assert (frozen.frames_uint8 == frozen.frames_uint8[:1]).all()
    swapped = render_case(first_of("identity"))
    people = [truth.persons[0].person_id for truth in swapped.truth.frames]
    assert people[0] != people[-1]
    assert (swapped.frames_uint8[0] != swapped.frames_uint8[3]).any()
    # In the same place, seen as before.
    corners = swapped.frames_uint8[2:4, :12, :12].astype(int)
    assert np.abs(corners[1] - corners[0]).mean() < 4.0


def test_light_and_far_faces() -> None:
    cases = calibration_cases(0, **SMALL)
    dark = next(case for case in cases if case.gain == 0.06)
    washed = next(case for case in cases if case.wash == 0.98)
    assert render_case(dark).frames_uint8.max() <= 16
    assert render_case(washed).frames_uint8.min() >= 249
    near, far = (render_case(first_of("face size", place)) for place in (3, 8))
    assert face_width_px(near.truth.frames) > 2 * face_width_px(far.truth.frames)
    assert face_width_px(render_case(first_of("nobody")).truth.frames) == 1.0
