"""The background that shows where the person was: one still picture, original pixels kept."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8
from scipy.ndimage import distance_transform_edt

from animaray.models.parts.patch_fill import fill_by_patches

_SQUARE = np.ones((3, 3), np.uint8)
_MAX_GRAIN = 3.0
"""Most film grain that is added, grey levels."""
TEXTURED = 10.0
"""From this mean brightness step on (grey levels a pixel) the surroundings count as textured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BackgroundPlate:
    """The background without the person."""

    picture: Float32[np.ndarray, "height width 3"]
    """RGB in [0, 255]; the photo's own pixels where the person is not near."""
    invented: Bool[np.ndarray, "height width"]
    """Where it is not the photo's."""
    is_patched: bool
    """Whether texture was copied in (patches), or colours only ran in."""


def make_plate(
    picture: UInt8[np.ndarray, "height width 3"], alpha: Float32[np.ndarray, "height width"]
) -> BackgroundPlate:
    """Fill the place of the person from around it; textured surroundings by patches."""
    reach = max(3, round(0.012 * max(alpha.shape)))
    hole = cv2.dilate((alpha > 0.03).astype(np.uint8), _SQUARE, iterations=reach)
    around = cv2.dilate(hole, _SQUARE, iterations=3 * reach) > hole
    is_patched = bool(around.any()) and _roughness(picture, around) > TEXTURED
    filled = fill_by_patches(picture, hole > 0) if is_patched else _run_in(picture, hole)
    # A soft seam of one pixel inside the invented part; pixels outside stay bit for bit.
    seam = cv2.GaussianBlur(hole.astype(np.float32), (0, 0), 1.2)
    weight = (np.clip(seam * 2 - 1, 0.0, 1.0) * hole)[..., None]
    plate = (picture * (1 - weight) + filled * weight).astype(np.float32)
    return BackgroundPlate(picture=plate, invented=hole > 0, is_patched=is_patched)


def _run_in(
    picture: UInt8[np.ndarray, "height width 3"], hole: UInt8[np.ndarray, "height width"]
) -> Float32[np.ndarray, "height width 3"]:
    """Let the colours run in at a quarter of the size (sharper fills look worse), with grain."""
    height, width = hole.shape
    size = max(1, width // 4), max(1, height // 4)
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    small_hole = cv2.resize(hole, size, interpolation=cv2.INTER_NEAREST)
    small_hole = cv2.dilate(small_hole, _SQUARE)
    small = cv2.inpaint(small, small_hole, 5, cv2.INPAINT_TELEA)
    filled = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    grain = picture.astype(np.float32)
    grain -= cv2.GaussianBlur(grain, (0, 0), 1.5)
    ring = (cv2.dilate(hole, _SQUARE, iterations=9) > 0) & (hole == 0)
    level = np.zeros(3)
    if ring.any():
        level = np.minimum(1.48 * np.median(np.abs(grain[ring]), axis=0), _MAX_GRAIN)
    noise = np.random.default_rng(0).normal(size=filled.shape) * level
    grainy: Float32[np.ndarray, "height width 3"] = (filled + noise).astype(np.float32)
    return grainy


def _roughness(
    picture: UInt8[np.ndarray, "height width 3"], where: Bool[np.ndarray, "height width"]
) -> float:
    """Return the mean size of brightness steps, grey levels a pixel."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    steps = np.hypot(cv2.Sobel(grey, -1, 1, 0), cv2.Sobel(grey, -1, 0, 1)) / 8.0
    return float(steps[where].mean())


def spread_colours(
    picture: Float32[np.ndarray, "height width 3"], known: Bool[np.ndarray, "height width"]
) -> Float32[np.ndarray, "height width 3"]:
    """Give unknown pixels the nearest known one's colour, smoother with the distance.

    Args:
        known: Pixels that are kept; where there is none, the picture comes back.
    """
    if not known.any():
        return picture
    distance, nearest = distance_transform_edt(~known, return_indices=True)
    copied = picture[nearest[0], nearest[1]]
    smooth = cv2.GaussianBlur(copied, (0, 0), 3)
    far = np.clip(distance / 8.0, 0.0, 1.0)[..., None]
    spread = np.where(known[..., None], picture, copied * (1 - far) + smooth * far)
    return np.asarray(spread, np.float32)
