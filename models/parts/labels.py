"""Tell which pixels of the person belong to which arm, and which to the rest of the body.

Pixels go to the bone that is nearest by a way that avoids colour edges and leaves the matte only
at a high price. Bare hands are told from cloth by the skin colour of the face.
"""

from collections.abc import Iterable

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, UInt8
from scipy.ndimage import distance_transform_edt
from skimage.graph import MCP_Geometric

from animaray.models.parts.landmarks import CHEEKS, Side, distance_to_path, distance_to_segment
from animaray.models.parts.rig import Point, Rig

BODY = 0
NUMBERS: dict[Side, int] = {"right": 1, "left": 2}
"""Labels of the arms; the body is 0."""
_STEP = 2
"""Labels are found at half the size."""
_EDGE_GREY = 25.0
"""A brightness step of so much doubles the price of a pixel."""
_OUTSIDE_COST = 60.0
_FINGER = 0.045
"""Half the width of a finger, in units."""
_MAX_COST = 1e9


def label_parts(
    picture: Float32[np.ndarray, "height width 3"],
    alpha: Float32[np.ndarray, "height width"],
    rig: Rig,
) -> UInt8[np.ndarray, "height width"]:
    """Return the label of every pixel: 0 the body, 1 the right arm, 2 the left arm.

    Args:
        picture: RGB in [0, 255].
        rig: Where the bones are.
    """
    if not rig.arms:
        return np.zeros(alpha.shape, np.uint8)
    labelling = _Labelling(picture, alpha, rig)
    height, width = alpha.shape
    labels = cv2.resize(labelling.assign(), (width, height), interpolation=cv2.INTER_NEAREST)
    labels = cv2.medianBlur(labels, 5 if rig.unit_px < 60 else 7)
    return _give_crumbs_away(labels, alpha > 0.5)


class _Labelling:
    """Costs and seeds at half the size."""

    def __init__(
        self,
        picture: Float32[np.ndarray, "height width 3"],
        alpha: Float32[np.ndarray, "height width"],
        rig: Rig,
    ) -> None:
        self._rig, self._unit = rig, rig.unit_px
        height, width = alpha.shape
        size = width // _STEP, height // _STEP
        smooth = cv2.GaussianBlur(picture, (0, 0), 1)
        across, down = cv2.Sobel(smooth, -1, 1, 0), cv2.Sobel(smooth, -1, 0, 1)
        edges = np.sqrt((across**2 + down**2).sum(axis=-1))
        edges = cv2.resize(edges, size, interpolation=cv2.INTER_AREA)
        self._inside = cv2.resize(alpha, size, interpolation=cv2.INTER_AREA) > 0.3
        self._cost = np.where(self._inside, 1.0 + edges / _EDGE_GREY, _OUTSIDE_COST)
        rows, columns = np.indices(self._inside.shape)
        self._places = np.stack([columns, rows], axis=-1) * float(_STEP)
        self._skin = _skin_mask(smooth, rig, size)

    def assign(self) -> UInt8[np.ndarray, "rows columns"]:
        """Return the labels at half the size."""
        seeds = {
            side: self._lines(_from_sleeve(path), 0.05) for side, path in self._rig.arms.items()
        }
        body = self._body_seed()
        for path in self._rig.arms.values():
            body[self._lines(_from_sleeve(path), 0.11) > 0] = 0
        best = self._ways_from(body)
        from_body = best.copy()
        labels = np.full(self._inside.shape, BODY, np.uint8)
        for side, path in self._rig.arms.items():
            ways = self._ways_from(seeds[side])
            forced, refused = self._hand(side, path, ways, from_body)
            near = distance_to_path(self._places, path) < 0.42 * self._unit
            chosen = ((ways < best) & near & ~refused) | forced
            labels[chosen] = NUMBERS[side]
            best[chosen] = np.where(forced, 0.0, ways)[chosen]
        return labels

    def _ways_from(
        self, seed: UInt8[np.ndarray, "rows columns"]
    ) -> Float64[np.ndarray, "rows columns"]:
        """Return the price of the cheapest way from a seed to every pixel."""
        starts = [tuple(place) for place in np.argwhere(seed > 0).tolist()]
        if not starts:
            return np.full(seed.shape, _MAX_COST)
        costs: Float64[np.ndarray, "rows columns"] = MCP_Geometric(self._cost).find_costs(starts)[0]
        return costs

    def _lines(
        self, lines: Iterable[tuple[Point, Point]], radius: float
    ) -> UInt8[np.ndarray, "rows columns"]:
        """Draw segments, as thick as twice a radius in units."""
        drawn = np.zeros(self._inside.shape, np.uint8)
        thickness = max(1, int(radius * 2 * self._unit / _STEP))
        for start, end in lines:
            cv2.line(drawn, _pixel(start), _pixel(end), 1, thickness)
        return drawn

    def _body_seed(self) -> UInt8[np.ndarray, "rows columns"]:
        rig, unit = self._rig, self._unit
        seed = self._lines(rig.leg_lines(), 0.07) | self._lines([(rig.head, rig.neck)], 0.12)
        quad = cv2.convexHull((rig.torso_quad(0.62, 0.85) / _STEP).astype(np.float32))
        cv2.fillConvexPoly(seed, quad.astype(np.int32), 1)
        cv2.circle(seed, _pixel(rig.head), int(0.32 * unit / _STEP), 1, -1)
        return seed

    def _hand(
        self,
        side: Side,
        path: list[Point],
        ways: Float64[np.ndarray, "rows columns"],
        from_body: Float64[np.ndarray, "rows columns"],
    ) -> tuple[Bool[np.ndarray, "rows columns"], Bool[np.ndarray, "rows columns"]]:
        """Return what is certainly of the arm near the hand, and what is certainly not."""
        nothing = np.zeros_like(self._inside)
        if len(path) < 4:
            return nothing, nothing
        unit = self._unit
        to_forearm = distance_to_segment(self._places, path[1], path[2])[0]
        to_hand = distance_to_segment(self._places, path[2], path[3])[0]
        forced = to_forearm < 0.09 * unit
        fingers = self._rig.person.hands.get(side)
        if fingers is not None:
            hull = cv2.convexHull((fingers / _STEP).astype(np.float32)).astype(np.int32)
            hand = np.zeros(self._inside.shape, np.uint8)
            cv2.fillConvexPoly(hand, hull, 1)
            reach = max(1, round(_FINGER * unit / _STEP))
            disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
            hand = cv2.dilate(hand, disk)
            if self._skin is not None and self._is_bare(to_hand):  # cloth between the fingers stays
                hand &= cv2.dilate(self._skin.astype(np.uint8), np.ones((3, 3), np.uint8))
            forced |= hand > 0
            refused = (to_hand < 0.45 * unit) & ~forced & (to_forearm > 0.12 * unit)
            return forced, refused
        if self._skin is None or not self._is_bare(to_hand):
            return forced | (to_hand < 0.1 * unit), nothing
        around = to_hand < 0.34 * unit
        skin = cv2.morphologyEx(self._skin.astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2))) > 0
        reachable = skin & around & self._inside & (ways < from_body + 40.0 * unit)
        _, islands = cv2.connectedComponents(reachable.astype(np.uint8))
        touching = np.unique(islands[(to_hand < 0.07 * unit) & (islands > 0)])
        forced |= np.isin(islands, touching[touching > 0])
        refused = around & ~forced & (to_forearm > 0.12 * unit)
        forced &= ~((to_hand < 0.2 * unit) & ~skin & (to_forearm > 0.06 * unit))
        return forced, refused

    def _is_bare(self, to_hand: Float64[np.ndarray, "rows columns"]) -> bool:
        """Tell whether a hand has the face's colour; a glove or a cuff has not."""
        core = (to_hand < 0.05 * self._unit) & self._inside
        return self._skin is not None and bool(core.any()) and float(self._skin[core].mean()) > 0.5


