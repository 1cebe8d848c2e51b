"""Join rendered shots by cuts, dissolves and fades at known frames."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from animaray.platform.errors import ConfigError

Frames = UInt8[np.ndarray, "_ height width 3"]

TRANSITIONS = ("cut", "dissolve", "fade")


@dataclass(frozen=True, kw_only=True, slots=True)
class Transition:
    """Where one shot becomes the next."""

    kind: str
    """One of TRANSITIONS; a fade goes to black and comes back."""
    first: int
    """First frame that does not show the old shot alone; of a cut the new shot's first."""
    last: int
    """Last frame that does not show the new shot alone; of a cut the same as `first`."""


def join_shots(
    shots: Sequence[Frames], kinds: Sequence[str], lengths: Sequence[int]
) -> tuple[Frames, list[Transition]]:
    """Return the joined frames and their transitions.

    Args:
        shots: Frames of equal size.
        kinds: Of the transitions between them, each of TRANSITIONS.
        lengths: Mixed frames of each; not used by a cut.

    Raises:
        ConfigError: A shot is too short for its transitions, or a kind is not known.
    """
    joined, transitions = list(shots[0]), []
    for shot, kind, length in zip(shots[1:], kinds, lengths, strict=True):
        if kind not in TRANSITIONS:
            raise ConfigError(f"expected a transition out of {TRANSITIONS}, got {kind!r}")
        if kind == "cut":
            transitions.append(Transition(kind=kind, first=len(joined), last=len(joined)))
            joined += list(shot)
            continue
        if length >= min(len(joined), len(shot)):
            raise ConfigError(f"expected shots of more than {length} frames, got {len(shot)}")
        first = len(joined) - length
        old, new = np.stack(joined[first:]), shot[:length]
        share = np.arange(1, length + 1) / (length + 1)
        joined[first:] = list(_mixed(kind, old, new, share))
        transitions.append(Transition(kind=kind, first=first, last=first + length - 1))
        joined += list(shot[length:])
    return np.stack(joined), transitions


def _mixed(kind: str, old: Frames, new: Frames, share: np.ndarray) -> Frames:
    share = share[:, None, None, None]
    if kind == "dissolve":
        mixed = (1 - share) * old + share * new
    else:
        mixed = np.where(share < 0.5, (1 - 2 * share) * old, (2 * share - 1) * new)
    return mixed.astype(np.uint8)
