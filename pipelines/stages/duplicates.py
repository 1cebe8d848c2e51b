"""Tell whether two sources show the same footage: equal bytes, or the same pictures in time.

A source is described by one 64-bit perceptual hash per second and by a coarse picture of what
changes (two 8x8 difference pictures a second). Near-duplicates last equally long, look alike at
each second and change alike: a second take of the same scene has other changes.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float64, Int64, UInt8

_HASH_STEP_S = 1.0
_MOTION_STEP_S = 0.5
_MOTION_SIDE = 8
_TOLD = ("input_id", "source_id", "duration_s", "motion_signature")


@dataclass(frozen=True, kw_only=True, slots=True)
class DuplicatesConfig:
    """When two sources count as one."""

    max_duration_gap: float = 0.03
    """Largest difference of duration, as a share of the longer one."""
    max_mean_bits: float = 8.0
    """Largest mean distance of the hashes, bits of 64."""
    min_motion_correlation: float = 0.8
    """Least correlation of what changes."""


class SignatureBuilder:
    """Collect hashes and changes while frames stream by."""

    def __init__(self) -> None:
        self._origin_s: float | None = None
        self._hashes: list[int] = []
        self._pictures: list[Float64[np.ndarray, " cells"]] = []

    def add(self, pts_s: float, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        """Look at one frame; only the first at or after each sampling time counts."""
        if self._origin_s is None:
            self._origin_s = pts_s
        since_s = pts_s - self._origin_s + 1e-6
        is_hash_due = since_s >= len(self._hashes) * _HASH_STEP_S
        is_motion_due = since_s >= len(self._pictures) * _MOTION_STEP_S
        if not (is_hash_due or is_motion_due):
            return
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        if is_hash_due:
            self._hashes.append(hash_picture(grey))
        if is_motion_due:
            small = cv2.resize(grey, (_MOTION_SIDE, _MOTION_SIDE), interpolation=cv2.INTER_AREA)
            self._pictures.append(small.astype(np.float64).ravel())

    def hashes(self) -> list[int]:
        """Return one signed 64-bit hash per second."""
        return list(self._hashes)

    def motion(self) -> bytes:
        """Return what changes over time: pictures less their mean, as signed bytes."""
        if not self._pictures:
            return b""
        pictures = np.stack(self._pictures)
        change = (pictures - pictures.mean(axis=0)) * 2.0
        return change.round().clip(-127, 127).astype(np.int8).tobytes()


def hash_picture(grey: UInt8[np.ndarray, "height width"]) -> int:
    """Return a 64-bit perceptual hash: signs of the low frequencies around their median.

    References:
        Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions".
    """
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:8, :8].ravel()
    bits = low > np.median(low[1:])
    return int(np.packbits(bits).view(">i8")[0])


def find_duplicates(
    rows: Iterable[Mapping[str, Any]], known: "Footage"
) -> dict[str, tuple[str, str]]:
    """Decide which new sources repeat another one.

    Of two new near-duplicates the one with more pixels stays, then the one whose name comes first;
    a source that is already in the dataset always stays. A file that failed before and is tried
    again is no duplicate of itself.

    Args:
        rows: New sources: input_id, source_id, uri, width, height, duration_s, hashes,
            motion_signature.
        known: Sources of earlier runs and batches; stays as it is.

    Returns:
        For each duplicate's input_id: the source_id that it repeats, and exact or near.
    """
    rows = sorted(rows, key=lambda row: (-(row["width"] * row["height"]), row["uri"]))
    own = {row["input_id"] for row in rows}
    kept = Footage(known.config)
    duplicates: dict[str, tuple[str, str]] = {}
    for row in rows:
        if known.has_source(row["source_id"], own) or kept.has_source(row["source_id"]):
            duplicates[row["input_id"]] = (row["source_id"], "exact")
            continue
        twin = known.find(row, own) or kept.find(row)
        if twin is not None:
            duplicates[row["input_id"]] = (twin, "near")
            continue
        kept.add(row)
    return duplicates


class Footage:
    """What can be seen in many sources, searched at once: a table of hashes per number of hashes.

    Of each source it holds its hashes, what changes in it, and its names: 136 bytes a second.
    """

    def __init__(self, config: DuplicatesConfig) -> None:
        self.config = config
        self._tables: dict[int, _HashTable] = {}
        self._num_rows = 0
        self._inputs: dict[str, list[tuple[str, str]]] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        """Take a source in: a mapping with the columns that `find_duplicates` reads."""
        named = self._inputs.setdefault(row["source_id"], [])
        named.append((row["input_id"], row["uri"]))
        size = len(row["hashes"])
        if size:
            self._tables.setdefault(size, _HashTable(size)).add(self._num_rows, row)
        self._num_rows += 1

    def has_source(self, source_id: str, without: Collection[str] = ()) -> bool:
        """Return whether equal bytes are there, in another input than some."""
        return any(input_id not in without for input_id, _ in self._inputs.get(source_id, ()))

    def uri_of(self, source_id: str) -> str:
        """Return the name of a source that is there."""
        return self._inputs[source_id][-1][1]

    def find(self, row: Mapping[str, Any], without: Collection[str] = ()) -> str | None:
        """Return the source_id of the first source that shows the same footage.

        Args:
            without: Inputs that do not count.
        """
        size = len(row["hashes"])
        tables = [self._tables[n] for n in (size - 1, size, size + 1) if n in self._tables and size]
        similar = sorted(
            (found for table in tables for found in table.similar(row, self.config)),
            key=lambda found: found[0],
        )
        near = (
            other["source_id"]
            for _, other in similar
            if other["input_id"] not in without and is_near_duplicate(row, other, self.config)
        )
        return next(near, None)


class _HashTable:
    """Sources with equally many hashes, as one growing array."""

    def __init__(self, num_hashes: int) -> None:
        self._hashes = np.empty((16, num_hashes), dtype=np.int64)
        self._rows: list[tuple[int, str, str, float, bytes]] = []

    def add(self, place: int, row: Mapping[str, Any]) -> None:
        if len(self._rows) == len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.empty_like(self._hashes)])
        self._hashes[len(self._rows)] = row["hashes"]
        self._rows.append((place, *(row[name] for name in _TOLD)))

    def similar(
        self, row: Mapping[str, Any], config: DuplicatesConfig
    ) -> list[tuple[int, dict[str, Any]]]:
        """Return sources whose hashes are near enough, with their places."""
        count = min(len(row["hashes"]), self._hashes.shape[1])
        ours = np.array(row["hashes"][:count], dtype=np.int64)
        # Most sources differ in their first pictures already.
        near = np.arange(len(self._rows))
        for stop in (min(2, count), count):
            theirs = self._hashes[near, :stop]
            bits = count_differing_bits(theirs.ravel(), np.tile(ours[:stop], len(near)))
            near = near[bits.reshape(len(near), stop).sum(axis=1) <= config.max_mean_bits * count]
        return [self._row(int(index)) for index in near]

    def _row(self, index: int) -> tuple[int, dict[str, Any]]:
        place, *told = self._rows[index]
        return place, {**dict(zip(_TOLD, told, strict=True)), "hashes": self._hashes[index]}


def is_near_duplicate(
    one: Mapping[str, Any], other: Mapping[str, Any], config: DuplicatesConfig
) -> bool:
    """Return whether two sources show the same footage from start to end."""
    long_s = max(one["duration_s"], other["duration_s"])
    if abs(one["duration_s"] - other["duration_s"]) > max(config.max_duration_gap * long_s, 0.15):
        return False
    count = min(len(one["hashes"]), len(other["hashes"]))
    if count == 0 or abs(len(one["hashes"]) - len(other["hashes"])) > 1:
        return False
    bits = count_differing_bits(
        np.array(one["hashes"][:count], dtype=np.int64),
        np.array(other["hashes"][:count], dtype=np.int64),
    )
    if float(bits.mean()) > config.max_mean_bits:
        return False
    return _motion_correlation(one["motion_signature"], other["motion_signature"]) >= (
        config.min_motion_correlation
    )


def count_differing_bits(
    one: Int64[np.ndarray, " hashes"], other: Int64[np.ndarray, " hashes"]
) -> Int64[np.ndarray, " hashes"]:
    """Return the Hamming distance of each pair of 64-bit hashes."""
    differing = np.ascontiguousarray(one ^ other).view(np.uint8).reshape(len(one), 8)
    return np.unpackbits(differing, axis=1).sum(axis=1).astype(np.int64)


def _motion_correlation(one: bytes, other: bytes) -> float:
    """Return the correlation of two change signatures; 1 when neither changes at all."""
    size = min(len(one), len(other)) // _MOTION_SIDE**2 * _MOTION_SIDE**2
    first = np.frombuffer(one[:size], dtype=np.int8).astype(np.float64)
    second = np.frombuffer(other[:size], dtype=np.int8).astype(np.float64)
    norms = sorted((float(np.linalg.norm(first)), float(np.linalg.norm(second))))
    still = 2.0 * np.sqrt(max(size, 1))  # one grey level everywhere: noise of the encoder
    if norms[1] < still:
        return 1.0
    return float((first * second).sum()) / (norms[0] * norms[1]) if norms[0] > 0 else 0.0
