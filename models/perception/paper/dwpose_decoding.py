"""What surrounds DWPose's two networks: letterbox, boxes, crops, SimCC peaks, keypoint order.

Pure functions of arrays. Pictures are RGB and pixel values 0 to 255.

References:
    Ge et al. 2021, "YOLOX", arXiv 2107.08430; Jiang et al. 2023, "RTMPose", arXiv 2303.07399;
    Yang et al. 2023, "DWPose", arXiv 2307.15880. Details are those of the released StableAnimator.
"""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from animaray.models.perception.protocols import PersonPose
from animaray.models.pose.layouts import NUM_KEYPOINTS

DETECTOR_SIDE_PX = 640
MIN_PERSON_SCORE = 0.3
_STRIDES = (8, 16, 32)
_PADDING_VALUE = 114
_MIN_CANDIDATE_SCORE = 0.1
_NMS_IOU = 0.45
_PERSON_CLASS = 0

_CROP_PADDING = 1.25
_MEAN = np.array([123.675, 116.28, 103.53])
_STD = np.array([58.395, 57.12, 57.375])
SPLIT_RATIO = 2
"""SimCC bins per pixel of the pose network's input."""

NUM_WHOLE_BODY = 133
_SHOULDERS = (5, 6)
_NECK = 17
_MIN_SHOULDER_SCORE = 0.3
_OPENPOSE_OF_COCO = (0, 17, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)


class Crop(NamedTuple):
    """Where a person's crop lies in the picture."""

    centre: Float[np.ndarray, " 2"]
    """Pixels."""
    size: Float[np.ndarray, " 2"]
    """Width and height in pixels; the aspect is the pose network's."""


def letterbox(
    picture: UInt8[np.ndarray, "height width 3"], side_px: int = DETECTOR_SIDE_PX
) -> tuple[Float32[np.ndarray, "3 side side"], float]:
    """Return the detector's input, picture in the left top corner, and its scale."""
    height, width = picture.shape[:2]
    scale = min(side_px / height, side_px / width)
    small = cv2.resize(picture, (int(width * scale), int(height * scale)))
    padded = np.full((side_px, side_px, 3), _PADDING_VALUE, np.uint8)
    padded[: small.shape[0], : small.shape[1]] = small
    return np.ascontiguousarray(padded.transpose(2, 0, 1), dtype=np.float32), scale


def decode_people(
    rows: Float32[np.ndarray, "cells values"],
    scale: float,
    *,
    side_px: int = DETECTOR_SIDE_PX,
    min_score: float = MIN_PERSON_SCORE,
) -> Float32[np.ndarray, "people 4"]:
    """Return the boxes of people, best score first: left, top, right, bottom in picture pixels.

    Args:
        rows: YOLOX's output of one picture: centre, size, objectness, score of each class.
        min_score: Least objectness times class score.
    """
    cells, strides = _cells(side_px)
    centre = (rows[:, :2] + cells) * strides
    size = np.exp(rows[:, 2:4]) * strides
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1) / np.float32(scale)
    scores = rows[:, 4] * rows[:, 5 + _PERSON_CLASS]
    candidates = np.flatnonzero(scores > _MIN_CANDIDATE_SCORE)
    kept = candidates[_suppress(boxes[candidates], scores[candidates])]
    people: Float32[np.ndarray, "people 4"] = boxes[kept][scores[kept] > min_score]
    return people.astype(np.float32)


def whole_picture(
    picture: UInt8[np.ndarray, "height width 3"],
) -> Float32[np.ndarray, "1 4"]:
    """Return the box of the whole picture, which the released code takes where nobody is found."""
    return np.array([[0, 0, picture.shape[1], picture.shape[0]]], np.float32)


