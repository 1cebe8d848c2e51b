"""The rule that holds sources out."""

import pytest

from animaray.datasets.splits import held_out_sources
from animaray.platform.errors import DatasetError

SOURCES = [f"s{index}" for index in range(10)]


def test_share_is_kept_and_order_does_not_matter() -> None:
    held_out = held_out_sources(SOURCES, 0.3, seed=1)
    assert len(held_out) == 3
    assert held_out == held_out_sources(SOURCES[::-1] * 2, 0.3, seed=1)
    assert held_out < set(SOURCES)


def test_seeds_hold_out_other_sources() -> None:
    assert len({frozenset(held_out_sources(SOURCES, 0.2, seed)) for seed in range(8)}) > 1


@pytest.mark.parametrize(("share", "count"), [(0.01, 1), (0.99, 1), (0.5, 1)])
def test_of_two_sources_one_is_held_out(share: float, count: int) -> None:
    assert len(held_out_sources(["a", "b"], share, seed=0)) == count


def test_one_source_cannot_be_split() -> None:
    with pytest.raises(DatasetError, match="At least two source videos are needed"):
        held_out_sources(["a", "a"], 0.5, seed=0)
