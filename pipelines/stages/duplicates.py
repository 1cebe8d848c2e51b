"""Tell whether two sources show the same footage: equal bytes, or the same pictures in time.

A source is described by one 64-bit perceptual hash per second and by a coarse picture of what
changes (two 8x8 difference pictures a second). Near-duplicates last equally long, look alike at
each second and change alike: a second take of the same scene has other changes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float64, Int64, UInt8

_HASH_STEP_S = 1.0
_MOTION_STEP_S = 0.5
_MOTION_SIDE = 8


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
    rows: Iterable[Mapping[str, Any]],
    known: Iterable[Mapping[str, Any]],
    config: DuplicatesConfig,
) -> dict[str, tuple[str, str]]:
    """Decide which new sources repeat another one.

    Of two new near-duplicates the one with more pixels stays, then the one whose name comes first;
    a source that is already in the dataset always stays.

    Args:
        rows: New sources: input_id, source_id, uri, width, height, duration_s, hashes,
            motion_signature.
        known: Sources of earlier runs, in the same form.
        config: When two sources count as one.

    Returns:
        For each duplicate's input_id: the source_id that it repeats, and exact or near.
    """
    kept = list(known)
    kept_ids = {row["source_id"] for row in kept}
    duplicates: dict[str, tuple[str, str]] = {}
    for row in sorted(rows, key=lambda row: (-(row["width"] * row["height"]), row["uri"])):
        if row["source_id"] in kept_ids:
            duplicates[row["input_id"]] = (row["source_id"], "exact")
            continue
        twin = next((other for other in kept if is_near_duplicate(row, other, config)), None)
        if twin is not None:
            duplicates[row["input_id"]] = (twin["source_id"], "near")
            continue
        kept.append(row)
        kept_ids.add(row["source_id"])
    return duplicates


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
