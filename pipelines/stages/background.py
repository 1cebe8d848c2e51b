"""Tell which part of a picture is background, and how much of it changes."""

import cv2
import numpy as np
from jaxtyping import Bool, Float64, UInt8

View = tuple[UInt8[np.ndarray, "height width 3"], Bool[np.ndarray, "height width"]]
"""A picture and where it shows background."""

_LEAST_REACH_PX = 10
_TOUCHES_PX = 4
"""What changes so near to people is in one piece with them."""
_CHANGED = 0.06
"""Change of luminance, of 1, that an arm before a wall makes."""
_LIMB_AREA, _LIMB_BACKGROUND = 0.35, 0.5
"""What limbs cover at most, of the people's area and of the background."""


def background_mask(
    people: Bool[np.ndarray, "height width"], *, padding_px: int, margin_share: float
) -> Bool[np.ndarray, "height width"]:
    """Return where the picture shows background: not near people, not at its border.

    Args:
        people: Where people are.
        padding_px: People are drawn this much wider.
        margin_share: Width of the border, of the short side.
    """
    side = 2 * padding_px + 1
    grown = cv2.dilate(people.astype(np.uint8), np.ones((side, side), dtype=np.uint8))
    mask = np.zeros(people.shape, dtype=bool)
    inner = _inside_margin(people.shape, margin_share)
    mask[inner] = grown[inner] == 0
    return mask


def _inside_margin(shape: tuple[int, ...], share: float) -> tuple[slice, slice]:
    """Return the part of a picture inside its border of a share of the short side."""
    height, width = shape
    margin = round(share * min(shape))
    return slice(margin, height - margin), slice(margin, width - margin)


def far_from_people(
    mask: Bool[np.ndarray, "height width"], share: float, margin_share: float
) -> Bool[np.ndarray, "height width"]:
    """Return the background that is further from people than a share of the root of their area."""
    people = ~mask[_inside_margin(mask.shape, margin_share)]
    reach = max(_LEAST_REACH_PX, round(share * float(people.sum()) ** 0.5))
    near = cv2.erode(mask.astype(np.uint8), np.ones((2 * reach + 1,) * 2, dtype=np.uint8))
    return near > 0


def background_change(
    first: View,
    second: View,
    transform: Float64[np.ndarray, "2 3"],
    *,
    spared_margin: float | None = None,
) -> float:
    """Return the mean change of luminance (of 1) where both views show background.

    Args:
        first: An earlier view.
        second: A later one.
        transform: Similarity from the first to the second, pixels.
        spared_margin: Given the border's share, what changes in one piece with the people is taken
            for an arm or hair that the masks do not know, as long as it is no larger than limbs
            are. None counts every change.
    """
    height, width = first[1].shape
    options = {"flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP}
    back = cv2.warpAffine(second[0], transform, (width, height), **options)
    seen = cv2.warpAffine(second[1].astype(np.uint8), transform, (width, height), **options)
    mask = first[1] & (seen > 0)
    if not mask.any():
        return 0.0
    one, two = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (first[0], back))
    change = cv2.absdiff(one, two).astype(np.float32) / 255.0
    if spared_margin is not None:
        mask &= ~_unknown_limbs(change, mask, spared_margin)
    return float(change[mask].mean())


def _unknown_limbs(
    change: np.ndarray, mask: Bool[np.ndarray, "height width"], margin_share: float
) -> Bool[np.ndarray, "height width"]:
    """Return what changes of the background in one piece with the people, if it may be limbs."""
    nothing = np.zeros_like(mask)
    inner = _inside_margin(mask.shape, margin_share)
    people = nothing.copy()
    people[inner] = ~mask[inner]
    smooth = cv2.GaussianBlur(change, (0, 0), 1.5)
    changed = (mask & (smooth > _CHANGED)).astype(np.uint8)
    _, pieces = cv2.connectedComponents(changed, connectivity=8)
    side = 2 * _TOUCHES_PX + 1
    beside = cv2.dilate(people.astype(np.uint8), np.ones((side, side), dtype=np.uint8)) > 0
    touching = np.unique(pieces[beside & (pieces > 0)])
    limbs: Bool[np.ndarray, "height width"] = np.isin(pieces, touching)
    # The edge of a limb changes a little less.
    limbs = mask & (cv2.dilate(limbs.astype(np.uint8), np.ones((5, 5), dtype=np.uint8)) > 0)
    most = min(_LIMB_AREA * people.sum(), _LIMB_BACKGROUND * mask.sum())
    return limbs if limbs.sum() <= most else nothing
