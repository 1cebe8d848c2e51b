"""Which source videos are held out: one rule for training and evaluation, told by the seed.

Sources are ordered by a hash of seed and source id; the first ones are held out. All clips of a
source are on the same side, so that no person, room or camera is on both.
"""

from collections.abc import Iterable
from pathlib import Path

from animaray.platform.errors import DatasetError
from animaray.platform.storage import content_id, read_json, write_json_atomic

_TRAINED_FILE = "trained_sources.json"


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
            fix="Curate more videos, or hold none out: --set held_out_share=null.",
            reason="too_few_sources",
        )
    return set(order[: min(len(order) - 1, max(1, round(share * len(order))))])


def write_trained_sources(weights_dir: Path, source_ids: Iterable[str]) -> None:
    """Note beside exported weights which source videos they were trained on."""
    write_json_atomic(weights_dir / _TRAINED_FILE, {"source_ids": sorted(set(source_ids))})


def read_trained_sources(weights_dir: Path) -> set[str]:
    """Return the source videos that weights were trained on; none where nothing is noted."""
    path = weights_dir / _TRAINED_FILE
    return set(read_json(path)["source_ids"]) if path.is_file() else set()
