"""Accelerators by name, and the memory that a program gets of each."""

from dataclasses import dataclass

from animaray.platform.errors import UsageError

_CONTEXT_GIB = 0.6
"""What the driver's context and PyTorch's kernels take before the first tensor."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """One kind of accelerator."""

    name: str
    """In commands."""
    title: str
    """As its maker calls it."""
    total_gib: float
    """What nvidia-smi shows, GiB."""

    @property
    def usable_bytes(self) -> int:
        """What is left for tensors."""
        return int((self.total_gib - _CONTEXT_GIB) * 2**30)


CARDS: dict[str, Card] = {
    name: Card(name=name, title=title, total_gib=total_gib)
    for name, title, total_gib in (
        ("4090", "GeForce RTX 4090", 24.0),
        ("5090", "GeForce RTX 5090", 31.8),
        ("a100-40", "A100 40 GB", 40.0),
        ("l40s", "L40S", 45.0),
        ("a100-80", "A100 80 GB", 80.0),
        ("h100", "H100 80 GB", 79.6),
        ("h200", "H200", 140.4),
        ("b200", "B200", 179.0),
    )
}
"""The known ones, by what they hold."""


def card_named(name: str) -> Card:
    """Return a card by its name, in any case.

    Raises:
        UsageError: It is not known.
    """
    card = CARDS.get(name.lower().replace("_", "-"))
    if card is None:
        raise UsageError(f"Unknown card `{name}`.", fix=f"Known: {', '.join(CARDS)}.")
    return card