def _cells(
    side_px: int,
) -> tuple[Float32[np.ndarray, "cells 2"], Float32[np.ndarray, "cells 1"]]:
    """Return column and row of every cell of the three grids, and the grids' strides."""
    cells, strides = [], []
    for stride in _STRIDES:
        x, y = np.meshgrid(np.arange(side_px // stride), np.arange(side_px // stride))
        cells.append(np.stack([x, y], axis=-1).reshape(-1, 2))
        strides.append(np.full((len(cells[-1]), 1), stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(strides).astype(np.float32)


def _suppress(
    boxes: Float32[np.ndarray, "boxes 4"], scores: Float32[np.ndarray, " boxes"]
) -> list[int]:
    """Return the boxes that overlap no better one, best first; boxes count their last pixel."""
    areas = (boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1)
    order = np.argsort(scores)[::-1]
    kept: list[int] = []
    while len(order):
        best, others = order[0], order[1:]
        kept.append(int(best))
        corner = np.maximum(boxes[best, :2], boxes[others, :2])
        extent = np.minimum(boxes[best, 2:], boxes[others, 2:]) - corner + 1
        shared = np.maximum(extent, 0).prod(axis=1)
        overlap = shared / (areas[best] + areas[others] - shared)
        order = others[overlap <= _NMS_IOU]
    return kept


def crop_of_box(box: Float[np.ndarray, " 4"], input_size: tuple[int, int]) -> Crop:
    """Return the crop around a box: a quarter larger, grown to the pose network's aspect.

    Args:
        box: Left, top, right, bottom in pixels.
        input_size: Width and height of the pose network's input.
    """
    box = np.asarray(box, np.float64)
    width, height = (box[2:] - box[:2]) * _CROP_PADDING
    aspect = input_size[0] / input_size[1]
    size = (width, width / aspect) if width > height * aspect else (height * aspect, height)
    return Crop((box[:2] + box[2:]) / 2, np.array(size))


def cut_crop(
    picture: UInt8[np.ndarray, "height width 3"], crop: Crop, input_size: tuple[int, int]
) -> Float32[np.ndarray, "3 input_height input_width"]:
    """Return the pose network's input: the crop, its colours normalised; outside is black.

    Sampled in full precision: the integer arithmetic of OpenCV 4's warpAffine is up to three grey
    levels off what OpenCV 5 (and with it the published pipeline's last version) gives.
    """
    width, height = input_size
    scale = crop.size[0] / width
    corner = crop.centre - scale * np.array([width, height]) / 2
    columns = _between(np.arange(width) * scale + corner[0], picture.shape[1])
    rows = _between(np.arange(height) * scale + corner[1], picture.shape[0])
    padded = np.pad(picture, ((1, 1), (1, 1), (0, 0))).astype(np.float64)
    mixed = _mix(_mix(padded, *rows, axis=0), *columns, axis=1)
    normalised = (np.rint(mixed) - _MEAN) / _STD
    return np.ascontiguousarray(normalised.transpose(2, 0, 1), dtype=np.float32)


def _between(
    place: Float[np.ndarray, " places"], length: int
) -> tuple[Int[np.ndarray, " places"], Int[np.ndarray, " places"], Float[np.ndarray, " places"]]:
    """Return both neighbours of each place on an axis padded by one, and the second's share."""
    first = np.floor(place).astype(np.int64)
    low, high = (np.clip(index + 1, 0, length + 1) for index in (first, first + 1))
    return low, high, place - first


def _mix(
    picture: Float[np.ndarray, "height width 3"],
    low: Int[np.ndarray, " places"],
    high: Int[np.ndarray, " places"],
    share: Float[np.ndarray, " places"],
    *,
    axis: int,
) -> Float[np.ndarray, "out_height out_width 3"]:
    """Interpolate along one axis."""
    weight = share[:, None, None] if axis == 0 else share[:, None]
    return picture.take(low, axis) * (1 - weight) + picture.take(high, axis) * weight


def decode_simcc(
    simcc_x: Float[np.ndarray, "points bins_x"],
    simcc_y: Float[np.ndarray, "points bins_y"],
    crop: Crop,
    input_size: tuple[int, int],
) -> tuple[Float32[np.ndarray, "points 2"], Float32[np.ndarray, " points"]]:
    """Return keypoints in picture pixels, and their scores.

    A point whose score is not above 0 lies in bin -1: half a pixel outside the crop's corner.

    Args:
        simcc_x: Score of each horizontal place.
        simcc_y: Score of each vertical place.
        crop: Where the crop was cut.
        input_size: Width and height of the pose network's input.
    """
    bins = np.stack([simcc_x.argmax(axis=1), simcc_y.argmax(axis=1)], axis=-1)
    scores = np.minimum(simcc_x.max(axis=1), simcc_y.max(axis=1))
    bins[scores <= 0] = -1
    places = bins.astype(np.float32) / SPLIT_RATIO
    points = places / np.array(input_size) * crop.size + crop.centre - crop.size / 2
    return points.astype(np.float32), scores.astype(np.float32)


def openpose_order(
    points: Float32[np.ndarray, "133 2"], scores: Float32[np.ndarray, " 133"]
) -> tuple[Float32[np.ndarray, "134 2"], Float32[np.ndarray, " 134"]]:
    """Insert the neck between the shoulders and bring the body into OpenPose order.

    The result is the body's 18 points, then the further ones in the order of `pose.layouts`.
    """
    shoulders = list(_SHOULDERS)
    neck = points[shoulders].mean(axis=0, keepdims=True)
    is_seen = bool((scores[shoulders] > _MIN_SHOULDER_SCORE).all())
    all_points = np.concatenate([points[:_NECK], neck, points[_NECK:]])
    all_scores = np.concatenate([scores[:_NECK], [np.float32(is_seen)], scores[_NECK:]])
    order = [*_OPENPOSE_OF_COCO, *range(18, NUM_WHOLE_BODY + 1)]
    return all_points[order].astype(np.float32), all_scores[order].astype(np.float32)


def to_person(
    points: Float32[np.ndarray, "134 2"], scores: Float32[np.ndarray, " 134"]
) -> PersonPose:
    """Return one person's pose; points of low score are kept, as published.

    Scores above 1 become 1; the released code leaves them, and draws such points a little brighter.
    """
    certain = scores.clip(0.0, 1.0).astype(np.float32)
    further = np.concatenate([points, certain[:, None]], axis=1)[NUM_KEYPOINTS:]
    return PersonPose(
        keypoints=points[:NUM_KEYPOINTS].astype(np.float32),
        keypoint_confidence=certain[:NUM_KEYPOINTS],
        further_points=further.astype(np.float32),
    )
