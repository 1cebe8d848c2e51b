"""A clip is surely dropped only where each policy drops it, by a margin."""

from dataclasses import replace

import pytest

from animaray.pipelines.policy.policies import LAX, POLICIES, STANDARD
from animaray.pipelines.policy.sure_drops import eased, is_dropped_by_all

MOVING = {"camera_drift": 0.11, "camera_num_points": 300.0, "camera_evidence_share": 1.0}


def test_every_policy_must_drop() -> None:
    faces = {"face_state": "ok", "face_scores": {"face_found_share": 0.7}}
    assert is_dropped_by_all(faces, [STANDARD])
    assert not is_dropped_by_all(faces, POLICIES.values())  # lax keeps 0.6
    faces["face_scores"] = {"face_found_share": 0.5}
    assert is_dropped_by_all(faces, POLICIES.values())
    # One that judges no faces, as a user's own may.
    blind = replace(STANDARD, name="blind", min_face_found=None)
    assert not is_dropped_by_all(faces, [*POLICIES.values(), blind])


@pytest.mark.parametrize(
    "row",
    [
        {"face_state": "ok", "face_scores": {"face_found_share": 0.4}},
        {"pose_state": "ok", "pose_scores": {"pose_missing_share_literal": 0.6}},
        {"face_state": "ok", "face_scores": {"face_size_px": 11.0}},
        {"camera_state": "ok", "camera_scores": MOVING},
    ],
)
def test_what_is_near_a_limit_is_not_sure(row: dict[str, object]) -> None:
    assert is_dropped_by_all(row, [LAX])
    assert not is_dropped_by_all(row, [LAX], margin=0.85)


def test_what_did_not_run_says_nothing() -> None:
    row = {"face_state": "failed", "face_scores": {"face_found_share": 0.0}}
    assert not is_dropped_by_all(row, POLICIES.values())
    assert not is_dropped_by_all({}, POLICIES.values())


def test_an_eased_policy_accepts_more_still_walls() -> None:
    wall = {
        "camera_state": "ok",
        "camera_scores": {
            "camera_drift": 1.0, "camera_num_points": LAX.min_points + 1,
            "camera_evidence_share": 1.0, "camera_still_change": 0.001,
            "camera_background_share": 0.3,
        },
    }  # fmt: skip
    assert is_dropped_by_all(wall, [LAX])
    # With so few points more the drift may be nonsense.
    assert not is_dropped_by_all(wall, [LAX], margin=0.85)
    assert eased(LAX, 1.0) == LAX
