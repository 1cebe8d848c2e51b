"""Policies: every rule bites alone, reasons carry value and threshold, nothing unknown is kept."""

import dataclasses

import pytest

from animaray.datasets.schemas import SCORES
from animaray.pipelines.policies import (
    FAMILIES,
    LAX,
    POLICIES,
    REASON_CODES,
    RULES,
    STANDARD,
    STRICT,
    Policy,
    find_policy,
    judge,
    policy_fingerprint,
)
from animaray.platform.errors import ConfigError

GOOD = {
    "picture_luminance_p5": 30.0, "picture_luminance_p95": 220.0, "picture_sharpness": 500.0,
    "picture_flat_share": 0.0, "picture_damaged_share": 0.0, "picture_short_side_px": 720,
    "face_found_share": 1.0, "face_confidence": 0.9, "face_size_px": 200.0,
    "face_size_share": 0.4, "face_sharpness": 900.0, "face_frontal_share": 1.0,
    "face_single_share": 1.0, "face_complete_share": 1.0, "face_identity_p10": 0.9,
    "face_num_sampled": 20, "pose_coverage": 18.0, "pose_missing_share_literal": 0.0,
    "pose_missing_share_strict": 0.0, "pose_single_share": 1.0, "pose_found_share": 1.0,
    "pose_framing": "full", "pose_jitter": 0.2, "camera_drift": 0.001, "camera_jump": 0.001,
    "camera_jitter": 0.0005, "camera_log_zoom": 0.001, "camera_roll_deg": 0.05,
    "camera_inlier_share": 0.99, "camera_num_points": 400.0, "camera_evidence_share": 1.0,
    "camera_look": 0.01, "camera_background_share": 0.4, "camera_still_change": 0.03,
    "motion_speed": 0.2, "motion_change": 0.05,
    **{f"{family}_state": "ok" for family in FAMILIES},
}  # fmt: skip


def test_a_good_clip_is_kept_by_every_policy() -> None:
    for policy in POLICIES.values():
        verdict = judge(GOOD, policy)
        assert (verdict.state, verdict.reasons, verdict.keep) == ("keep", (), True)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.code}-{rule.score}")
def test_each_rule_bites_just_beyond_its_threshold(rule) -> None:
    limit = rule.threshold(STANDARD, GOOD)
    beyond = limit * 0.99 - 1e-6 if rule.is_minimum else limit * 1.01 + 1e-6
    verdict = judge({**GOOD, rule.score: beyond}, STANDARD)
    assert verdict.codes == (rule.code,)
    assert verdict.state == ("undetermined" if rule.is_evidence else "drop")
    assert f"{limit:.3g}" in verdict.reasons[0]
    assert judge({**GOOD, rule.score: limit}, STANDARD).keep


def test_rules_name_known_scores_and_families() -> None:
    known = {name: family for family, scores in SCORES.items() for name in scores}
    assert tuple(SCORES) == FAMILIES
    for rule in RULES:
        assert known[rule.score] == rule.family
        assert rule.code in REASON_CODES


def test_every_threshold_is_ordered_from_lax_to_strict() -> None:
    for field in dataclasses.fields(Policy):
        if field.name == "name":
            continue
        lax, standard, strict = (getattr(p, field.name) for p in (LAX, STANDARD, STRICT))
        if field.name.startswith("min_"):
            assert lax <= standard <= strict, field.name
        else:
            assert lax >= standard >= strict, field.name


@pytest.mark.parametrize(
    ("framing", "share", "keeps"),
    [("full", 0.06, True), ("full", 0.03, False), ("half", 0.06, False), ("close", 0.14, False)],
)
def test_face_size_is_judged_by_framing(framing: str, share: float, *, keeps: bool) -> None:
    verdict = judge({**GOOD, "pose_framing": framing, "face_size_share": share}, STANDARD)
    assert verdict.keep == keeps


@pytest.mark.parametrize(
    ("still_change", "share", "state"),
    [(0.002, 0.3, "keep"), (0.05, 0.3, "drop"), (0.002, 0.02, "drop")],
)
def test_blank_wall_that_stays_as_it_is_needs_no_points(
    still_change: float, share: float, state: str
) -> None:
    wall = {
        **GOOD, "camera_num_points": 3.0, "camera_evidence_share": 0.1, "camera_drift": 0.2,
        "camera_still_change": still_change, "camera_background_share": share,
    }  # fmt: skip
    assert judge(wall, STANDARD).state == state
    # With points to follow, what they tell counts.
    assert judge({**wall, "camera_num_points": 99.0, "camera_evidence_share": 1.0}, STANDARD).codes


def test_failed_and_missing_families_are_never_kept() -> None:
    failed = judge({**GOOD, "pose_state": "failed"}, STANDARD)
    assert (failed.state, failed.codes) == ("failed", ("pose_failed",))
    missing = judge({**GOOD, "motion_state": "not_run"}, STANDARD)
    assert (missing.state, missing.codes) == ("undetermined", ("motion_not_run",))
    assert judge({}, LAX).state == "undetermined"


def test_a_reason_to_drop_outweighs_a_failure() -> None:
    verdict = judge({**GOOD, "pose_state": "failed", "face_found_share": 0.0}, STANDARD)
    assert (verdict.state, verdict.codes) == ("drop", ("no_face",))


def test_scores_without_meaning_are_not_judged() -> None:
    without = {**GOOD, "face_found_share": 0.0, "face_size_px": None, "face_sharpness": None}
    assert judge(without, STANDARD).codes == ("no_face",)


def test_fingerprint_changes_with_any_threshold() -> None:
    changed = dataclasses.replace(STANDARD, max_drift=0.031)
    assert policy_fingerprint(changed) != policy_fingerprint(STANDARD)
    assert len({policy_fingerprint(policy) for policy in POLICIES.values()}) == 3


def test_policies_are_found_by_name() -> None:
    assert find_policy("lax") is LAX
    assert find_policy(STRICT) is STRICT
    with pytest.raises(ConfigError, match="Unknown policy `loose`"):
        find_policy("loose")