def _from_sleeve(path: list[Point]) -> list[tuple[Point, Point]]:
    """Return an arm's segments; its uppermost third is left open, it may be shirt or sleeve."""
    start = path[0] + 0.35 * (path[1] - path[0])
    return list(zip([start, *path[1:]], path[1:], strict=False))


def _pixel(point: Point) -> tuple[int, int]:
    x, y = (point / _STEP).astype(int).tolist()
    return x, y


def _skin_mask(
    smooth: Float32[np.ndarray, "height width 3"], rig: Rig, size: tuple[int, int]
) -> Bool[np.ndarray, "rows columns"] | None:
    """Return where the picture has the colour of the cheeks, or None without a face."""
    face = rig.person.face
    if face is None:
        return None
    height, width = smooth.shape[:2]
    lab = cv2.cvtColor(smooth.clip(0, 255).astype(np.uint8), cv2.COLOR_RGB2LAB).astype(np.float32)
    cheeks = face[list(CHEEKS), :2].astype(int).clip(0, [width - 1, height - 1])
    offset = lab - np.median(lab[cheeks[:, 1], cheeks[:, 0]], axis=0)
    like = (np.hypot(offset[..., 1], offset[..., 2]) < 16) & (np.abs(offset[..., 0]) < 75)
    return np.asarray(cv2.resize(like.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.5)


def _give_crumbs_away(
    labels: UInt8[np.ndarray, "height width"], inside: Bool[np.ndarray, "height width"]
) -> UInt8[np.ndarray, "height width"]:
    """Give small pieces of body around hands and sleeves to what lies next to them."""
    square = np.ones((5, 5), np.uint8)
    opened = cv2.morphologyEx(((labels == BODY) & inside).astype(np.uint8), cv2.MORPH_OPEN, square)
    _, islands, stats, _ = cv2.connectedComponentsWithStats(opened)
    is_large = stats[:, cv2.CC_STAT_AREA] > 0.03 * inside.sum()
    is_large[0] = False
    large = is_large[islands]
    crumb = (labels == BODY) & (cv2.dilate(large.astype(np.uint8), square) == 0)
    nearest: Int[np.ndarray, "2 height width"] = distance_transform_edt(
        (labels == BODY) & ~large, return_distances=False, return_indices=True
    )
    return np.where(crumb, labels[nearest[0], nearest[1]], labels)
