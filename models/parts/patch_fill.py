"""Fill a hole in a textured picture with patches of the rest: PatchMatch, coarse to fine.

References:
    Barnes et al. 2009, "PatchMatch"; Wexler et al. 2007, "Space-time completion of video".
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

RADIUS_PX = 3
"""Of the patches: 7 x 7."""
_SMALLEST_PX = 48
"""The coarsest picture's short side is at least half of it."""
_ITERATIONS = {0: 1, 1: 2}
"""By level, 0 the finest; coarser ones get four."""
_NEIGHBOURS = ((1, 0), (-1, 0), (0, 1), (0, -1), (3, 0), (-3, 0), (0, 3), (0, -3))

_DY, _DX = np.mgrid[-RADIUS_PX : RADIUS_PX + 1, -RADIUS_PX : RADIUS_PX + 1].reshape(2, -1)
_COMPARE = np.exp(-(_DX**2 + _DY**2) / 8.0)
_VOTE = np.exp(-(_DX**2 + _DY**2) / 4.0)
_FAR_COST = 0.02
"""Of copying from far away, per squared pixel."""


def fill_by_patches(
    picture: UInt8[np.ndarray, "height width 3"], hole: Bool[np.ndarray, "height width"]
) -> Float32[np.ndarray, "height width 3"]:
    """Return the picture with the hole filled; the same picture and hole give the same pixels."""
    rng = np.random.default_rng(0)
    levels = _pyramid(picture.astype(np.float32), hole)
    filled: Float32[np.ndarray, "_ _ 3"] | None = None
    offsets: Int64[np.ndarray, "_ _ 2"] | None = None
    for number in range(len(levels) - 1, -1, -1):
        known, missing = levels[number]
        height, width = missing.shape
        if filled is None:
            filled = fill_smoothly(known, (~missing).astype(np.float32))
        else:
            larger = cv2.resize(filled, (width, height), interpolation=cv2.INTER_LINEAR)
            filled = np.where(missing[..., None], larger, known)
        level = _Level(known, missing, filled)
        if level.num_sources >= 20:
            level.start(offsets, rng)
            for _ in range(_ITERATIONS.get(number, 4)):
                level.improve(rng)
                level.vote()
            offsets, filled = level.offsets(), level.filled
    return np.asarray(filled, np.float32)


def _pyramid(
    picture: Float32[np.ndarray, "height width 3"], hole: Bool[np.ndarray, "height width"]
) -> list[tuple[Float32[np.ndarray, "_ _ 3"], Bool[np.ndarray, "_ _"]]]:
    """Return picture and hole, each half as large as the one before."""
    levels = [(picture, hole)]
    while min(levels[-1][1].shape) > _SMALLEST_PX:
        pixels, missing = levels[-1]
        size = missing.shape[1] // 2, missing.shape[0] // 2
        known = (~missing).astype(np.float32)
        share = cv2.resize(known, size, interpolation=cv2.INTER_AREA)
        total = cv2.resize(pixels * known[..., None], size, interpolation=cv2.INTER_AREA)
        levels.append((total / np.maximum(share, 1e-3)[..., None], share < 0.5))
    return levels


def fill_smoothly(
    picture: Float32[np.ndarray, "height width 3"], weight: Float32[np.ndarray, "height width"]
) -> Float32[np.ndarray, "height width 3"]:
    """Fill pixels of weight 0 from averages of ever larger surroundings.

    Args:
        weight: In [0, 1].
    """
    pyramid = [(picture * weight[..., None], weight)]
    while min(pyramid[-1][1].shape) > 2:
        colours, weights = pyramid[-1]
        size = (weights.shape[1] + 1) // 2, (weights.shape[0] + 1) // 2
        pyramid.append(
            (
                cv2.resize(colours, size, interpolation=cv2.INTER_AREA),
                cv2.resize(weights, size, interpolation=cv2.INTER_AREA),
            )
        )
    colours, weights = pyramid[-1]
    current = colours / np.maximum(weights, 1e-6)[..., None]
    for colours, weights in pyramid[-2::-1]:
        larger = cv2.resize(current, weights.shape[::-1], interpolation=cv2.INTER_LINEAR)
        share = np.clip(weights, 0.0, 1.0)[..., None]
        own = colours / np.maximum(weights, 1e-6)[..., None]
        current = own * share + larger * (1 - share)
    return np.asarray(current, np.float32)


