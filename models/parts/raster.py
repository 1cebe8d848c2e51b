"""Draw moved triangles: for every pixel of a box, the place in the photo that it shows."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Float32, Float64, Int32, Int64

OUTSIDE = -9.0
"""Map value of pixels that no triangle covers: outside of any texture."""
_FRACTION_BITS = 4
"""Of the corners when triangles are filled: a sixteenth of a pixel."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """A rectangle of whole pixels; right and bottom lie behind the last ones."""

    left: int
    top: int
    right: int
    bottom: int

    @classmethod
    def around(
        cls, points: Float[np.ndarray, "points 2"], width: int, height: int, margin: int = 1
    ) -> "Box":
        """Return the box of points, within a picture of that size; it may be empty."""
        low = np.floor(points.min(axis=0)).astype(int) - margin
        high = np.ceil(points.max(axis=0)).astype(int) + margin + 1
        left, right = np.clip([low[0], high[0]], 0, width).tolist()
        top, bottom = np.clip([low[1], high[1]], 0, height).tolist()
        return cls(left=left, top=top, right=right, bottom=bottom)

    @property
    def is_empty(self) -> bool:
        """Whether there is no pixel in it."""
        return self.right <= self.left or self.bottom <= self.top

    @property
    def slices(self) -> tuple[slice, slice]:
        """Its rows and columns of a picture."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def corner(self) -> Float64[np.ndarray, " 2"]:
        """Its left upper pixel."""
        return np.array([self.left, self.top], np.float64)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.bottom - self.top, self.right - self.left


def empty_map(box: Box) -> Float32[np.ndarray, "rows columns 2"]:
    """Return a map in which nothing is covered."""
    return np.full((*box.shape, 2), OUTSIDE, np.float32)


def draw_triangles(
    sampling: Float32[np.ndarray, "rows columns 2"],
    moved: Float[np.ndarray, "vertices 2"],
    source: Float[np.ndarray, "vertices 2"],
    triangles: Int64[np.ndarray, "triangles 3"],
    depth: Float[np.ndarray, " triangles"],
) -> None:
    """Write into a sampling map what moved triangles show; near ones cover far ones.

    Args:
        sampling: Changed in place; pixels without a triangle keep their values.
        moved: Where the vertices are now, pixels of the map.
        source: Where they are in the photo.
        depth: Large is far.
    """
    corners = moved[triangles]
    rows, columns = sampling.shape[:2]
    low, high = corners.min(axis=1), corners.max(axis=1)
    sides = corners[:, 1:] - corners[:, :1]
    area = sides[:, 0, 0] * sides[:, 1, 1] - sides[:, 0, 1] * sides[:, 1, 0]
    drawn = (np.abs(area) > 1e-3) & (high > -1).all(axis=1) & (low < [columns, rows]).all(axis=1)
    order = np.flatnonzero(drawn)
    order = order[np.argsort(-depth[order], kind="stable")]
    if not len(order):
        return
    owner: Int32[np.ndarray, "rows columns"] = np.full((rows, columns), -1, np.int32)
    fixed = np.round(corners[order] * (1 << _FRACTION_BITS)).astype(np.int32)
    for number, triangle in enumerate(fixed):
        cv2.fillConvexPoly(owner, triangle, number, cv2.LINE_8, _FRACTION_BITS)
    y, x = np.nonzero(owner >= 0)
    maps = _affine_maps(corners[order], source[triangles[order]])[owner[y, x]]
    sampling[y, x, 0] = maps[:, 0, 0] * x + maps[:, 0, 1] * y + maps[:, 0, 2]
    sampling[y, x, 1] = maps[:, 1, 0] * x + maps[:, 1, 1] * y + maps[:, 1, 2]


def _affine_maps(
    moved: Float[np.ndarray, "triangles 3 2"], source: Float[np.ndarray, "triangles 3 2"]
) -> Float64[np.ndarray, "triangles 2 3"]:
    """Return for each triangle the affine map from its moved place to its source."""
    (a, b, c), (u, v, w) = np.moveaxis(moved, 1, 0), np.moveaxis(source, 1, 0)
    first, second = b - a, c - a
    determinant = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    inverse = np.stack(
        [
            np.stack([second[:, 1], -second[:, 0]], axis=1),
            np.stack([-first[:, 1], first[:, 0]], axis=1),
        ],
        axis=1,
    )
    inverse = inverse / determinant[:, None, None]
    linear = np.stack([v - u, w - u], axis=2) @ inverse
    offset = u - np.einsum("tij,tj->ti", linear, a)
    return np.concatenate([linear, offset[..., None]], axis=2)


def sample(
    texture: Float32[np.ndarray, "height width channels"],
    sampling: Float32[np.ndarray, "rows columns 2"],
    *,
    border: int = cv2.BORDER_CONSTANT,
) -> Float32[np.ndarray, "rows columns channels"]:
    """Return what a sampling map shows of a texture.

    Straight lines between pixels come nearer to true frames than OpenCV's cubic pieces, which
    overshoot (lab log, 2026-11-30).

    Args:
        texture: Any number of channels.
        border: What lies around the texture (OpenCV's BORDER_...).
    """
    shown: Float32[np.ndarray, "rows columns channels"] = cv2.remap(
        texture, sampling, None, cv2.INTER_LINEAR, borderMode=border
    )
    return shown
