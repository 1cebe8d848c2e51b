"""Cut shots into clips of one to twenty seconds.

Reads: source_id, sha256, shots. Adds: clip_id, clip_start_s, clip_end_s, start_pts_90k,
end_pts_90k, splitter, clip_index, num_clips. Drops: shots, hashes, motion_signature. One row
becomes one row per clip; a source without a long enough shot keeps one row without a clip and
ends as dropped.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from animaray.platform.storage import content_id

READS = ("source_id", "sha256", "shots")
ADDS = (
    "clip_id", "clip_start_s", "clip_end_s", "start_pts_90k", "end_pts_90k", "splitter",
    "clip_index", "num_clips",
)  # fmt: skip
DROPS = ("shots", "hashes", "motion_signature")

SPLITTER = "adaptive+content+mix+break/3"
"""Part of every clip id: a splitter that cuts elsewhere makes other clips."""
_MAX_GROUP_S = 120.0
"""Footage that one worker measures before anything of it is committed."""
_ROUNDS = 4
"""Groups that each worker would get of what is left, if all were equal."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipsConfig:
    """How long clips are."""

    min_clip_s: float = 1.0
    """Shorter spans are no clip, seconds."""
    max_clip_s: float = 20.0
    """Longer shots are split evenly, seconds."""
    trim_s: float = 0.5
    """Cut away beside a cut, fade or dissolve, seconds; a video's own ends stay."""
    max_clips_per_source: int = 200
    """Clips beyond this many are not made."""


def split_clips(row: dict[str, Any], config: ClipsConfig) -> list[dict[str, Any]]:
    """Return one row per clip of a source."""
    every_span = itertools.chain.from_iterable(clip_spans(shot, config) for shot in row["shots"])
    spans = list(itertools.islice(every_span, config.max_clips_per_source))
    kept = {name: value for name, value in row.items() if name not in DROPS}
    if not spans:
        longest_s = max((shot["end_s"] - shot["start_s"] for shot in row["shots"]), default=0.0)
        empty: dict[str, Any] = {**dict.fromkeys(ADDS), "num_clips": 0, "clip_index": 0}
        detail = f"longest shot {longest_s:.2f} s, after trimming under {config.min_clip_s:g} s"
        return [{**kept, **empty, "state": "dropped", "reason": "too_short", "detail": detail}]
    rows = []
    for index, (start_s, end_s) in enumerate(spans):
        start_pts, end_pts = round(start_s * 90_000), round(end_s * 90_000)
        rows.append(
            {
                **kept,
                "clip_id": content_id("clip", row["sha256"], start_pts, end_pts, SPLITTER),
                "clip_start_s": start_s,
                "clip_end_s": end_s,
                "start_pts_90k": start_pts,
                "end_pts_90k": end_pts,
                "splitter": SPLITTER,
                "clip_index": index,
                "num_clips": len(spans),
            }
        )
    return rows


def clip_spans(shot: dict[str, Any], config: ClipsConfig) -> list[tuple[float, float]]:
    """Return the spans of the clips of one shot: start and end in seconds, end exclusive."""
    start_s = shot["start_s"] + (config.trim_s if shot["cut_before"] else 0.0)
    end_s = shot["end_s"] - (config.trim_s if shot["cut_after"] else 0.0)
    length_s = end_s - start_s
    if length_s < config.min_clip_s - 1e-6:
        return []
    pieces = max(1, math.ceil((length_s - 1e-6) / config.max_clip_s))
    piece_s = length_s / pieces
    # A forged time stamp makes a shot of years.
    pieces = min(pieces, config.max_clips_per_source)
    return [(start_s + i * piece_s, start_s + (i + 1) * piece_s) for i in range(pieces)]


def deal_clips(
    sources: Sequence[Sequence[dict[str, Any]]], num_workers: int
) -> list[list[list[dict[str, Any]]]]:
    """Deal clips to workers: large groups first, single clips at the end, so that all end together.

    A group is measured by one worker and lies in files of its own; a bundle is what is committed
    together. Short sources share a group, a long one has a bundle of groups for itself: else each
    bundle would have to wait for the next one.

    Args:
        sources: Clips of each source, in the order in which they are to be begun.

    Returns:
        Bundles of groups of clips.
    """
    left_s = sum(_length_s(clips) for clips in sources)
    bundles: list[list[list[dict[str, Any]]]] = []
    shared: list[dict[str, Any]] = []
    for clips in sources:
        share_s = min(_MAX_GROUP_S, left_s / (_ROUNDS * num_workers))
        left_s -= _length_s(clips)
        if _length_s(clips) > share_s:
            groups: list[list[dict[str, Any]]] = [[]]
            for clip in clips:
                if groups[-1] and _length_s([*groups[-1], clip]) > share_s:
                    groups.append([])
                groups[-1].append(clip)
            bundles.append(groups)
            continue
        shared.extend(clips)
        if _length_s(shared) >= share_s:
            bundles.append([shared])
            shared = []
    return [*bundles, [shared]] if shared else bundles


def _length_s(clips: Sequence[dict[str, Any]]) -> float:
    return sum(clip["clip_end_s"] - clip["clip_start_s"] for clip in clips)