class _Level:
    """One size of the picture, with the best source found so far for every patch at the hole."""

    def __init__(
        self,
        known: Float32[np.ndarray, "height width 3"],
        missing: Bool[np.ndarray, "height width"],
        filled: Float32[np.ndarray, "height width 3"],
    ) -> None:
        self.known, self.missing, self.filled = known, missing, filled
        height, width = missing.shape
        square = np.ones((2 * RADIUS_PX + 1, 2 * RADIUS_PX + 1), np.uint8)
        touches = cv2.dilate(missing.astype(np.uint8), square) > 0
        inner = np.zeros_like(touches)
        inner[RADIUS_PX : height - RADIUS_PX, RADIUS_PX : width - RADIUS_PX] = True
        self._low = np.array([RADIUS_PX, RADIUS_PX])
        self._high = np.array([height, width]) - RADIUS_PX - 1
        self._is_source = inner & ~touches
        self._sources: Int64[np.ndarray, "sources 2"] = np.argwhere(self._is_source)
        self._wanted: Int64[np.ndarray, "wanted 2"] = np.argwhere(inner & touches)
        self._number = np.full((height, width), -1, np.int64)
        self._number[self._wanted[:, 0], self._wanted[:, 1]] = np.arange(len(self._wanted))
        self._matches = self._wanted
        self._costs: Float64[np.ndarray, " wanted"] = np.zeros(len(self._wanted))

    @property
    def num_sources(self) -> int:
        """Patches that lie wholly outside the hole."""
        return len(self._sources)

    def start(self, coarser: Int64[np.ndarray, "_ _ 2"] | None, rng: np.random.Generator) -> None:
        """Take the matches of the level below, or random ones."""
        count = len(self._wanted)
        random = self._sources[rng.integers(len(self._sources), size=count)]
        if coarser is None:
            self._matches = random
        else:
            half = np.minimum(self._wanted // 2, np.array(coarser.shape[:2]) - 1)
            moved = self._wanted + 2 * coarser[half[:, 0], half[:, 1]]
            moved = moved.clip(self._low, self._high)
            usable = self._is_source[moved[:, 0], moved[:, 1]]
            self._matches = np.where(usable[:, None], moved, random)
        self._costs = self._cost(self._wanted, self._matches)

    def improve(self, rng: np.random.Generator) -> None:
        """Try the neighbours' matches, then random places ever nearer to the present one."""
        self._costs = self._cost(self._wanted, self._matches)
        last = np.array(self.missing.shape) - 1
        for step in _NEIGHBOURS:
            neighbour = (self._wanted - step).clip(0, last)
            number = self._number[neighbour[:, 0], neighbour[:, 1]]
            theirs = self._matches[number] + step
            self._try(np.where((number >= 0)[:, None], theirs, self._matches))
        reach = max(self.missing.shape) // 2
        while reach >= 1:
            self._try(self._matches + rng.integers(-reach, reach + 1, size=self._matches.shape))
            reach //= 3

    def vote(self) -> None:
        """Fill the hole with the mean of all patches that cover each pixel, good ones first."""
        total = np.zeros((*self.missing.shape, 3))
        weight = np.zeros(self.missing.shape)
        trust = 1.0 / (self._costs / len(_DY) + 20.0)
        for dy, dx, centre in zip(_DY, _DX, _VOTE, strict=True):
            share = trust * centre
            source = self.known[self._matches[:, 0] + dy, self._matches[:, 1] + dx]
            # every wanted place occurs once, so that plain indexing adds up
            rows, columns = self._wanted[:, 0] + dy, self._wanted[:, 1] + dx
            total[rows, columns] += source * share[:, None]
            weight[rows, columns] += share
        mean = total / np.maximum(weight, 1e-9)[..., None]
        self.filled = np.where(self.missing[..., None], mean, self.known).astype(np.float32)

    def offsets(self) -> Int64[np.ndarray, "height width 2"]:
        """Return how far each wanted patch's match lies from it."""
        field = np.zeros((*self.missing.shape, 2), np.int64)
        field[self._wanted[:, 0], self._wanted[:, 1]] = self._matches - self._wanted
        return field

    def _try(self, candidates: Int64[np.ndarray, "wanted 2"]) -> None:
        """Keep those candidates that fit better than the present matches."""
        candidates = candidates.clip(self._low, self._high)
        chosen = np.flatnonzero(self._is_source[candidates[:, 0], candidates[:, 1]])
        costs = self._cost(self._wanted[chosen], candidates[chosen])
        better = costs < self._costs[chosen]
        self._matches[chosen[better]] = candidates[chosen[better]]
        self._costs[chosen[better]] = costs[better]

    def _cost(
        self, places: Int64[np.ndarray, "some 2"], sources: Int64[np.ndarray, "some 2"]
    ) -> Float64[np.ndarray, " some"]:
        """Return how unlike the patches are, plus a little for the distance."""
        cost: Float64[np.ndarray, " some"] = _FAR_COST * ((places - sources) ** 2).sum(axis=1)
        for dy, dx, weight in zip(_DY, _DX, _COMPARE, strict=True):
            here = self.filled[places[:, 0] + dy, places[:, 1] + dx]
            there = self.known[sources[:, 0] + dy, sources[:, 1] + dx]
            cost += weight * ((here - there) ** 2).sum(axis=1)
        return cost
