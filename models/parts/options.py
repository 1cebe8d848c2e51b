"""What a user may choose for the engine that moves a photo by its own parts."""

from dataclasses import dataclass
from typing import Literal

from animaray.platform.errors import ConfigError

Mode = Literal["body", "head"]
"""What `parts` moves: the whole person in layers, or head and shoulders."""
MIN_LONG_SIDE_PX, MAX_LONG_SIDE_PX = 512, 1080
DEFAULT_LONG_SIDE_PX = 768
"""Of a result by parts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PartsOptions:
    """What a user may choose for the engine `parts`."""

    long_side_px: int = DEFAULT_LONG_SIDE_PX
    """Size of the result; small photos are not enlarged beyond 512."""
    mode: Mode | None = None
    """`body` or `head`; None chooses by picture and video."""

    def __post_init__(self) -> None:
        """Refuse a size out of range.

        Raises:
            ConfigError: It is.
        """
        if not MIN_LONG_SIDE_PX <= self.long_side_px <= MAX_LONG_SIDE_PX:
            raise ConfigError(
                f"The long side must have {MIN_LONG_SIDE_PX} to {MAX_LONG_SIDE_PX} pixels, got"
                f" {self.long_side_px}."
            )
