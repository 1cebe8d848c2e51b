import numpy as np
import pytest

from animaray.models.perception.permissive.anchor_detections import (
    AnchorDecoder,
    Detection,
    distinct,
    letterbox,
    tiles_of,
)
from animaray.models.perception.permissive.blaze_face import FACE_ANCHORS
from animaray.models.perception.permissive.mediapipe_hands import PALM_ANCHORS
from animaray.models.perception.permissive.mediapipe_pose import PERSON_ANCHORS

PEOPLE = AnchorDecoder(PERSON_ANCHORS)

NUM_ANCHORS = 28 * 28 * 2 + 14 * 14 * 2 + 7 * 7 * 6


def raw(people: dict[int, tuple[list[float], float]]) -> tuple[np.ndarray, np.ndarray]:
    rows = np.zeros((NUM_ANCHORS, 12), dtype=np.float32)
    logits = np.full(NUM_ANCHORS, -9.0, dtype=np.float32)
    for anchor, (numbers, logit) in people.items():
        rows[anchor, : len(numbers)] = numbers
        logits[anchor] = logit
    return rows, logits


@pytest.mark.parametrize(
    ("layout", "anchors"),
    [(PERSON_ANCHORS, NUM_ANCHORS), (FACE_ANCHORS, 896), (PALM_ANCHORS, 2016)],
    ids=["people", "faces", "palms"],
)
def test_each_detector_has_the_anchors_of_its_file(layout, anchors):
    assert layout.centres().shape == (anchors, 2)


def test_nothing_is_decoded_to_nothing():
    assert PEOPLE.decode(*raw({}), 0.5) == []


@pytest.mark.parametrize(
    ("anchor", "centre"),
    [
        (0, (4.0, 4.0)),  # stride 8, first cell
        (3, (12.0, 4.0)),  # second cell, second of two anchors
        (2 * 28, (4.0, 12.0)),  # second row
        (1568, (8.0, 8.0)),  # stride 16
        (1568 + 392 + 6 * 8, (48.0, 48.0)),  # stride 32, second row, second cell
    ],
)
def test_numbers_are_relative_to_the_anchor(anchor, centre):
    found = PEOPLE.decode(*raw({anchor: ([1, 2, 20, 10, 5, 6, 7, 8], 2.0)}), 0.5)
    assert len(found) == 1
    x, y = centre
    np.testing.assert_allclose(found[0].box, [x - 9, y - 3, x + 11, y + 7])
    np.testing.assert_allclose(found[0].points[0], [x + 5, y + 6])
    np.testing.assert_allclose(found[0].points[1], [x + 7, y + 8])
    assert found[0].score == pytest.approx(1 / (1 + np.exp(-2.0)))


def test_overlapping_anchors_are_blended_by_score():
    # Same cell, same box; scores 0.8 and 0.6 (logits ln 4 and ln 1.5); hips at +0 and +14 px.
    rows = {
        0: ([0, 0, 40, 40, 0, 0, 0, -20], float(np.log(4))),
        1: ([0, 0, 40, 40, 14, 0, 14, -20], float(np.log(1.5))),
    }
    found = PEOPLE.decode(*raw(rows), 0.5)
    assert len(found) == 1
    # Weighted mean: 4 + 14 * 0.6 / 1.4 = 10.
    np.testing.assert_allclose(found[0].points[0], [10.0, 4.0], atol=1e-5)
    assert found[0].score == pytest.approx(0.8)


def test_people_apart_stay_apart_and_come_best_first():
    rows = {0: ([0, 0, 20, 20], 0.5), 2 * 27: ([0, 0, 20, 20], 3.0), 900: ([0, 0, 20, 20], -1.0)}
    found = PEOPLE.decode(*raw(rows), 0.5)
    assert [each.box[0] for each in found] == [220.0 - 10.0, 4.0 - 10.0]


def test_moved_maps_every_point():
    person = Detection(
        box=np.array([1, 2, 3, 4], dtype=np.float32),
        score=0.9,
        points=np.array([[5, 6], [7, 8]], dtype=np.float32),
    )
    moved = person.moved(np.array([1, -2], dtype=np.float32), 2.0)
    np.testing.assert_allclose(moved.box, [4, 0, 8, 4])
    np.testing.assert_allclose(moved.points, [[12, 8], [16, 12]])


def test_of_overlapping_detections_the_best_stays():
    def at(x: float, score: float) -> Detection:
        box = np.array([x, 0, x + 10, 10], dtype=np.float32)
        return Detection(box=box, score=score, points=np.zeros((1, 2), dtype=np.float32))

    assert [each.score for each in distinct([at(0, 0.6), at(2, 0.9), at(40, 0.7)])] == [0.9, 0.7]
    assert distinct([]) == []


def test_letterbox_keeps_the_shape_and_says_where_the_picture_lies():
    square, corner, scale = letterbox(np.full((100, 200, 3), 9, dtype=np.uint8), 64)
    assert (corner.tolist(), scale) == ([0, 16], 0.32)
    assert (square[16:48] == 9).all()
    assert not square[:16].any()
    assert not square[48:].any()


@pytest.mark.parametrize("size", [(1280, 720), (720, 1280), (1000, 900), (1920, 1080), (300, 1200)])
def test_tiles_cover_the_picture_and_overlap(size):
    width, height = size
    covered = np.zeros((height, width), dtype=int)
    for x, y, side in tiles_of(width, height):
        assert x >= 0
        assert y >= 0
        assert x + side <= width
        assert y + side <= height
        covered[y : y + side, x : x + side] += 1
    assert covered.min() >= 1
    assert covered.max() >= 2


def test_square_pictures_are_looked_at_in_quarters_and_wide_ones_in_thirds():
    assert tiles_of(1000, 1000) == [(0, 0, 600), (400, 0, 600), (0, 400, 600), (400, 400, 600)]
    assert tiles_of(1280, 720) == [(0, 0, 720), (280, 0, 720), (560, 0, 720)]
