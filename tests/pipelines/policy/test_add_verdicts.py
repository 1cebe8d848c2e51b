"""Adding verdicts: all policies at once, and which videos are worth storing."""

import pytest

from animaray.datasets.schemas import FAMILIES
from animaray.pipelines.policy.policies import LAX, STANDARD, STRICT
from animaray.pipelines.policy.verdicts import ADDS, DROPS, add_verdicts


def row_with(drift: float) -> dict[str, object]:
    scores = {
        "picture": {"picture_luminance_p95": 220.0, "picture_luminance_p5": 30.0},
        "face": {"face_found_share": 1.0},
        "pose": {"pose_missing_share_literal": 0.0},
        "camera": {"camera_drift": drift},
        "motion": {"motion_speed": 0.2},
        "text": {"text_share": 0.0},
    }
    return {
        "clip_id": "a", "media_path": "a.mp4", "state": None,
        **{f"{family}_scores": scores[family] for family in FAMILIES},
        **{f"{family}_state": "ok" for family in FAMILIES},
    }  # fmt: skip


POLICIES = (STANDARD, STRICT, LAX)


def test_all_policies_judge_and_scores_become_flat() -> None:
    row = add_verdicts(row_with(0.05), POLICIES, "shipped")
    assert {name: verdict.state for name, verdict in row["verdicts"].items()} == {
        "standard": "drop", "strict": "drop", "lax": "keep",
    }  # fmt: skip
    assert row["scores"]["camera_drift"] == 0.05
    assert row["scores"]["camera_state"] == "ok"
    assert set(ADDS) <= set(row)
    assert not set(DROPS) & set(row)


@pytest.mark.parametrize(
    ("drift", "store_media", "stores"),
    [
        (0.05, "kept", False), (0.05, "shipped", True), (0.05, "all", True),
        (0.50, "shipped", False), (0.50, "all", True), (0.001, "kept", True),
    ],
)  # fmt: skip
def test_videos_are_stored_as_asked(drift: float, store_media: str, *, stores: bool) -> None:
    row = add_verdicts(row_with(drift), POLICIES, store_media)
    assert row["stores_media"] == stores


def test_clip_that_failed_before_encoding_has_nothing_to_store() -> None:
    row = {"clip_id": "a", "state": "failed", "reason": "encode", "detail": "no frames"}
    judged = add_verdicts(row, POLICIES, "all")
    assert not judged["stores_media"]
    assert judged["verdicts"]["standard"].state == "failed"
    assert judged["scores"]["picture_note"] == "encode: no frames"
