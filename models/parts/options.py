"""What a user may choose for the engine that moves a photo by its own parts."""

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from animaray.platform.options import STRICT, Options

Mode = Literal["body", "head"]
"""What `parts` moves: the whole person in layers, or head and shoulders."""
MIN_LONG_SIDE_PX = 512
"""Of a result by parts; smaller photos are enlarged to it."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PartsOptions(Options):
    """What a user may choose for the engine `parts`."""

    long_side_px: int = Field(
        default=768,
        ge=MIN_LONG_SIDE_PX,
        le=1080,
        description="Long side of the result of `parts`, in pixels; small photos are not enlarged"
        " beyond 512.",
    )
    mode: Mode | None = Field(
        default=None,
        description="What `parts` moves: the whole body, or head and shoulders. Left out: what"
        " picture and video allow.",
    )
