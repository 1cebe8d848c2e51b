"""Whom the demo animates: another person than the driver, frontal, framed alike."""

import numpy as np
import pytest

from animaray.cli.demo.choice import ClipFacts, choose_pair, group_identities
from animaray.platform.errors import DatasetError


def _facts(clip_id: str, angle: float, **changes: float) -> ClipFacts:
    identity = np.array([np.cos(angle), np.sin(angle)], np.float32)
    values = {
        "face_share": 0.2, "coverage": 14.0, "motion": 0.3, "frontality": 0.9, "arms_shown": 1.0,
        **changes,
    }  # fmt: skip
    return ClipFacts(clip_id=clip_id, identity=identity, best_frame=0, **values)


def test_driver_is_another_person_and_the_liveliest() -> None:
    facts = [
        _facts("a", 0.0, frontality=1.0, motion=0.1),
        _facts("same person", 0.1, motion=0.6),
        _facts("b", 1.5, motion=0.2, frontality=0.2),
        _facts("c", 3.0, motion=0.5, frontality=0.2),
    ]
    pair = choose_pair(facts)
    assert pair.reference.clip_id == "a"
    assert pair.driving.clip_id == "c"


def test_equal_framing_beats_a_little_more_motion() -> None:
    facts = [
        _facts("a", 0.0, frontality=1.0),
        _facts("close-up", 1.5, face_share=0.6, motion=0.5, frontality=0.0),
        _facts("alike", 3.0, face_share=0.21, motion=0.3, frontality=0.0),
    ]
    assert choose_pair(facts).driving.clip_id == "alike"


def test_a_reference_shows_its_arms() -> None:
    facts = [
        _facts("hands outside", 0.0, frontality=1.0, arms_shown=0.3, motion=0.0),
        _facts("whole", 1.5, frontality=0.9, motion=0.0),
        _facts("driver", 3.0, frontality=0.0, motion=0.5),
    ]
    assert choose_pair(facts).reference.clip_id == "whole"


def test_one_person_alone_is_refused() -> None:
    with pytest.raises(DatasetError, match="two different people, got 2 clips"):
        choose_pair([_facts("a", 0.0), _facts("b", 0.05)])


def test_clips_are_grouped_by_person() -> None:
    groups = group_identities([_facts("a", 0.0), _facts("b", 0.1), _facts("c", 2.0)])
    assert [[fact.clip_id for fact in members] for members in groups.values()] == [
        ["a", "b"],
        ["c"],
    ]
