"""Policies: named thresholds on raw scores, and the rules that turn scores into a verdict.

Scores never depend on a policy, so new thresholds mean new verdicts without running a model. The
thresholds follow reference curation.md, table 5.3; where "standard" differs,
docs/decisions/0003-standard-policy.md says why.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from animaray.platform.config import fingerprint
from animaray.platform.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """Thresholds of one policy; lengths of the camera are in units of the picture's short side."""

    name: str
    """Also the folder of its verdicts."""
    min_short_side_px: int = 256
    """Smallest picture, pixels."""
    min_luminance_p95: float = 40.0
    """The brightest 5 % of a frame are at least this bright, 0 to 255."""
    max_luminance_p5: float = 235.0
    """The darkest 5 % of a frame are at most this bright, 0 to 255."""
    min_picture_sharpness: float = 12.0
    """Least Laplacian variance of the whole picture at 360 px."""
    max_damaged_share: float = 0.05
    """Share of frames that the decoder may have marked as damaged."""
    min_face_found: float = 0.80
    """Share of sampled frames with a face."""
    min_face_px: float = 20.0
    """Median short side of the face's box in the clip, pixels."""
    min_face_height_full: float = 0.047
    """And as a share of the frame's height when the whole body shows (48 of 1024 px)."""
    min_face_height_half: float = 0.094
    """When the body shows down to the hips (96 of 1024 px)."""
    min_face_height_close: float = 0.156
    """When it shows head and shoulders (160 of 1024 px)."""
    min_face_sharpness: float = 60.0
    """Laplacian variance of the aligned face, 25th percentile, 0 to a few thousand."""
    min_face_frontal: float = 0.70
    """Share of faces within 60 degrees of yaw and 40 of pitch."""
    min_face_single: float = 0.90
    """Share of frames with exactly one dominant face."""
    min_face_complete: float = 0.90
    """Share of faces with all five landmarks inside the frame."""
    min_identity: float = 0.28
    """10th percentile of the cosine of frontal faces to the clip's mean."""
    max_pose_missing: float = 0.10
    """Share of frames with more than 70 % of the keypoints missing (literal reading)."""
    min_person_single: float = 0.85
    """Share of frames without a second person of half the main person's height."""
    max_drift: float = 0.03
    """Farthest way of a corner from the clip's start."""
    max_jump: float = 0.02
    """Largest corner step between two samples."""
    max_jitter: float = 0.01
    """99th percentile of the corners' second difference."""
    max_log_zoom: float = 0.03
    """Largest change of scale, natural logarithm."""
    max_roll_deg: float = 1.5
    """Largest turn, degrees."""
    min_rigid: float = 0.70
    """Median share of background points that move as one."""
    max_look: float = 0.06
    """95th percentile of the background's change of luminance, of 1."""
    min_points: float = 30.0
    """Background points that are usable in 95 % of the samples; with fewer the camera is
    undetermined, which is never kept."""
    min_evidence: float = 0.95
    """Share of samples in which the background could be followed; else as above."""
    max_still_change: float = 0.006
    """A background without points to follow stands still when its luminance, as it is, changes by
    at most this much (of 1)."""
    min_background_share: float = 0.10
    """And when it is at least this share of the picture."""
    min_speed: float = 0.003
    """Least median speed of the keypoints, body heights per second."""
    max_speed: float = 3.0
    """Largest."""
    min_change: float = 0.008
    """Least change of luminance inside the person's box over half a second, of 1."""


