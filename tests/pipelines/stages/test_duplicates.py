"""Near-duplicates: the same footage again, but neither an excerpt nor a second take."""

import time
from typing import Any

import cv2
import numpy as np

from animaray.pipelines.stages.duplicates import (
    DuplicatesConfig,
    Footage,
    SignatureBuilder,
    count_differing_bits,
    find_duplicates,
    hash_picture,
    is_near_duplicate,
)


def footage(seed: int, *, seconds: float = 5.0, room: int = 0) -> list[np.ndarray]:
    """Return a fixed room in which a bright square takes a walk that depends on the seed."""
    rng = np.random.default_rng(seed)
    walls = np.random.default_rng(room).integers(0, 200, (12, 16, 3))
    picture = np.kron(walls, np.ones((12, 12, 1))).astype(np.uint8)
    frames = []
    place = np.array([60.0, 70.0])
    for _ in range(round(seconds * 10)):
        place = (place + rng.normal(0, 12, 2)).clip(10, 120)
        frame = picture.copy()
        top, left = place.astype(int)
        frame[top : top + 40, left : left + 40] = 255
        frames.append(frame)
    return frames


def row_of(name: str, frames: list[np.ndarray], *, width: int = 192) -> dict[str, object]:
    builder = SignatureBuilder()
    for index, frame in enumerate(frames):
        builder.add(index / 10, frame)
    return {
        "input_id": f"in_{name}", "source_id": f"src_{name}", "uri": name, "width": width,
        "height": width * 3 // 4, "duration_s": len(frames) / 10, "hashes": builder.hashes(),
        "motion_signature": builder.motion(),
    }  # fmt: skip


def worse(frames: list[np.ndarray]) -> list[np.ndarray]:
    """Shrink and compress hard, as a re-upload does."""
    small = [cv2.resize(frame, (96, 72), interpolation=cv2.INTER_AREA) for frame in frames]
    coded = [cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 30])[1] for frame in small]
    return [cv2.imdecode(data, cv2.IMREAD_COLOR) for data in coded]


def known_from(rows: list[dict[str, Any]], config: DuplicatesConfig | None = None) -> Footage:
    known = Footage(config or DuplicatesConfig())
    for row in rows:
        known.add(row)
    return known


def test_reencoded_copy_is_found_and_the_larger_one_stays() -> None:
    original = row_of("original", footage(1))
    copy = row_of("a copy", worse(footage(1)), width=96)
    found = find_duplicates([copy, original], known_from([]))
    assert found == {"in_a copy": ("src_original", "near")}


def test_known_source_stays_even_when_smaller() -> None:
    copy = row_of("copy", worse(footage(1)), width=96)
    found = find_duplicates([row_of("original", footage(1))], known_from([copy]))
    assert found == {"in_original": ("src_copy", "near")}


def test_second_take_in_the_same_room_is_no_duplicate() -> None:
    rows = [row_of("one", footage(1)), row_of("two", footage(2))]
    assert find_duplicates(rows, known_from([])) == {}


def test_excerpt_is_no_duplicate() -> None:
    whole = footage(1)
    rows = [row_of("whole", whole), row_of("part", whole[:30])]
    assert find_duplicates(rows, known_from([])) == {}


def test_equal_bytes_are_an_exact_duplicate() -> None:
    one = row_of("one", footage(1))
    two = {**one, "input_id": "in_two", "uri": "two"}
    assert find_duplicates([one, two], known_from([])) == {"in_two": ("src_one", "exact")}


def test_hash_survives_light_and_size_but_not_another_picture() -> None:
    grey = cv2.cvtColor(footage(1)[0], cv2.COLOR_RGB2GRAY)
    brighter = cv2.resize(cv2.convertScaleAbs(grey, alpha=0.8, beta=20), (96, 72))
    other = cv2.cvtColor(footage(1, room=5)[0], cv2.COLOR_RGB2GRAY)
    hashes = np.array([hash_picture(grey)] * 2)
    bits = count_differing_bits(hashes, np.array([hash_picture(brighter), hash_picture(other)]))
    assert bits[0] <= 6
    assert bits[1] >= 20


def test_differing_bits_are_counted_exactly() -> None:
    one = np.array([0, -1, 5], dtype=np.int64)
    other = np.array([0, 0, 6], dtype=np.int64)
    assert count_differing_bits(one, other).tolist() == [0, 64, 2]  # 5 = 101, 6 = 110


def test_index_finds_what_pairwise_comparison_finds_and_stays_fast() -> None:
    rng = np.random.default_rng(0)

    def source(number: int, hashes: list[int]) -> dict[str, Any]:
        return {
            "input_id": f"i{number}", "source_id": f"s{number}", "uri": f"u{number:05}",
            "width": 64, "height": 48, "duration_s": float(len(hashes)), "hashes": hashes,
            "motion_signature": b"",
        }  # fmt: skip

    known = [
        source(n, rng.integers(-(2**62), 2**62, int(rng.integers(0, 4))).tolist())
        for n in range(200)
    ]
    new = []
    for number in range(200, 300):
        hashes = list(known[number - 200]["hashes"])
        if number % 2 and hashes:  # a few bits differ
            hashes[0] ^= int(rng.integers(0, 1 << int(rng.integers(1, 24))))
        elif hashes:
            hashes = hashes[: max(1, len(hashes) - int(rng.integers(0, 2)))]
        new.append(source(number, hashes))
    config = DuplicatesConfig(max_duration_gap=1.0)
    found = find_duplicates(new, known_from(known, config))
    kept, expected = list(known), {}
    for row in new:
        twin = next((other for other in kept if is_near_duplicate(row, other, config)), None)
        if twin is None:
            kept.append(row)
        else:
            expected[row["input_id"]] = (twin["source_id"], "near")
    assert found == expected
    assert 40 < len(found) < 100
    # 100 new sources against 10,000 known ones of equal length: 10 ms each, not a second.
    many = [source(n, [int(h)]) for n, h in enumerate(rng.integers(-(2**62), 2**62, 10_100))]
    started = time.process_time()
    assert find_duplicates(many[10_000:], known_from(many[:10_000], config)) == {}
    assert time.process_time() - started < 5
