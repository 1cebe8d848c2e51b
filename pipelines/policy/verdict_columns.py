"""Say what every shipped policy thinks of a clip, and whether its video is worth storing.

Reads: picture_scores, face_scores, pose_scores, camera_scores, motion_scores, text_scores and the
families' states. Adds: scores, verdicts, stores_media. Drops: the score columns.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from animaray.datasets.schemas import FAMILIES
from animaray.pipelines.policy.policies import Policy
from animaray.pipelines.policy.rules import judge

READS = (
    *(f"{family}_scores" for family in FAMILIES),
    *(f"{family}_state" for family in FAMILIES),
)
ADDS = ("scores", "verdicts", "stores_media")
DROPS = tuple(f"{family}_scores" for family in FAMILIES)


def add_verdicts(
    row: Mapping[str, Any], policies: Sequence[Policy], store_media: str
) -> dict[str, Any]:
    """Judge one clip.

    Args:
        row: The clip, with what every family measured.
        policies: All policies to apply; the first is the run's own.
        store_media: kept (by the run's policy), shipped (not dropped by every policy) or all.
    """
    scores: dict[str, Any] = {}
    for family in FAMILIES:
        scores |= row.get(f"{family}_scores") or {}
        scores[f"{family}_state"] = row.get(f"{family}_state") or "not_run"
        scores[f"{family}_note"] = row.get(f"{family}_note")
        scores[f"{family}_producer"] = row.get(f"{family}_producer")
    if row.get("state") == "failed":
        # The clip could not even be cut out: the first family carries the reason.
        scores["picture_state"] = "failed"
        scores["picture_note"] = f"{row['reason']}: {row['detail']}"
    verdicts = {policy.name: judge(scores, policy) for policy in policies}
    states = [verdict.state for verdict in verdicts.values()]
    stores = {
        "kept": states[0] == "keep",
        "shipped": any(state in {"keep", "undetermined"} for state in states),
        "all": True,
    }[store_media]
    rest = {name: value for name, value in row.items() if name not in DROPS}
    has_media = row.get("media_path") is not None
    return {
        **rest, "scores": scores, "verdicts": verdicts, "stores_media": stores and has_media,
    }  # fmt: skip