STRICT = Policy(
    name="strict",
    min_short_side_px=480,
    min_luminance_p95=80.0,
    max_luminance_p5=200.0,
    min_picture_sharpness=40.0,
    max_damaged_share=0.0,
    min_face_found=0.95,
    min_face_px=48.0,
    min_face_height_full=0.094,
    min_face_height_half=0.188,
    min_face_height_close=0.312,
    min_face_sharpness=120.0,
    min_face_frontal=0.95,
    min_face_single=0.98,
    min_face_complete=0.98,
    min_identity=0.50,
    max_pose_missing=0.02,
    min_person_single=0.98,
    max_drift=0.01,
    max_jump=0.008,
    max_jitter=0.004,
    max_log_zoom=0.01,
    max_roll_deg=0.5,
    min_rigid=0.90,
    max_look=0.03,
    min_points=60.0,
    min_evidence=0.99,
    max_still_change=0.003,
    min_background_share=0.20,
    min_speed=0.02,
    max_speed=2.0,
    min_change=0.02,
)
STANDARD = Policy(name="standard")
LAX = Policy(
    name="lax",
    min_short_side_px=180,
    min_luminance_p95=25.0,
    max_luminance_p5=245.0,
    min_picture_sharpness=6.0,
    max_damaged_share=0.10,
    min_face_found=0.60,
    min_face_px=12.0,
    min_face_height_full=0.031,
    min_face_height_half=0.031,
    min_face_height_close=0.031,
    min_face_sharpness=30.0,
    min_face_frontal=0.50,
    min_face_single=0.80,
    min_face_complete=0.75,
    min_identity=0.15,
    max_pose_missing=0.30,
    min_person_single=0.70,
    max_drift=0.10,
    max_jump=0.06,
    max_jitter=0.03,
    max_log_zoom=0.10,
    max_roll_deg=4.0,
    min_rigid=0.55,
    max_look=0.12,
    min_points=12.0,
    min_evidence=0.80,
    max_still_change=0.012,
    min_background_share=0.05,
    min_speed=0.0,
    max_speed=5.0,
    min_change=0.004,
)
POLICIES = {policy.name: policy for policy in (STRICT, STANDARD, LAX)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One comparison of a score with a threshold."""

    code: str
    """Reason given when it fails, of a closed list."""
    family: str
    """Group of scores that must have run."""
    score: str
    """Name of the score."""
    threshold: Callable[[Policy, Mapping[str, Any]], float]
    """The policy's threshold, which may depend on other scores."""
    is_minimum: bool
    """True when smaller scores fail, False when larger ones do."""
    is_evidence: bool = False
    """A failure means undetermined, not drop."""


def _at_least(code: str, score: str, field: str, *, is_evidence: bool = False) -> Rule:
    return Rule(
        code=code,
        family=score.split("_", maxsplit=1)[0],
        score=score,
        threshold=lambda policy, _: getattr(policy, field),
        is_minimum=True,
        is_evidence=is_evidence,
    )


def _at_most(code: str, score: str, field: str) -> Rule:
    return replace(_at_least(code, score, field), is_minimum=False)


def _min_face_height(policy: Policy, scores: Mapping[str, Any]) -> float:
    if scores.get("pose_framing") == "full":
        return policy.min_face_height_full
    if scores.get("pose_framing") == "half":
        return policy.min_face_height_half
    return policy.min_face_height_close


RULES = (
    _at_least("low_resolution", "picture_short_side_px", "min_short_side_px"),
    _at_least("too_dark", "picture_luminance_p95", "min_luminance_p95"),
    _at_most("too_bright", "picture_luminance_p5", "max_luminance_p5"),
    _at_least("out_of_focus", "picture_sharpness", "min_picture_sharpness"),
    _at_most("picture_damaged", "picture_damaged_share", "max_damaged_share"),
    _at_least("no_face", "face_found_share", "min_face_found"),
    _at_least("face_too_small", "face_size_px", "min_face_px"),
    Rule(
        code="face_too_small_in_frame",
        family="face",
        score="face_size_share",
        threshold=_min_face_height,
        is_minimum=True,
    ),
    _at_least("face_blurred", "face_sharpness", "min_face_sharpness"),
    _at_least("face_turned_away", "face_frontal_share", "min_face_frontal"),
    _at_least("several_faces", "face_single_share", "min_face_single"),
    _at_least("face_cut_off", "face_complete_share", "min_face_complete"),
    _at_least("identity_changes", "face_identity_p10", "min_identity"),
    _at_most("keypoints_missing", "pose_missing_share_literal", "max_pose_missing"),
    _at_least("several_people", "pose_single_share", "min_person_single"),
    _at_most("camera_drifts", "camera_drift", "max_drift"),
    _at_most("camera_jumps", "camera_jump", "max_jump"),
    _at_most("camera_shakes", "camera_jitter", "max_jitter"),
    _at_most("camera_zooms", "camera_log_zoom", "max_log_zoom"),
    _at_most("camera_rolls", "camera_roll_deg", "max_roll_deg"),
    _at_least("background_moves", "camera_inlier_share", "min_rigid"),
    _at_most("background_changes", "camera_look", "max_look"),
    _at_least("camera_unclear", "camera_num_points", "min_points", is_evidence=True),
    _at_least("camera_unclear", "camera_evidence_share", "min_evidence", is_evidence=True),
    _at_least("nothing_moves", "motion_speed", "min_speed"),
    _at_most("moves_wildly", "motion_speed", "max_speed"),
    _at_least("nothing_moves", "motion_change", "min_change"),
)
FAMILIES = ("picture", "face", "pose", "camera", "motion")
REASON_CODES = tuple(
    dict.fromkeys(
        [
            *(rule.code for rule in RULES),
            *(f"{family}_{state}" for family in FAMILIES for state in ("failed", "not_run")),
        ]
    )
)
"""Every reason that a clip can be dropped for; `_not_run` and `_failed` mean a missing family."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What a policy says about one clip."""

    state: str
    """keep, drop, undetermined (a person must look) or failed (a filter could not run)."""
    reasons: tuple[str, ...]
    """Code, value and threshold of each failed rule, as text."""
    codes: tuple[str, ...]
    """The codes alone, without repetition."""

    @property
    def keep(self) -> bool:
        """True when the clip belongs to the dataset."""
        return self.state == "keep"


def judge(scores: Mapping[str, Any], policy: Policy) -> Verdict:
    """Apply a policy to the raw scores and family states of one clip.

    Args:
        scores: Columns of the clips table: scores, `<family>_state`.
        policy: Thresholds.
    """
    drops: list[tuple[str, str]] = []
    doubts: list[tuple[str, str]] = []
    states = {family: scores.get(f"{family}_state") or "not_run" for family in FAMILIES}
    has_still_background = _has_still_background(scores, policy)
    for rule in RULES:
        if states[rule.family] not in {"ok", "undetermined"}:
            continue
        if rule.family == "camera" and has_still_background:
            continue
        value = scores.get(rule.score)
        limit = rule.threshold(policy, scores)
        if value is None:
            continue  # the score has no meaning here, e.g. the size of a face that is not there
        if (value < limit) if rule.is_minimum else (value > limit):
            sign = "<" if rule.is_minimum else ">"
            reason = (rule.code, f"{rule.code} {value:.3g} {sign} {limit:.3g}")
            (doubts if rule.is_evidence else drops).append(reason)
    failed = [family for family, state in states.items() if state == "failed"]
    not_run = [family for family, state in states.items() if state == "not_run"]
    missing = [(f"{family}_failed", f"{family}_failed") for family in failed]
    missing += [(f"{family}_not_run", f"{family}_not_run") for family in not_run]
    if drops:
        state, chosen = "drop", drops
    elif failed:
        state, chosen = "failed", missing
    elif not_run or doubts:
        state, chosen = "undetermined", [*missing, *doubts]
    else:
        state, chosen = "keep", []
    return Verdict(
        state=state,
        reasons=tuple(text for _, text in chosen),
        codes=tuple(dict.fromkeys(code for code, _ in chosen)),
    )


def _has_still_background(scores: Mapping[str, Any], policy: Policy) -> bool:
    """Return whether too little can be followed because a wall stays as it is."""
    points, evidence = scores.get("camera_num_points"), scores.get("camera_evidence_share")
    if points is None or evidence is None:
        return False
    return (
        (points < policy.min_points or evidence < policy.min_evidence)
        and scores["camera_still_change"] <= policy.max_still_change
        and scores["camera_background_share"] >= policy.min_background_share
    )


def find_policy(policy: str | Policy) -> Policy:
    """Return a policy by name, or the policy itself.

    Raises:
        ConfigError: There is no such name.
    """
    if isinstance(policy, Policy):
        return policy
    if policy not in POLICIES:
        raise ConfigError(
            f"Unknown policy `{policy}`; known are {', '.join(POLICIES)}.",
            fix="Or give a Policy with thresholds of your own.",
        )
    return POLICIES[policy]


def policy_fingerprint(policy: Policy) -> str:
    """Return 16 hexadecimal digits that change with any threshold."""
    return fingerprint(policy)
