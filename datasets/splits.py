"""Which source videos are held out: one rule for training and evaluation, told by the seed.

Sources are ordered by a hash of seed and source id; the first ones are held out. All clips of a
source are on the same side, so that no person, room or camera is on both.
"""

from collections.abc import Iterable

from animaray.platform.errors import DatasetError
from animaray.platform.storage import content_id


def held_out_sources(source_ids: Iterable[str], share: float, seed: int) -> set[str]:
    """Return the held-out sources: at least one, and never all.

    Args:
        source_ids: Source of each clip; repeats do not matter, nor does the order.
        share: Share of sources to hold out, in (0, 1).
        seed: Equal seeds hold out equal sources.

    Raises:
        DatasetError: There are fewer than two sources.
    """
    order = sorted(set(source_ids), key=lambda source: content_id(seed, source))
    if len(order) < 2:
        raise DatasetError(
            f"At least two source videos are needed to hold one out, got {len(order)}.",
            fix="Curate more videos.",
            reason="too_few_sources",
        )
    return set(order[: min(len(order) - 1, max(1, round(share * len(order))))])
