"""Cut training pictures for the people network out of scenes, and turn truth into target maps."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from benchmarks.bundled_weights.degradation import degrade
from benchmarks.bundled_weights.samples import Scenes

INPUT_PX = 192
HEAT_STRIDE = 4
PERSON_STRIDE = 8
OFFSET_UNIT_PX = 64.0
FACE_UNIT_PX = 16.0
MIN_VISIBLE_KEYPOINTS = 3
MIN_FACE_PX = 8.0
PADDING_GREY = 114

_MIRROR = np.array([0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16])
_MIRROR_LANDMARKS = np.array([1, 0, 2, 4, 3])
_HEAT_SIGMA_CELLS = 1.5


@dataclass(slots=True)
class View:
    """One training picture of INPUT_PX with the truth in its pixels."""

    frame: UInt8[np.ndarray, "height width 3"]
    """RGB picture."""
    keypoints: Float[np.ndarray, "people 18 2"]
    """Pixels."""
    visible: Float[np.ndarray, "people 18"]
    """1 inside the picture and not hidden, else 0."""
    face_boxes: Float[np.ndarray, "faces 4"]
    """Left, top, right, bottom."""
    face_landmarks: Float[np.ndarray, "faces 5 2"]
    """Pixels."""
    small_faces: Float[np.ndarray, "small 4"]
    """Boxes of faces that count neither as face nor as background."""


def sample_view(scenes: Scenes, index: int, rng: np.random.Generator) -> View:
    """Draw a view of one scene: random zoom, shift, turn, mirror image and degradation."""
    source_px = scenes.frames_uint8.shape[1]
    zoom = INPUT_PX / source_px * float(np.exp(rng.uniform(np.log(0.5), np.log(1.9))))
    matrix = cv2.getRotationMatrix2D((0.0, 0.0), float(rng.normal(0, 4.0)), zoom)
    seen = scenes.num_people[index]
    anchor = np.array([source_px / 2, source_px / 2])
    if seen and rng.random() < 0.7:
        anchor = scenes.keypoints[index, int(rng.integers(seen)), int(rng.integers(18))]
        anchor = np.clip(anchor, 0, source_px)
    room = 0.30 * INPUT_PX
    place = INPUT_PX / 2 + rng.uniform(-room, room, 2)
    if zoom * source_px < INPUT_PX:
        place, anchor = rng.uniform(0, INPUT_PX - zoom * source_px, 2), np.zeros(2)
    matrix[:, 2] = place - matrix[:, :2] @ anchor
    mirrored = rng.random() < 0.5
    if mirrored:
        matrix[0] *= -1
        matrix[0, 2] += INPUT_PX - 1
    border = cv2.BORDER_CONSTANT if rng.random() < 0.7 else cv2.BORDER_REFLECT_101
    frame = cv2.warpAffine(
        scenes.frames_uint8[index],
        matrix,
        (INPUT_PX, INPUT_PX),
        flags=cv2.INTER_AREA if zoom < 0.6 else cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT if seen else border,
        borderValue=(PADDING_GREY,) * 3,
    )
    return _moved_truth(scenes, index, matrix, degrade(frame, rng, smallest=0.4), mirrored=mirrored)


def _moved_truth(
    scenes: Scenes,
    index: int,
    matrix: Float[np.ndarray, "2 3"],
    frame: UInt8[np.ndarray, "height width 3"],
    *,
    mirrored: bool,
) -> View:
    seen = int(scenes.num_people[index])
    keypoints = scenes.keypoints[index, :seen] @ matrix[:, :2].T + matrix[:, 2]
    visible = scenes.keypoint_visible[index, :seen] & _inside(keypoints)
    boxes = scenes.face_boxes[index][scenes.face_valid[index]]
    marks = scenes.face_landmarks[index][scenes.face_valid[index]] @ matrix[:, :2].T + matrix[:, 2]
    if mirrored:
        keypoints, visible = keypoints[:, _MIRROR], visible[:, _MIRROR]
        marks = marks[:, _MIRROR_LANDMARKS]
    corners = boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]] @ matrix[:, :2].T + matrix[:, 2]
    boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1)
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    kept = np.clip(boxes, 0, INPUT_PX)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).clip(1e-6)
    share = np.prod(kept[:, 2:] - kept[:, :2], axis=1) / area
    large = (boxes[:, 3] - boxes[:, 1]) >= MIN_FACE_PX
    good = _inside(middles) & (share > 0.6) & large
    doubtful = ~good & (share > 0.15)
    counted = visible.sum(1) >= MIN_VISIBLE_KEYPOINTS
    return View(
        frame=frame,
        keypoints=keypoints[counted],
        visible=visible[counted].astype(np.float32),
        face_boxes=boxes[good],
        face_landmarks=marks[good],
        small_faces=boxes[doubtful],
    )


def _inside(points: Float[np.ndarray, "*n 2"]) -> np.ndarray:
    return np.asarray(((points >= 0) & (points < INPUT_PX)).all(-1))


def person_centre(
    keypoints: Float[np.ndarray, "18 2"], visible: Float[np.ndarray, " 18"]
) -> Float[np.ndarray, " 2"]:
    """Return the point that stands for a person: the neck, or the mean of what is seen of them."""
    if _inside(keypoints[1]):
        return keypoints[1]
    return keypoints[visible > 0].mean(0)


def _gaussians(
    points: Float[np.ndarray, "points 2"], sigma_cells: float, stride: int
) -> Float[np.ndarray, "points cells cells"]:
    centres = (np.arange(INPUT_PX // stride) + 0.5) * stride - 0.5
    sigma = sigma_cells * stride
    across = np.exp(-((points[:, :1] - centres) ** 2) / (2 * sigma**2))
    down = np.exp(-((points[:, 1:] - centres) ** 2) / (2 * sigma**2))
    return (down[:, :, None] * across[:, None, :]).astype(np.float32)


def pose_targets(
    view: View,
) -> tuple[Float[np.ndarray, "19 q q"], Float[np.ndarray, "36 e e"], Float[np.ndarray, "37 e e"]]:
    """Return the maps of one view.

    Returns:
        Heat of person centres and of the 18 keypoints; x and y offsets in OFFSET_UNIT_PX around
        each centre; 18 weights of the offsets (divided by the person's size), 18 visibilities, and
        one map that is 1 around the centres.
    """
    cells = INPUT_PX // HEAT_STRIDE
    coarse = INPUT_PX // PERSON_STRIDE
    heat = np.zeros((19, cells, cells), np.float32)
    offsets = np.zeros((36, coarse, coarse), np.float32)
    extra = np.zeros((37, coarse, coarse), np.float32)
    grid = (np.arange(coarse) + 0.5) * PERSON_STRIDE - 0.5
    # The largest person is written last and wins where centres meet.
    for keypoints, visible in zip(view.keypoints[::-1], view.visible[::-1], strict=True):
        centre = person_centre(keypoints, visible)[None]
        heat[0] = np.maximum(heat[0], _gaussians(centre, 2.0, HEAT_STRIDE)[0])
        maps = _gaussians(keypoints, _HEAT_SIGMA_CELLS, HEAT_STRIDE) * visible[:, None, None]
        heat[1:] = np.maximum(heat[1:], maps)
        rows, columns = np.nonzero(_gaussians(centre, 1.0, PERSON_STRIDE)[0] > 0.4)
        size = max(float(np.ptp(keypoints, axis=0).max()), 32.0)
        steps = np.clip(keypoints, -INPUT_PX, 2 * INPUT_PX)
        offsets[0::2, rows, columns] = (steps[:, 0, None] - grid[columns]) / OFFSET_UNIT_PX
        offsets[1::2, rows, columns] = (steps[:, 1, None] - grid[rows]) / OFFSET_UNIT_PX
        trust = np.where(visible > 0, 1.0, np.where(_inside(keypoints), 0.6, 0.25))
        extra[:18, rows, columns] = (trust * OFFSET_UNIT_PX / size)[:, None]
        extra[18:36, rows, columns] = visible[:, None]
        extra[36, rows, columns] = 1.0
    return heat, offsets, extra


def face_targets(
    view: View,
) -> tuple[
    Float[np.ndarray, "q q"],
    Float[np.ndarray, "q q"],
    Float[np.ndarray, "14 q q"],
    Float[np.ndarray, "q q"],
]:
    """Return heat, weight of the heat, shape in FACE_UNIT_PX and weight of the shape."""
    cells = INPUT_PX // HEAT_STRIDE
    heat = np.zeros((cells, cells), np.float32)
    counts = np.ones((cells, cells), np.float32)
    shape = np.zeros((14, cells, cells), np.float32)
    weight = np.zeros((cells, cells), np.float32)
    grid = (np.arange(cells) + 0.5) * HEAT_STRIDE - 0.5
    for box in view.small_faces:
        left, top, right, bottom = (np.clip(box / HEAT_STRIDE, 0, cells)).astype(int)
        counts[top : bottom + 1, left : right + 1] = 0.0
    for box, marks in zip(view.face_boxes, view.face_landmarks, strict=True):
        size = float(max(box[2] - box[0], box[3] - box[1]))
        middle = ((box[:2] + box[2:]) / 2)[None]
        spread = max(0.09 * size / HEAT_STRIDE, 0.8)
        blob = _gaussians(middle, spread, HEAT_STRIDE)[0]
        heat = np.maximum(heat, blob)
        counts[blob > 0.05] = 1.0
        rows, columns = np.nonzero(blob > 0.45)
        x, y = grid[columns], grid[rows]
        values = [x - box[0], y - box[1], box[2] - x, box[3] - y]
        for mark in marks:
            values += [mark[0] - x, mark[1] - y]
        shape[:, rows, columns] = np.stack(values) / FACE_UNIT_PX
        weight[rows, columns] = FACE_UNIT_PX / size
    return heat, counts, shape, weight
