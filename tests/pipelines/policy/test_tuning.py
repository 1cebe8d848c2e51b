"""Re-thresholding and tuning on stored scores: fast, exact, without a model."""

import dataclasses
import time
from pathlib import Path

import pytest

from animaray.datasets.commit_log import CommitLog
from animaray.datasets.reader import CurationDataset
from animaray.pipelines.policy.policies import LAX, POLICIES, STANDARD, write_policy
from animaray.pipelines.policy.rules import judge
from animaray.pipelines.policy.tuning import change_policy, find_rule, tune
from animaray.pipelines.policy.verdicts import applied_policy, reapply_policy, renew_stale_verdicts
from animaray.pipelines.reports.show import show_why, spell_why
from animaray.platform.errors import ConfigError, DatasetError
from benchmarks.scale.score_tables import ScoreTables, write_score_dataset


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scored") / "dataset"
    write_score_dataset(root, ScoreTables(num_sources=60, sources_per_commit=20))
    return root


def test_verdicts_equal_those_of_each_clip_alone(scored: Path) -> None:
    for policy in POLICIES.values():
        kept = reapply_policy(scored, policy)
        dataset = CurationDataset.open(scored)
        alone = {row["clip_id"]: judge(row, policy) for row in dataset.clips()}
        rows = dataset.verdicts(policy.name)
        assert [tuple(row["reasons"]) for row in rows] == [
            alone[row["clip_id"]].reasons for row in rows
        ]
        assert kept == sum(verdict.keep for verdict in alone.values())
    assert 0 < kept < 60


def test_ten_thousand_clips_are_judged_anew_in_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("animaray.models.perception.profiles.load_perception", None)
    tables = ScoreTables(num_sources=500, clips_per_source=20, sources_per_commit=250)
    write_score_dataset(tmp_path / "large", tables)
    started = time.perf_counter()
    reapply_policy(tmp_path / "large", LAX)
    assert time.perf_counter() - started < 10.0
    assert len(CurationDataset.open(tmp_path / "large").verdicts("lax")) == 10_000


def test_own_policy_is_remembered_and_renewed(scored: Path, tmp_path: Path) -> None:
    mine = change_policy(STANDARD, "max_drift", 0.2, "mine")
    write_policy(tmp_path / "mine.yaml", mine)
    reapply_policy(scored, tmp_path / "mine.yaml")
    assert applied_policy(CurationDataset.open(scored), "mine") == mine
    assert applied_policy(CurationDataset.open(scored), "standard") == STANDARD
    with pytest.raises(DatasetError, match="Policy other was never applied"):
        applied_policy(CurationDataset.open(scored), "other")
    # New clips have no verdict under it yet; curation asks for this after each run.
    write_score_dataset(scored, ScoreTables(num_sources=3, seed=9))
    renew_stale_verdicts(scored)
    assert len(CurationDataset.open(scored).verdicts("mine")) == 63
    version = CommitLog(scored).head()
    renew_stale_verdicts(scored)
    assert CommitLog(scored).head() == version


def test_curve_tells_what_each_threshold_keeps(scored: Path) -> None:
    curve = tune(scored, "camera_drifts", STANDARD)
    assert (curve.rule, curve.score, curve.current) == ("max_drift", "camera_drift", 0.03)
    hours = [step.hours_kept for step in curve.steps]
    assert hours == sorted(hours)
    assert curve.steps[-1].threshold is None
    marked = {name: step for step in curve.steps for name in step.marks}
    assert {"strict", "standard", "lax", "now", "off"} <= set(marked)
    clips = CurationDataset.open(scored).clips()
    for step in curve.steps[::5]:
        policy = dataclasses.replace(STANDARD, max_drift=step.threshold)
        kept = [clip for clip in clips if judge(clip, policy).keep]
        assert step.num_kept == len(kept)
        assert step.hours_kept == pytest.approx(sum(clip["duration_s"] for clip in kept) / 3600)
    assert len(curve.sparkline()) == len(curve.steps)


def test_clips_beside_the_line_are_the_nearest(scored: Path) -> None:
    curve = tune(scored, "min_face_px", STANDARD, num_clips=3)
    values = sorted(clip["face_size_px"] for clip in CurationDataset.open(scored).clips())
    assert [clip.value for clip in curve.below] == [v for v in values if v < 20.0][::-1][:3]
    assert [clip.value for clip in curve.above] == [v for v in values if v >= 20.0][:3]
    assert all(clip.passes for clip in curve.above)
    assert not any(clip.passes or clip.state == "keep" for clip in curve.below)


def test_rules_are_found_by_any_of_their_names() -> None:
    assert find_rule("camera_drift").threshold == "max_drift"
    assert find_rule("min_face_height_half").framing == "half"
    with pytest.raises(ConfigError, match=r"2 thresholds.*min_speed, min_change"):
        find_rule("nothing_moves")
    with pytest.raises(ConfigError, match="There is no rule `moon`"):
        find_rule("moon")
    with pytest.raises(ConfigError, match="shipped policy"):
        change_policy(STANDARD, "max_drift", 1.0, "lax")


def test_every_score_is_told_against_its_limit(scored: Path) -> None:
    clip_id = CurationDataset.open(scored).clips()[0]["clip_id"]
    story = show_why(CurationDataset.open(scored), clip_id)
    standard = [row for row in story["limits"] if row["policy"] == "standard"]
    broken = {row["threshold"] for row in standard if not row["passes"]}
    reasons = story["verdicts"]["standard"]["reasons"]
    assert len(broken) == len(reasons)
    # Lower and upper limit of one score are both there.
    assert {"min_speed", "max_speed"} <= {row["threshold"] for row in standard}
    lines = spell_why(story)
    assert any("camera_drift " in line and "standard <= 0.03" in line for line in lines)
