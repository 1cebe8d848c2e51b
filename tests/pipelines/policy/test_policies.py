"""Policies: every rule bites alone, reasons carry value and threshold, nothing unknown is kept."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from animaray.datasets.schemas import FAMILIES, SCORES
from animaray.pipelines.policy.policies import (
    LAX,
    POLICIES,
    STANDARD,
    STRICT,
    THRESHOLDS,
    find_policy,
    policy_fingerprint,
    policy_from_dict,
    read_policy,
    write_policy,
)
from animaray.pipelines.policy.rules import (
    RULES,
    columns_of_rows,
    judge,
    judge_columns,
)
from animaray.platform.config import config_to_dict
from animaray.platform.errors import ConfigError

LITERAL_PAPER = POLICIES["literal-paper"]

GOOD = {
    "picture_luminance_p5": 30.0, "picture_luminance_p95": 220.0, "picture_sharpness": 500.0,
    "picture_flat_share": 0.0, "picture_damaged_share": 0.0, "picture_short_side_px": 720,
    "face_found_share": 1.0, "face_confidence": 0.9, "face_size_px": 200.0,
    "face_size_share": 0.4, "face_sharpness": 900.0, "face_frontal_share": 1.0,
    "face_single_share": 1.0, "face_complete_share": 1.0, "face_identity_p25": 0.9,
    "face_num_sampled": 20, "pose_coverage": 18.0, "pose_missing_share_literal": 0.0,
    "pose_missing_share_strict": 0.0, "pose_single_share": 1.0, "pose_found_share": 1.0,
    "pose_framing": "full", "pose_jitter": 0.2, "camera_drift": 0.001, "camera_jump": 0.001,
    "camera_jitter": 0.0005, "camera_log_zoom": 0.001, "camera_roll_deg": 0.05,
    "camera_inlier_share": 0.99, "camera_num_points": 400.0, "camera_evidence_share": 1.0,
    "camera_look": 0.01, "camera_background_share": 0.4, "camera_still_change": 0.03,
    "motion_speed": 0.2, "motion_change": 0.05, "text_share": 0.0, "text_found_share": 0.0,
    "text_scene_share": 0.0, "text_place": None, "text_boxes": None,
    **{f"{family}_state": "ok" for family in FAMILIES},
}  # fmt: skip


def test_a_good_clip_is_kept_by_every_policy() -> None:
    for policy in POLICIES.values():
        verdict = judge(GOOD, policy)
        assert (verdict.state, verdict.reasons, verdict.keep) == ("keep", (), True)


EVERY = dataclasses.replace(STANDARD, name="every", max_pose_missing_strict=0.5, only_flag=())


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.code}-{rule.threshold}")
def test_each_rule_bites_just_beyond_its_threshold(rule) -> None:
    limit = rule.limit(EVERY)
    beyond = limit * 0.99 - 1e-6 if rule.is_minimum else limit * 1.01 + 1e-6
    good = {**GOOD, "pose_framing": rule.framing or "full"}
    verdict = judge({**good, rule.score: beyond}, EVERY)
    assert verdict.codes == (rule.code,)
    assert verdict.state == ("undetermined" if rule.is_evidence else "drop")
    assert f"{limit:.3g}" in verdict.reasons[0]
    assert judge({**good, rule.score: limit}, EVERY).keep
    off = dataclasses.replace(EVERY, **{rule.threshold: None})
    assert judge({**good, rule.score: beyond}, off).keep


def test_rules_name_known_scores_and_families() -> None:
    known = {name: family for family, scores in SCORES.items() for name in scores}
    assert tuple(SCORES) == FAMILIES
    for rule in RULES:
        assert known[rule.score] == rule.family


def test_every_threshold_is_ordered_from_lax_to_strict() -> None:
    for name in THRESHOLDS:
        off = -math.inf if name.startswith("min_") else math.inf
        values = [getattr(policy, name) for policy in (LAX, STANDARD, STRICT)]
        values = [off if value is None else value for value in values]
        assert values == sorted(values, reverse=not name.startswith("min_")), name


def test_every_threshold_has_a_rule_or_belongs_to_the_blank_wall() -> None:
    assert {rule.threshold for rule in RULES} | {"max_still_change", "min_background_share"} == set(
        THRESHOLDS
    )


def test_the_literal_paper_judges_only_what_the_paper_names() -> None:
    wide = {**GOOD, "picture_luminance_p95": 3.0, "motion_state": "not_run"}
    assert judge(wide, LITERAL_PAPER).keep
    assert not judge(wide, STANDARD).keep
    # 8 of 18 keypoints in all frames: kept by the literal reading, dropped by the strict one.
    chest = {**GOOD, "pose_missing_share_literal": 0.0, "pose_missing_share_strict": 1.0}
    assert judge(chest, LITERAL_PAPER).keep
    assert judge(chest, STRICT).codes == ("keypoints_missing_strict",)


def random_scores(rng: np.random.Generator) -> dict[str, object]:
    """Return scores around the standard limits, some unknown, some families not run."""
    scores: dict[str, object] = dict(GOOD)
    for name, value in GOOD.items():
        if isinstance(value, float):
            scores[name] = None if rng.random() < 0.1 else value * float(rng.uniform(0.2, 3.0))
        elif name.endswith("_state"):
            states = ["ok", "ok", "ok", "undetermined", "failed", "not_run", None]
            scores[name] = states[rng.integers(len(states))]
    scores["pose_framing"] = [None, "full", "half", "close"][rng.integers(4)]
    return scores


def test_many_clips_at_once_are_judged_like_each_alone() -> None:
    rng = np.random.default_rng(0)
    clips = [random_scores(rng) for _ in range(60)]
    for policy in POLICIES.values():
        together = judge_columns(columns_of_rows(clips), policy).verdicts()
        assert together == [judge(clip, policy) for clip in clips]
    assert {verdict.state for verdict in together} >= {"drop", "failed", "undetermined"}


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


def test_rules_that_only_flag_keep_the_clip_and_say_so() -> None:
    captioned = {**GOOD, "text_share": 0.128}
    for policy in (STANDARD, LAX):
        verdict = judge(captioned, policy)
        assert (verdict.state, verdict.reasons, verdict.codes) == ("keep", (), ())
        assert verdict.flags == ("burned_in_text 0.128 > 0",)
        assert verdict.flag_codes == ("burned_in_text",)
    assert judge(captioned, STRICT).codes == ("burned_in_text",)
    assert judge(captioned, STRICT).flags == ()
    assert judge(captioned, LITERAL_PAPER) == judge(GOOD, LITERAL_PAPER)
    turned = dataclasses.replace(STANDARD, name="turned", only_flag=("max_drift", "min_points"))
    verdict = judge({**captioned, "camera_drift": 0.5, "camera_num_points": 1.0}, turned)
    assert (verdict.state, verdict.codes) == ("drop", ("burned_in_text",))
    assert verdict.flag_codes == ("camera_drifts", "camera_unclear")


@pytest.mark.parametrize("state", [None, "not_run"])
def test_text_that_was_not_looked_for_is_never_taken_for_none(state: str | None) -> None:
    old = {name: value for name, value in GOOD.items() if not name.startswith("text_")}
    flagged = judge({**old, "text_state": state}, STANDARD)
    assert (flagged.state, flagged.flags) == ("keep", ("text_not_run",))
    assert judge({**old, "text_state": state, "face_found_share": 0.0}, STANDARD).flags == ()
    strict = judge({**old, "text_state": state}, STRICT)
    assert (strict.state, strict.codes) == ("undetermined", ("text_not_run",))
    assert judge({**old, "text_state": state}, LITERAL_PAPER).flags == ()


def test_a_reason_to_drop_outweighs_a_failure() -> None:
    verdict = judge({**GOOD, "pose_state": "failed", "face_found_share": 0.0}, STANDARD)
    assert (verdict.state, verdict.codes) == ("drop", ("no_face",))


def test_scores_without_meaning_are_not_judged() -> None:
    without = {**GOOD, "face_found_share": 0.0, "face_size_px": None, "face_sharpness": None}
    assert judge(without, STANDARD).codes == ("no_face",)


def test_fingerprint_changes_with_any_threshold() -> None:
    changed = dataclasses.replace(STANDARD, max_drift=0.031)
    assert policy_fingerprint(changed) != policy_fingerprint(STANDARD)
    assert len({policy_fingerprint(policy) for policy in POLICIES.values()}) == 4
    dropping = dataclasses.replace(STANDARD, only_flag=())
    assert policy_fingerprint(dropping) != policy_fingerprint(STANDARD)
    renamed = dataclasses.replace(STANDARD, name="mine", description="a copy")
    assert policy_fingerprint(renamed) == policy_fingerprint(STANDARD)


def test_a_policy_from_before_a_rule_came_is_still_itself() -> None:
    data = config_to_dict(LITERAL_PAPER)
    for name in ("max_text_share", "only_flag", "max_combed_share", "min_frame_rate_fps"):
        del data[name]
    assert policy_from_dict(data, "commit 1") == LITERAL_PAPER
    # What datasets of version 0.6 have stored.
    assert policy_fingerprint(LITERAL_PAPER) == "d485be810d6a23d0"


def test_policies_are_found_by_name() -> None:
    assert find_policy("lax") is LAX
    assert find_policy(STRICT) is STRICT
    with pytest.raises(ConfigError, match="Unknown policy `loose`"):
        find_policy("loose")


def test_policy_files_come_back_as_written(tmp_path: Path) -> None:
    mine = dataclasses.replace(LAX, name="mine", max_drift=None, min_identity=0.2)
    write_policy(tmp_path / "mine.yaml", mine)
    assert read_policy(tmp_path / "mine.yaml") == mine
    assert find_policy(tmp_path / "mine.yaml") == mine
    (tmp_path / "small.json").write_text('{"name": "small", "base": "lax", "max_drift": 0.2}')
    small = find_policy(str(tmp_path / "small.json"))
    assert small == dataclasses.replace(LAX, name="small", description="", max_drift=0.2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: mine", "of 35 thresholds, first `min_short_side_px`"),
        ("base: standard", "gives the policy no `name`"),
        ("base: moon\nname: mine", "builds on `moon`"),
        ("base: lax\nname: mine\nmax_drfit: 1", "Did you mean `max_drift`"),
        ("base: lax\nname: mine\nmax_drift: far", "`max_drift`"),
        ("base: lax\nname: mine\nmax_drift: .nan", "number or null, got '.nan'"),
        ("base: lax\nname: ../up", "policy name"),
        ("base: lax\nname: mine\nonly_flag: [max_text]", "`max_text`, which is no threshold"),
        ("base: lax\nname: standard\nmax_drift: 9", "calls itself `standard`"),
        ("- a list", "must hold a mapping"),
        ("name: [", "not valid YAML"),
    ],
)
def test_wrong_policy_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        find_policy(tmp_path / "mine.yaml")


def test_a_near_miss_is_shown_with_enough_digits() -> None:
    verdict = judge({**GOOD, "face_single_share": 0.8998}, STANDARD)
    assert verdict.reasons == ("several_faces 0.8998 < 0.9",)
