"""Clips: trimmed at cuts only, split evenly, ids from content."""

import pytest

from animaray.pipelines.stages.clips import ADDS, DROPS, ClipsConfig, clip_spans, split_clips


def shot(start_s: float, end_s: float, *, before: bool = False, after: bool = False) -> dict:
    return {"start_s": start_s, "end_s": end_s, "cut_before": before, "cut_after": after}


def source(*shots: dict) -> dict:
    return {
        "source_id": "s", "sha256": "abc", "shots": list(shots), "hashes": [1],
        "motion_signature": b"", "state": None,
    }  # fmt: skip


def test_only_real_cuts_are_trimmed() -> None:
    assert clip_spans(shot(0, 4), ClipsConfig()) == [(0, 4)]
    assert clip_spans(shot(1, 4, before=True, after=True), ClipsConfig()) == [(1.5, 3.5)]


def test_long_shots_are_split_evenly() -> None:
    spans = clip_spans(shot(0, 50), ClipsConfig(max_clip_s=20.0))
    assert [round(end - start, 6) for start, end in spans] == [pytest.approx(50 / 3)] * 3
    assert spans[0][1] == spans[1][0]


def test_short_remainders_are_no_clip() -> None:
    assert clip_spans(shot(0, 1.9, before=True, after=True), ClipsConfig()) == []
    assert len(clip_spans(shot(0, 1.0), ClipsConfig())) == 1


def test_ids_depend_on_bytes_and_span_alone() -> None:
    one, two = split_clips(source(shot(0, 2), shot(3, 6)), ClipsConfig())
    again = split_clips({**source(shot(0, 2)), "uri": "elsewhere"}, ClipsConfig())[0]
    assert one["clip_id"] == again["clip_id"] != two["clip_id"]
    assert (one["num_clips"], two["clip_index"]) == (2, 1)
    assert (two["start_pts_90k"], two["end_pts_90k"]) == (270_000, 540_000)
    assert set(ADDS) <= set(one)
    assert not set(DROPS) & set(one)


def test_source_without_a_long_shot_ends_as_dropped() -> None:
    (row,) = split_clips(source(shot(0, 0.5)), ClipsConfig())
    assert (row["state"], row["reason"], row["clip_id"]) == ("dropped", "too_short", None)
    assert "longest shot 0.50 s" in row["detail"]
    assert set(ADDS) <= set(row)


def test_number_of_clips_is_bounded() -> None:
    assert len(split_clips(source(shot(0, 100)), ClipsConfig(max_clips_per_source=2))) == 2
