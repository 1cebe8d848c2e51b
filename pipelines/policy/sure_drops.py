"""Tell from the scores that were measured so far which clips every policy drops."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from animaray.datasets.schemas import FAMILIES
from animaray.pipelines.policy.policies import THRESHOLDS, Policy
from animaray.pipelines.policy.rules import judge

_EXEMPTING = ("min_points", "min_evidence")
"""A still background is accepted where these fail: more clips are spared where they are higher."""
_COUNTED = ("min_face_found", "min_face_frontal", "min_face_single", "min_face_complete",
            "min_person_single", "min_identity")  # fmt: skip
"""Shares of frames, or of what they are made of: where each frame is near the border of what counts
a share may be any other for a slightly other picture. The margin is taken three times."""
_MISSING = ("max_pose_missing", "max_pose_missing_strict")
_SURELY_MISSING = 0.8
"""The same of shares that may be high: .26 in a stored clip was .59 in its source (v22)."""


def is_dropped_by_all(
    row: Mapping[str, Any], policies: Iterable[Policy], *, margin: float = 1.0
) -> bool:
    """Return whether every policy drops a clip, whatever else is measured of it.

    Args:
        row: With `<family>_scores` and `<family>_state` of what was measured.
        policies: All that a clip might be kept by.
        margin: In (0, 1]: limits are this much easier to keep than they are.
    """
    scores: dict[str, Any] = {}
    for family in FAMILIES:
        scores |= row.get(f"{family}_scores") or {}
        scores[f"{family}_state"] = row.get(f"{family}_state") or "not_run"
    return all(judge(scores, eased(policy, margin)).state == "drop" for policy in policies)


def eased(policy: Policy, margin: float) -> Policy:
    """Return a policy whose limits are easier to keep.

    Args:
        margin: In (0, 1]: what least values are multiplied by, and largest ones divided.
    """
    limits: dict[str, Any] = {}
    for name in THRESHOLDS:
        limit = getattr(policy, name)
        if limit is not None and margin < 1.0:
            limits[name] = _eased(name, limit, margin)
    return replace(policy, **limits)


def _eased(name: str, limit: float, margin: float) -> float:
    if name in _MISSING:
        return max(limit / margin, _SURELY_MISSING)
    if name in _COUNTED:
        return limit * margin**3
    is_minimum = name.startswith("min_") and name not in _EXEMPTING
    return limit * margin if is_minimum else limit / margin
