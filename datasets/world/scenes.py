"""Static backgrounds, drawn from a seed, larger than the frame so that a camera can move.

Each has plenty of corners at all scales, so that optical flow can be tracked on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import UInt8

from animaray.datasets.world.cameras import Similarity
from animaray.datasets.world.painter import MARGIN, Painter
from animaray.datasets.world.places import PLACES
from animaray.platform.errors import ConfigError

SCENE_KINDS = tuple(PLACES)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """One background."""

    picture: UInt8[np.ndarray, "tall wide 3"]
    """RGB; the frame at rest is its middle part."""
    size: tuple[int, int]
    """Width and height of the frame, px."""

    def seen_by(self, camera: Similarity) -> UInt8[np.ndarray, "height width 3"]:
        """Return the frame that the moved camera sees."""
        width, height = self.size
        middle = complex((width - 1) / 2, (height - 1) / 2)
        matrix = camera.matrix(middle=middle)
        offset = np.array([round(MARGIN * width), round(MARGIN * height)])
        matrix[:, 2] -= matrix[:, :2] @ offset
        return cv2.warpAffine(
            self.picture, matrix, self.size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )


def make_scene(
    kind: str, *, seed: int, size: tuple[int, int], metre_px: float, base_y: float
) -> Scene:
    """Draw a background, or take it from the last few drawn.

    Args:
        kind: One of SCENE_KINDS.
        seed: Seed of everything in it.
        size: Width and height of the frame, px.
        metre_px: One metre at the wall, px.
        base_y: Where wall and floor meet in the frame, px.

    Returns:
        The background.

    Raises:
        ConfigError: The kind is not known.
    """
    if kind not in PLACES:
        raise ConfigError(
            f"expected a scene kind out of {SCENE_KINDS}, got {kind!r}; choose one of them"
        )
    return _cached_scene(kind, seed, size, round(metre_px, 2), round(base_y, 1))


@lru_cache(maxsize=96)
def _cached_scene(
    kind: str, seed: int, size: tuple[int, int], metre_px: float, base_y: float
) -> Scene:
    painter = Painter(size, metre_px, complex(size[0] / 2, base_y), seed)
    PLACES[kind](painter)
    painter.grain(3.2)
    painter.pixels.setflags(write=False)
    return Scene(picture=painter.pixels, size=size)
