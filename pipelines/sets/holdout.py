"""Hold people out of training for evaluation (Unseen100 style), evenly over declared strata.

A stratum is framing (full, half, close) and how much the person moves (calm, lively, wild: thirds
of the kept clips). People are held out, not clips: clips that share a source or a person, directly
or through others, are on one side. Nothing is inferred about who somebody is.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from animaray.datasets.reader import CurationDataset
from animaray.pipelines.sets.identities import group_clips, same_person_limit
from animaray.platform.errors import DatasetError
from animaray.platform.storage import content_id

MOTION = ("calm", "lively", "wild")
_MAX_SHARE = 0.5


def hold_out(
    root: str | Path,
    *,
    count: int = 100,
    seed: int = 0,
    policy: str = "standard",
    min_cosine: float | None = None,
) -> dict[str, Any]:
    """Choose evaluation clips, one per held-out person, and the clips that training may use.

    Strata take turns; within one, people come in the order of a hash of the seed. At most half of
    the people are held out.

    Args:
        count: Evaluation clips wanted; fewer where there are fewer people.
        seed: Same seed and dataset, same choice.
        min_cosine: Similarity from which two clips show the same person; None takes the limit of
            whoever embedded them.

    Raises:
        DatasetError: The kept clips show fewer than two people.
    """
    # People of the kept clips: clips whose faces are alike belong to one person.
    dataset = CurationDataset.open(root)
    kept = set(dataset.clip_ids(policy))
    clips = [clip for clip in dataset.clips() if clip["clip_id"] in kept]
    limit = same_person_limit(clips) if min_cosine is None else min_cosine
    groups = group_clips(clips, min_cosine=limit).tolist()
    num_groups = len(set(groups))
    if num_groups < 2:
        raise DatasetError(
            f"Policy {policy} keeps clips of {num_groups} people; one of two must be held out.",
            fix="Curate more videos, or choose another policy.",
            reason="too_few_people",
        )
    # One clip of a person, evenly over framing and motion.
    strata = _strata(clips)
    most = min(count, int(num_groups * _MAX_SHARE))
    chosen = _choose(clips, groups, strata, most, seed)
    held = {groups[place] for place in chosen}
    items = [
        {
            "clip_id": clips[place]["clip_id"],
            "source_id": clips[place]["source_id"],
            "file": clips[place]["file_name"],
            "person": groups[place],
            "framing": strata[place][0],
            "motion": strata[place][1],
        }
        for place in chosen
    ]
    # Whoever is held out appears in no clip of training.
    excluded = [clip for place, clip in enumerate(clips) if groups[place] in held]
    training = [clip for place, clip in enumerate(clips) if groups[place] not in held]
    return {
        "kind": "holdout",
        "recipe_version": 1,
        "source": str(root),
        "dataset_version": dataset.snapshot.version,
        "policy": policy,
        "seed": seed,
        "min_cosine": limit,
        "num_people": num_groups,
        "strata": {
            f"{framing} {motion}": {"kept": number, "held_out": _count(items, framing, motion)}
            for (framing, motion), number in sorted(Counter(strata).items())
        },
        "items": items,
        "excluded_sources": sorted({clip["source_id"] for clip in excluded}),
        "num_excluded_clips": len(excluded),
        "training_clips": sorted(clip["clip_id"] for clip in training),
    }


def _strata(clips: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    speeds = np.array([clip["motion_speed"] or 0.0 for clip in clips])
    thirds = np.quantile(speeds, [1 / 3, 2 / 3])
    return [
        (clip["pose_framing"] or "unknown", MOTION[int(np.searchsorted(thirds, speed, "right"))])
        for clip, speed in zip(clips, speeds, strict=True)
    ]


def _choose(
    clips: Sequence[Mapping[str, Any]],
    groups: Sequence[int],
    strata: Sequence[tuple[str, str]],
    most: int,
    seed: int,
) -> list[int]:
    """Return the places of the chosen clips: strata take turns, each person gives one clip."""
    queues: dict[tuple[str, str], list[int]] = {}
    order = sorted(
        range(len(clips)), key=lambda place: content_id("holdout", seed, clips[place]["clip_id"])
    )
    for place in order:
        queues.setdefault(strata[place], []).append(place)
    chosen: list[int] = []
    used: set[int] = set()
    while len(chosen) < most and any(queues.values()):
        for stratum in sorted(queues):
            queue = queues[stratum]
            while queue and groups[queue[0]] in used:
                queue.pop(0)
            if queue and len(chosen) < most:
                place = queue.pop(0)
                used.add(groups[place])
                chosen.append(place)
    return chosen


def _count(items: Sequence[Mapping[str, Any]], framing: str, motion: str) -> int:
    return sum(item["framing"] == framing and item["motion"] == motion for item in items)
