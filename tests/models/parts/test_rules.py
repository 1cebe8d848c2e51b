"""When a photo is moved, in which mode, and what is refused (photo-by-parts.md, section 7)."""

from dataclasses import replace

import numpy as np
import pytest

from animaray.models.parts.landmarks import PersonLandmarks, axes_of, head_angles
from animaray.models.parts.retarget import Retargeter
from animaray.models.parts.rules import judge_driving, judge_reference, motion_warnings
from animaray.platform.errors import FaceError, PoseError
from tests.models.parts.synthetic_people import HEIGHT, WIDTH, flat_face, standing


def unseen(person: PersonLandmarks, *points: int) -> PersonLandmarks:
    visibility = person.visibility.copy()
    visibility[list(points)] = 0.1
    return replace(person, visibility=visibility)


def turned(yaw_deg: float) -> np.ndarray:
    face = flat_face()
    middle = face.mean(axis=0)
    return (face - middle) @ axes_of(np.radians([yaw_deg, 0, 0])).T + middle


def test_a_whole_person_with_free_arms_moves_whole() -> None:
    verdict = judge_reference(standing(), WIDTH, HEIGHT)
    assert (verdict.mode, verdict.moves_face, verdict.warnings) == ("body", True, ())


@pytest.mark.parametrize(
    ("person", "why"),
    [
        (unseen(standing(), 25), "knees"),
        (unseen(standing(), 23), "hips"),
        (standing(p15=(400, 210)), "wrists"),
        (standing(p15=(120, 160)), "before the body"),
        (standing(p15=(125, 240), p16=(112, 240)), "crossed"),
    ],
)
def test_what_a_whole_body_lacks_leaves_the_head(person: PersonLandmarks, why: str) -> None:
    verdict = judge_reference(person, WIDTH, HEIGHT)
    assert verdict.mode == "head"
    assert why in (verdict.why_head or "")
    with pytest.raises(PoseError, match="cannot be moved as a whole body"):
        judge_reference(person, WIDTH, HEIGHT, wants="body")


def test_back_and_side_views_are_refused() -> None:
    back = standing(p11=(95, 110), p12=(145, 110))
    side = standing(p11=(125, 110), p12=(112, 110))
    for person in (back, side):
        with pytest.raises(PoseError, match="from the back or the side") as caught:
            judge_reference(person, WIDTH, HEIGHT)
        assert caught.value.reason == "not_frontal"


def test_no_face_and_a_tiny_face_are_refused_where_they_are_needed() -> None:
    with pytest.raises(FaceError, match="no face"):
        judge_reference(replace(standing(), face=None), WIDTH, HEIGHT)
    small = replace(unseen(standing(), 25), face=flat_face(50))
    with pytest.raises(FaceError, match="50 pixels high; 64 are needed"):
        judge_reference(small, WIDTH, HEIGHT)
    tiny = judge_reference(replace(standing(), face=flat_face(30)), WIDTH, HEIGHT)
    assert (tiny.mode, tiny.moves_face) == ("body", False)
    assert "without expression" in tiny.warnings[0]


def test_a_turned_face_keeps_its_expression() -> None:
    assert np.degrees(head_angles(turned(30))[0]) == pytest.approx(30, abs=1)
    verdict = judge_reference(replace(standing(), face=turned(30)), WIDTH, HEIGHT)
    assert not verdict.moves_face
    assert "turned by 30 degrees" in verdict.warnings[0]
    assert judge_reference(replace(standing(), face=turned(15)), WIDTH, HEIGHT).moves_face


def test_a_wide_open_mouth_is_warned_of() -> None:
    face = flat_face()
    face[14, 1] += 15
    verdict = judge_reference(replace(standing(), face=face), WIDTH, HEIGHT)
    assert "cannot close" in verdict.warnings[0]


def test_a_half_body_driver_moves_the_head_only() -> None:
    reference = standing()
    verdict = judge_reference(reference, WIDTH, HEIGHT)
    clip = [unseen(standing(), 23, 24)] * 3
    assert judge_driving(reference, verdict, clip).mode == "head"
    assert judge_driving(reference, verdict, [standing()] * 3).mode == "body"
    with pytest.raises(FaceError, match="no frame of the driving video shows a face"):
        judge_driving(reference, verdict, [replace(person, face=None) for person in clip])


def test_stepping_needs_feet() -> None:
    reference = unseen(standing(), 27)
    verdict = judge_reference(reference, WIDTH, HEIGHT)
    assert judge_driving(reference, verdict, [standing()] * 3).mode == "body"
    steps = [standing(), standing(p27=(139, 335))]
    assert "feet" in (judge_driving(reference, verdict, steps).why_head or "")


def test_an_unlike_pose_and_a_low_rate_are_warned_of() -> None:
    hands = dict.fromkeys(("p17", "p19", "p21"), (187, 0)) | dict.fromkeys(
        ("p18", "p20", "p22"), (53, 0)
    )
    arms_up = standing(p13=(170, 60), p15=(185, 10), p14=(70, 60), p16=(55, 10), **hands)
    unlike = motion_warnings(Retargeter(standing(), [arms_up]), 25.0)
    assert "No frame of the driving video" in unlike[0]
    assert motion_warnings(Retargeter(standing(), [standing()]), 25.0) == []
    assert "not smoothed" in motion_warnings(Retargeter(standing(), [standing()]), 8.0)[0]
